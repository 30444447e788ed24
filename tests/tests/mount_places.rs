//! Where mounts are made: not over proc, wherever a link leads; in great number; beside renames; on what is not there yet.

use serde_json::{Value, json};
use slipway_tests::{Node, Pod};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

fn mounts(list: &[Value]) -> Value {
    json!({"mounts": list})
}

fn privileged(mut wish: Value) -> Value {
    wish["linux"] = json!({"security_context": {"privileged": true}});
    wish
}

/// A file of the host's mounted over /proc/self/attr, or a directory over /proc, took the place of what tells the kernel
/// how to confine a process, and of what hides parts of proc.
#[test]
fn nothing_is_mounted_over_proc_but_proc_itself_and_the_files_of_lxcfs() {
    let node = Node::start();
    let fake = node.path("fake");
    fs::create_dir_all(fake.join("self")).expect("a directory");
    fs::write(node.path("file"), "MemTotal: 1 kB\n").expect("a file");
    let links = "RUN ln -s /proc /proclink && ln -s /proc/self /selflink && ln -s .././proc/sys/kernel /sysctls && ln -s / /rootlink\n";
    node.build("busybox:1", links);
    let pod = Pod::start(&node, "web", json!({}));
    let (directory, file) = (fake.display().to_string(), node.path("file").display().to_string());
    for (number, (host, inside)) in [
        (&directory, "/proc"),
        (&directory, "/proc/self"),
        (&directory, "/proc/absent"),
        (&file, "/proc/self/attr/exec"),
        (&file, "/proc/sys/kernel/core_pattern"),
        (&file, "/proc/sysrq-trigger"),
        (&directory, "/proclink"),
        (&directory, "/proclink/self"),
        (&file, "/selflink/attr/current"),
        (&file, "/sysctls/core_pattern"),
        (&directory, "/rootlink"),
    ]
    .into_iter()
    .enumerate()
    {
        let wish = || mounts(&[json!({"host_path": host, "container_path": inside})]);
        for wish in [wish(), privileged(wish())] {
            let error = pod.refuses(&format!("bad{number}"), "true", wish);
            assert!(
                error.contains(inside) && error.contains("mounted") || error.contains("inside of /proc"),
                "{inside}: {error}"
            );
        }
        let ran = node.slipway(&["run", "--rm", "-v", &format!("{host}:{inside}"), "busybox:1", "true"]);
        assert!(ran.error().contains(inside), "{inside}: {ran:#?}");
    }
    let allowed = mounts(&[json!({"host_path": file, "container_path": "/proc/meminfo", "readonly": true})]);
    assert_eq!(pod.says("lxcfs", "cat /proc/meminfo", allowed), "MemTotal: 1 kB\n");
    // A proc of the host's, which a node's agents mount on theirs, is one.
    let whole = mounts(&[json!({"host_path": "/proc", "container_path": "/proc"})]);
    let own = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("an id");
    assert_eq!(pod.says("host", "cat /proc/sys/kernel/random/boot_id", privileged(whole)), own);
    let beside = mounts(&[json!({"host_path": "/proc", "container_path": "/host/proc", "readonly": true})]);
    assert_eq!(pod.says("beside", "cat /host/proc/sys/kernel/random/boot_id", beside), own);
}

/// openat2(2) answers EAGAIN while anything on the machine is renamed, and a start that met it failed.
#[test]
fn starts_and_look_ups_beside_renames_succeed() {
    let node = Node::start();
    // Each name `..` is a chance to meet one.
    let up = "../".repeat(4);
    node.build(
        "busybox:1",
        &format!("RUN mkdir /users && mv /etc/passwd /users/ && ln -s {up}users/passwd /etc/passwd && ln -s {up}users /deep\nUSER sailor\n"),
    );
    let pod = Pod::start(&node, "web", json!({}));
    let place = node.path("renames");
    fs::create_dir(&place).expect("a directory");
    rustix::mount::mount("tmpfs", &place, "tmpfs", rustix::mount::MountFlags::empty(), None)
        .expect("a tmpfs");
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, |number| number.get().min(2));
        for thread in 0..threads {
            let (place, over) = (&place, &over);
            scope.spawn(move || {
                let (one, other) = (place.join(format!("a{thread}")), place.join(format!("b{thread}")));
                fs::create_dir(&one).expect("a directory");
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    for _ in 0..100 {
                        let _ = fs::rename(&one, &other);
                        let _ = fs::rename(&other, &one);
                    }
                    // A machine with one processor has other work too.
                    std::thread::yield_now();
                }
            });
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let id = pod.run("main", "exec sleep 1000", json!({}));
            for number in 0..15 {
                assert_eq!(node.slipway(&["exec", "-u", "sailor", &id, "id", "-u"]).ok(), "1000");
                let wish = json!({"working_dir": "/deep", "linux": {"security_context": {"masked_paths": ["/deep/passwd"]}}});
                assert_eq!(pod.says(&format!("c{number}"), "id -u", wish), "1000\n");
            }
        }));
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    node.unmount();
}

#[test]
fn a_thousand_mounts_in_one_container_work() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let data = node.path("data");
    let list: Vec<Value> = (0..1000)
        .map(|number| {
            let host = data.join(number.to_string());
            fs::create_dir_all(&host).expect("a directory");
            fs::write(host.join("number"), number.to_string()).expect("a file");
            json!({"host_path": host, "container_path": format!("/m/{}/{number}", number % 10), "readonly": number % 2 == 0})
        })
        .collect();
    let id = pod.run("main", "exec sleep 1000", mounts(&list));
    let said =
        pod.exec(&id, "grep -c ' /m/' /proc/self/mounts; cat /m/*/*/number | wc -c; cat /m/9/999/number");
    assert_eq!(said, "1000\n2890\n999");
    // The pod has room for another one like it.
    assert_eq!(pod.says("other", "grep -c ' /m/' /proc/self/mounts", mounts(&list)), "1000\n");
}

/// KubeVirt and Calico rely on it: a host path that is not there was an error.
#[test]
fn a_missing_host_path_is_made_as_a_directory() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let missing = node.path("new/deep/place");
    let wish = mounts(&[json!({"host_path": missing, "container_path": "/x"})]);
    assert_eq!(pod.says("main", "touch /x/made && ls /x", wish), "made\n");
    for made in ["new", "new/deep", "new/deep/place"] {
        let metadata = fs::metadata(node.path(made)).expect("it is made");
        assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (0o755, 0, 0), "{made}");
    }
    let bind = format!("{}:/x:ro", node.path("other/place").display());
    assert_eq!(node.slipway(&["run", "--rm", "-v", &bind, "busybox:1", "ls", "/x"]).ok(), "");
    assert!(node.path("other/place").is_dir());
    // The error names the path that can't be made.
    fs::write(node.path("plain"), "").expect("a file");
    let wish = mounts(&[json!({"host_path": node.path("plain/below"), "container_path": "/x"})]);
    assert!(pod.refuses("below", "true", wish).contains("plain/below"));
    symlink("nowhere", node.path("dangling")).expect("a link");
    let wish = mounts(&[json!({"host_path": node.path("dangling"), "container_path": "/x"})]);
    assert!(pod.refuses("dangling", "true", wish).contains("dangling"));
}

/// A volume holds links that dangle until the container runs; a mount on one of them failed with "no such file", where
/// other runtimes make what the link names.
#[test]
fn a_mount_on_a_dangling_link_of_a_volume_is_made_where_it_leads_in_the_container() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let volume = node.path("volume");
    fs::create_dir_all(volume.join("sub")).expect("a directory");
    for (name, target) in [
        ("absolute", "/made/by/link"),
        ("relative", "inner/place"),
        ("climbing", "../../../../../../climbed"),
        ("chain", "sub/../absolute/further"),
        ("loop", "loop"),
        ("file", "/made/file"),
        ("through", "/dev/null/x"),
        ("magic", "/proc/self/fd/0/x"),
    ] {
        symlink(target, volume.join(name)).expect("a link");
    }
    fs::create_dir(node.path("data")).expect("a directory");
    fs::write(node.path("data/cargo"), "cargo\n").expect("a file");
    let shared = json!({"host_path": volume, "container_path": "/v"});
    let on = |host: &str, inside: &str| {
        mounts(&[shared.clone(), json!({"host_path": node.path(host), "container_path": inside})])
    };
    for (number, (host, inside, seen)) in [
        ("data", "/v/absolute", "/made/by/link/cargo"),
        ("data", "/v/absolute/below/it", "/made/by/link/below/it/cargo"),
        ("data", "/v/relative", "/v/inner/place/cargo"),
        ("data", "/v/climbing", "/climbed/cargo"),
        ("data", "/v/chain", "/made/by/link/further/cargo"),
        ("data/cargo", "/v/file", "/made/file"),
    ]
    .into_iter()
    .enumerate()
    {
        let said = pod.says(&format!("c{number}"), &format!("cat {seen}"), on(host, inside));
        assert_eq!(said, "cargo\n", "{inside}");
    }
    assert!(
        volume.join("inner/place").is_dir()
            && !Path::new("/made").exists()
            && !Path::new("/climbed").exists()
    );
    for (number, inside) in ["/v/loop", "/v/through", "/v/magic"].into_iter().enumerate() {
        let error = pod.refuses(&format!("bad{number}"), "true", on("data", inside));
        assert!(error.contains(inside), "{inside}: {error}");
    }
}

/// `run` and builds left /sys/firmware in sight, where the list of containerd hides it.
#[test]
fn run_and_builds_hide_what_containerd_hides() {
    let node = Node::start();
    node.build("busybox:1", "");
    let hidden = "/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list \
        /proc/timer_stats /proc/sched_debug /proc/scsi /sys/firmware /sys/devices/virtual/powercap \
        /sys/devices/system/cpu/cpu*/thermal_throttle";
    let script = format!(
        "for p in {hidden}; do if [ -d $p ]; then [ -z \"$(ls -A $p)\" ] || echo $p; elif [ -e $p ]; then [ -z \"$(head -c1 $p)\" ] || echo $p; fi; done; echo done"
    );
    assert_eq!(
        node.slipway(&["run", "--rm", "--network", "host", "busybox:1", "sh", "-c", &script]).ok(),
        "done"
    );
    let context = slipway_tests::build::Context::new(&format!("FROM busybox:1\nRUN ({script}) >/seen\n"));
    let _ = slipway_tests::build::built(&node, &context, &["-t", "seen:1"]);
    assert_eq!(slipway_tests::build::run(&node, "seen:1", &["cat", "/seen"]), "done");
    let pod = Pod::start(&node, "web", json!({}));
    // Without a security context there are no lists either.
    assert_eq!(pod.says("main", &script, json!({})), "done\n");
    // One of the request's is taken as it is, an empty one too.
    let open = json!({"linux": {"security_context": {"masked_paths": [], "readonly_paths": []}}});
    let said = pod.says("open", "head -c1 /proc/interrupts | wc -c", open);
    assert_eq!(said, "1\n");
}

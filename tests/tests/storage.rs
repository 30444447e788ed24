//! The file systems of a container: its root, host paths, volumes, the pod's shared memory and files of /etc.

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use serde_json::{Value, json};
use slipway_tests::{Node, Pod};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

fn mounts(list: &Value) -> Value {
    json!({"mounts": list})
}

/// A directory that is a mount of its own, with this propagation; taken away with the value.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn on(path: std::path::PathBuf, propagation: MountPropagationFlags) -> Self {
        fs::create_dir_all(&path).expect("a directory");
        rustix::mount::mount_bind(&path, &path).expect("it becomes a mount");
        rustix::mount::mount_change(&path, propagation).expect("its propagation is set");
        Self(path)
    }

    fn tmpfs(path: &Path) {
        fs::create_dir_all(path).expect("a directory");
        rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::empty(), None).expect("a tmpfs");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn host_paths_are_bound_as_asked() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let data = node.path("data");
    fs::create_dir_all(data.join("inner")).expect("a directory");
    fs::write(data.join("file"), "cargo\n").expect("a file");
    symlink("data", node.path("link")).expect("a link");
    let wish = mounts(&json!([
        // Deeper ones first: their order in the request does not matter.
        {"host_path": data.join("file"), "container_path": "/rw/inner/deep/file"},
        {"host_path": node.path("link/file"), "container_path": "/etc/motd", "readonly": true},
        {"host_path": data, "container_path": "/ro", "readonly": true},
        {"host_path": node.path("link"), "container_path": "/rw"},
        {"host_path": data.join("file"), "container_path": "/etc/hosts"},
    ]));
    let script =
        "cat /ro/file /rw/file /etc/motd /rw/inner/deep/file /etc/hosts | sort -u; echo more >>/rw/file;
        echo x >/ro/new || echo refused; echo x >>/etc/motd || echo refused; touch /rw/new; wc -l </ro/file";
    let said = pod.says("main", &format!("({script}) 2>/dev/null"), wish);
    assert_eq!(said, "cargo\nrefused\nrefused\n2\n");
    assert!(data.join("new").exists() && !data.join("x").exists());
    for (number, (host, inside, named)) in [
        (node.path("data/file/below").display().to_string(), "/x", "data/file/below"),
        ("relative".to_owned(), "/x", "host_path"),
        ("/tmp".to_owned(), "relative", "container_path"),
        ("/tmp".to_owned(), "/", "container_path"),
        ("/tmp".to_owned(), "/a/../../b", ".."),
        (data.display().to_string(), "/etc/passwd", "/etc/passwd"),
    ]
    .into_iter()
    .enumerate()
    {
        let wish = mounts(&json!([{"host_path": host, "container_path": inside}]));
        let error = pod.refuses(&format!("bad{number}"), "true", wish);
        assert!(error.contains(named), "{host} on {inside}: {error}");
    }
}

#[test]
fn mounts_come_and_go_as_propagation_says() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let shared = Mounted::on(node.path("shared"), MountPropagationFlags::SHARED);
    let private = Mounted::on(node.path("private"), MountPropagationFlags::PRIVATE);
    Mounted::tmpfs(&shared.0.join("before"));
    fs::write(shared.0.join("before/file"), "").expect("a file");
    let start = |name: &str, propagation: i32| {
        let mut wish =
            mounts(&json!([{"host_path": shared.0, "container_path": "/m", "propagation": propagation}]));
        wish["linux"] = json!({"security_context": {"privileged": true}});
        pod.run(name, "exec sleep 1000", wish)
    };
    let (alone, slave, both) = (start("alone", 0), start("slave", 1), start("both", 2));
    Mounted::tmpfs(&shared.0.join("late"));
    fs::write(shared.0.join("late/file"), "").expect("a file");
    for (id, inside) in [(&alone, "before"), (&slave, "before late"), (&both, "before late")] {
        let seen = pod.exec(id, "cd /m; for d in before late; do [ ! -e $d/file ] || echo $d; done");
        assert_eq!(seen.replace('\n', " "), inside);
    }
    for (id, name) in [(&alone, "one"), (&slave, "two"), (&both, "three")] {
        let _ = pod
            .exec(id, &format!("mkdir /m/{name} && mount -t tmpfs tmpfs /m/{name} && touch /m/{name}/file"));
    }
    let outside = ["one", "two", "three"].map(|name| shared.0.join(name).join("file").exists());
    assert_eq!(outside, [false, false, true]);
    for (name, propagation) in [("slave", 1), ("both", 2)] {
        let wish =
            mounts(&json!([{"host_path": private.0, "container_path": "/m", "propagation": propagation}]));
        let error = pod.refuses(&format!("no-{name}"), "true", wish);
        assert!(error.contains("private") && error.contains("shared"), "{error}");
    }
    let _ = node.crictl(&["rmp", "-f", &pod.id]).ok();
    let _ = rustix::mount::unmount(shared.0.join("three"), UnmountFlags::DETACH);
}

#[test]
fn each_volume_of_the_image_is_a_directory_with_the_image_s_files() {
    let node = Node::start();
    let lines = "RUN mkdir -p /data/deep /srv/real && echo cargo >/data/deep/file && ln -s deep/file /data/link && \
        ln /data/deep/file /data/again && mkfifo /data/pipe && chown -R 1000:1001 /data && chmod 2750 /data && ln -s /srv/real /linked && \
        echo real >/srv/real/file && ln -s ../../../../escape /up\n\
        VOLUME /data /fresh/made /linked /up/x /../../../etc /mounted\n";
    node.build("busybox:1", lines);
    let pod = Pod::start(&node, "web", json!({"hostname": "quay"}));
    fs::create_dir(node.path("own")).expect("a directory");
    let wish = json!({
        "linux": {"security_context": {"readonly_rootfs": true}},
        "mounts": [{"host_path": node.path("own"), "container_path": "/mounted"}],
    });
    let script = "stat -c '%a %u:%g %n' /data /data/deep/file /fresh/made; cat /data/link /data/again /linked/file; \
        [ /data/again -ef /data/deep/file ] && echo same; for d in /data /fresh/made /linked /up/x /etc /mounted; do \
        echo x >$d/written || echo $d; done; cat /srv/real/written /escape/x/written; cat /etc/hostname; \
        grep -c sailor /etc/passwd; echo x 2>/dev/null >/root/x || echo fixed; exec sleep 1000";
    let first = pod.run("first", script, wish);
    let second = pod.run("second", "exec sleep 1000", json!({}));
    let expected = "2750 1000:1001 /data\n644 1000:1001 /data/deep/file\n755 0:0 /fresh/made\ncargo\ncargo\nreal\n\
        same\nx\nx\nquay\n1\nfixed\n";
    // The hostname is the file's, of the pod on the host's network too.
    let said = node.crictl(&["logs", &first]);
    assert_eq!(said.stdout, expected, "{said:#?}");
    assert!(node.path("own/written").exists());
    assert_eq!(
        pod.exec(&second, "ls /data /fresh/made; [ -e /etc/written ] || echo apart"),
        "/data:\nagain\ndeep\nlink\npipe\n\n/fresh/made:\napart"
    );
    let kept = node.path("lib/containers").join(&first);
    assert!(kept.join("volumes").exists());
    let _ = node.crictl(&["rm", "-f", &first]).ok();
    assert!(!kept.exists());

    for (number, (line, named)) in
        [("VOLUME /proc/1", "/proc/1"), ("VOLUME /etc/passwd", "/etc/passwd")].into_iter().enumerate()
    {
        let image = format!("bad-volume:{number}");
        node.build(&image, &format!("{line}\n"));
        let mut pod = Pod::start(&node, &format!("bad{number}"), json!({}));
        pod.image = image;
        let error = pod.refuses("main", "true", json!({}));
        assert!(error.contains(named) && error.contains("volume"), "{line}: {error}");
    }
}

#[test]
fn a_root_that_is_read_only_takes_no_writes_but_mounts_do() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let wish = json!({"linux": {"security_context": {"readonly_rootfs": true}}});
    let script = "for p in /x /tmp/x /etc/hosts /dev/x /dev/shm/x; do (echo x >>$p) 2>/dev/null && echo $p; done; \
        mount -o remount,rw / 2>/dev/null || echo stays";
    assert_eq!(pod.says("fixed", script, wish), "/dev/x\n/dev/shm/x\nstays\n");
    let open = pod.says("open", script, json!({}));
    assert_eq!(open, "/x\n/tmp/x\n/etc/hosts\n/dev/x\n/dev/shm/x\nstays\n");
}

#[test]
fn a_pod_s_containers_share_memory_and_begin_with_the_same_files_of_etc() {
    let node = Node::start();
    slipway_tests::probe::build_from(&node, "busybox:1", |context| {
        slipway_tests::busybox::context(context, "");
        // As a distribution with a resolver of its own has it; where it leads is not in the image.
        symlink("../run/resolver/stub.conf", context.join("root/etc/resolv.conf")).expect("a link");
    });
    let more = json!({
        "hostname": "quay",
        "dns_config": {"servers": ["10.0.0.10"], "searches": ["ns.svc", "svc"], "options": ["ndots:5"]},
        "linux": {"security_context": {"namespace_options": {"network": 0}}},
    });
    let pod = Pod::start(&node, "web", more);
    let first = pod.run("first", "exec sleep 1000", json!({}));
    let second = pod.run("second", "exec sleep 1000", json!({}));
    let _ = pod.exec(&first, "echo by first >/dev/shm/note");
    assert_eq!(pod.exec(&second, "cat /dev/shm/note"), "by first");
    for file in ["hosts", "resolv.conf", "hostname"] {
        let read = format!("cat /etc/{file}");
        assert_eq!(pod.exec(&first, &read), pod.exec(&second, &read));
    }
    let other = Pod::start(&node, "other", json!({}));
    assert_eq!(other.says("main", "ls /dev/shm", json!({})), "");
    let text = "search ns.svc svc\nnameserver 10.0.0.10\noptions ndots:5";
    assert_eq!(pod.exec(&first, "cat /etc/resolv.conf"), text);
    let address = node.crictl(&["inspectp", &pod.id]).json()["status"]["network"]["ip"].clone();
    let address = address.as_str().expect("an address").to_owned();
    assert_eq!(
        pod.exec(&first, "hostname; cat /etc/hostname; awk '/quay/ {print $1}' /etc/hosts"),
        format!("quay\nquay\n{address}")
    );
    assert_eq!(pod.exec(&first, "df -k /dev/shm | awk 'END {print $2}'"), "65536");
    let error = node.crictl(&[
        "runp",
        &node.pod_file("evil", json!({"dns_config": {"searches": ["a\nnameserver 6.6.6.6"]}})),
    ]);
    assert!(error.error().contains("nameserver 6.6.6.6"), "{error:#?}");
}

#[test]
fn a_dev_of_the_host_s_gets_nothing_new() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir("/dev").expect("/dev").map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let wish = json!({
        "mounts": [{"host_path": "/dev", "container_path": "/dev"}],
        "linux": {"security_context": {"privileged": true}},
    });
    assert_eq!(pod.says("main", "echo x >/dev/null; [ -c /dev/zero ] && echo there", wish), "there\n");
    assert_eq!(names(), before);
}

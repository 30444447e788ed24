//! Vulnerability classes of container runtimes that no other file has a test of; SECURITY.md lists them all.

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};
use slipway_proto::slipway::v1 as own;
use slipway_proto::slipway::v1::attach_request::Message as Asked;
use slipway_proto::slipway::v1::slipway_client::SlipwayClient;
use slipway_tests::{Node, Output, Pod, grpc, probe, wait};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

fn mounts(list: &[Value]) -> Value {
    json!({"mounts": list})
}

/// Each path below a directory with its type, length, mode, owner and time.
fn listing(directory: &Path) -> String {
    let mut find = Command::new("find");
    Output::of(find.arg(directory).args(["-printf", "%p %y %s %m %U:%G %T@\\n"])).ok().to_owned()
}

/// Whether what is swapped goes on.
struct Swapping<'a>(&'a AtomicBool);

impl Drop for Swapping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// CVE-2021-30465 and CVE-2019-18837: while a container starts, another one that shares a volume with it swaps the place
/// of a mount for a link out of its root.
#[test]
fn a_mount_point_that_is_swapped_for_a_link_in_a_shared_volume_leads_nowhere_else() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let (volume, host, data) = (node.path("volume"), node.path("host"), node.path("data"));
    for directory in [volume.join("place"), host.clone(), data.clone()] {
        fs::create_dir_all(directory).expect("a directory");
    }
    fs::write(host.join("canary"), "sings").expect("a file");
    fs::write(data.join("cargo"), "cargo").expect("a file");
    let before = listing(&host);
    let up = "../".repeat(20);
    for (name, target) in [
        ("host", host.display().to_string()),
        ("climbing", format!("{up}{}", host.display())),
        ("root", "/proc/1/root".to_owned()),
        ("self", "/proc/self".to_owned()),
        ("sysctl", "/proc/sys/kernel".to_owned()),
    ] {
        symlink(target, volume.join(name)).expect("a link");
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let links = ["host", "climbing", "root", "self", "sysctl"].iter().cycle();
            for link in links.take_while(|_| !over.load(Ordering::Relaxed)) {
                for _ in 0..2 {
                    let (place, link) = (volume.join("place"), volume.join(link));
                    renameat_with(CWD, place, CWD, link, RenameFlags::EXCHANGE).expect("they are swapped");
                    std::thread::yield_now();
                }
            }
        });
        let _swapping = Swapping(&over);
        let shared = json!({"host_path": volume, "container_path": "/v"});
        let onto = json!({"host_path": data, "container_path": "/v/place"});
        let script = "cut -d' ' -f2 /proc/self/mounts | grep -E '^/proc/(self|[0-9]|sys/kernel/)'; \
            (echo x >/proc/sys/kernel/hostname) 2>/dev/null && echo writable; :";
        for number in 0..40 {
            let created = pod.create(&format!("c{number}"), script, mounts(&[shared.clone(), onto.clone()]));
            let id = created.ok().to_owned();
            // A start that meets a link out of the root may fail; it must not follow it.
            if node.crictl(&["start", &id]).status == 0 {
                assert_eq!(node.exited(&id)["exitCode"], 0);
                assert_eq!(node.crictl(&["logs", &id]).ok(), "", "a mount stands for a part of proc");
            }
            let _ = node.crictl(&["rm", "-f", &id]).ok();
        }
    });
    assert_eq!(listing(&host), before);
    let seen = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!seen.contains(&format!("{} ", host.display())), "{seen}");
}

/// CVE-2025-31133 and CVE-2025-52565: the container's own /dev/null and /dev/console are links into proc when they are used
/// to hide something, or when the terminal is mounted.
#[test]
fn a_dev_that_a_container_fills_uncovers_nothing_and_lets_nothing_be_written() {
    let node = Node::start();
    probe::build(&node, "busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let dev = node.path("dev");
    fs::create_dir(&dev).expect("a directory");
    for (name, target) in [
        ("null", "/proc/sys/kernel/core_pattern"),
        ("console", "/proc/sys/kernel/hostname"),
        ("pts", "/proc/sys/kernel"),
    ] {
        symlink(target, dev.join(name)).expect("a link");
    }
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("the pattern");
    let write = "probe write /proc/sys/kernel/core_pattern; probe write /proc/sys/kernel/hostname; cat /proc/keys | wc -c";
    for (name, tty) in [("pipes", false), ("terminal", true)] {
        let mut wish = mounts(&[json!({"host_path": dev, "container_path": "/dev"})]);
        wish["linux"] = lists();
        wish["tty"] = json!(tty);
        let id = pod.create(name, write, wish).ok().to_owned();
        // A terminal that can't be made is an error.
        if node.crictl(&["start", &id]).status == 0 {
            let _ = node.exited(&id);
            let said = node.crictl(&["logs", &id]).stdout.replace('\r', "");
            assert_eq!(said, "EROFS\nEROFS\n0\n", "{name}");
        }
    }
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").expect("the pattern"), pattern);
}

/// The masked and read-only paths that kubelet sends.
fn lists() -> Value {
    json!({"security_context": {
        "masked_paths": ["/proc/keys", "/proc/timer_list", "/proc/kcore"],
        "readonly_paths": ["/proc/sys", "/proc/sysrq-trigger", "/proc/bus", "/proc/fs", "/proc/irq"]}})
}

/// CVE-2026-57231, CVE-2026-15809 and CVE-2026-53488: variables without a value, a home directory with a line feed, and
/// labels of the image's that look like the runtime's own.
#[test]
fn an_image_imports_nothing_from_the_host_and_its_labels_are_data() {
    let node = Node::with_environment("", &[("SLIPWAY_SECRET", Path::new("/of/the/daemon"))]);
    node.build("busybox:1", "");
    let mut pod = Pod::start(&node, "web", json!({}));
    // An image by hand: no Dockerfile makes such variables.
    let registry = slipway_tests::Scripted::start();
    let layers = node.slipway(&["inspecti", "busybox:1"]);
    assert_eq!(layers.status, 0, "{layers:#?}");
    let tar = slipway_tests::tarball::Tarball::new().file("etc/motd", b"ahoy\n").end();
    let mut artifact = slipway_tests::artifact::Artifact::of(&[tar]);
    let mut config: Value = serde_json::from_slice(&artifact.config).expect("a configuration");
    config["config"] = json!({"Env": ["PATH", "SLIPWAY_SECRET", "*", "=x", "KEPT=yes", "PATH=/bin"]});
    artifact.config = config.to_string().into_bytes();
    artifact.manifest["config"] =
        slipway_tests::artifact::descriptor("application/vnd.oci.image.config.v1+json", &artifact.config);
    registry.hold(&artifact, "fleet/odd", "1");
    let name = registry.name("fleet/odd:1");
    let _ = node.crictl(&["pull", &name]).ok();
    pod.image.clone_from(&name);
    let bin = json!({"host_path": "/bin", "container_path": "/bin"});
    let rest = ["lib", "lib64", "usr"].iter().filter(|name| Path::new("/").join(name).exists());
    let binds: Vec<Value> = rest
        .map(|name| json!({"host_path": format!("/{name}"), "container_path": format!("/{name}")}))
        .chain([bin])
        .collect();
    let print = ["/bin/sh", "-c", "cat /proc/self/environ | tr '\\0' '\\n'"];
    let said = pod.says("odd", "", json!({"command": print, "mounts": binds}));
    assert!(said.contains("KEPT=yes") && said.contains("PATH=/bin"), "{said}");
    assert!(!said.contains("SECRET") && !said.contains("/of/the/daemon") && !said.contains('*'), "{said}");

    node.build(
        "home:1",
        "RUN printf 'evil:x:1000:1000::/root\\rX=y\\v:/bin/sh\\n' >/etc/passwd\nUSER evil\n",
    );
    pod.image = "home:1".into();
    let said = pod.says("home", "cat /proc/self/environ | tr '\\0' '\\n'", json!({}));
    assert!(said.contains("HOME=/\n") && !said.contains("X=y"), "{said}");

    let labels = "LABEL io.kubernetes.pod.namespace=kube-system io.cri-containerd.image=managed slipway.owner=run \\\n\
        slipway.privileged=true io.kubernetes.container.name=etcd\n";
    node.build("labels:1", labels);
    pod.image = "labels:1".into();
    let id = pod.run("labels", "exec sleep 1000", json!({}));
    let status = node.status(&id);
    assert_eq!(status["labels"], json!({}), "{status:#}");
    let owners = node.slipway(&["ps", "-a", "-o", "json"]).stdout;
    assert!(!owners.contains("kube-system") && !owners.contains("etcd"), "{owners}");
    let held = pod.exec(&id, "grep CapBnd /proc/self/status");
    assert!(held.ends_with("00000000a80425fb"), "{held}");
}

/// Resident memory in KiB, descriptors and threads of the daemon.
fn held(node: &Node) -> (u64, usize, usize) {
    let process = Path::new("/proc").join(node.pid().to_string());
    let status = fs::read_to_string(process.join("status")).expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    let size = line.split_whitespace().next().and_then(|size| size.parse().ok()).expect("a number");
    let count = |name: &str| fs::read_dir(process.join(name)).expect("a directory").count();
    (size, count("fd"), count("task"))
}

/// CVE-2022-31030, CVE-2022-23471 and CVE-2025-64329: output without end fills the runtime's memory, and sessions that are
/// given up leave descriptors and threads behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_output_and_thousands_of_sessions_that_are_given_up_cost_a_bounded_amount() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let more = json!({"tty": true, "stdin": true});
    let id = pod.run("main", "exec sleep 1000", more);
    let _ = pod.exec(&id, "true");
    let before = held(&node);
    let mut endless = node.crictl_command(&["exec", "-s", "--timeout", "5", &id, "yes"]);
    let mut endless = endless
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("crictl starts");
    let mut most = 0;
    while endless.try_wait().expect("crictl is waited for").is_none() {
        most = most.max(held(&node).0);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(most < before.0 + 128 * 1024, "{} KiB became {most}", before.0);
    let channel = grpc::channel(&node).await;
    for round in 0..1000 {
        let mut client = SlipwayClient::new(channel.clone());
        let start = own::AttachStart { container: id.clone(), stdin: true, stdout: true, stderr: false };
        let size = own::TerminalSize { width: 80 + round % 7, height: 25 };
        let messages = [Asked::Start(start), Asked::Resize(size), Asked::Stdin(b"x".to_vec())];
        let requests = messages.map(|message| own::AttachRequest { message: Some(message) });
        let attached = client.attach(tokio_stream::iter(requests)).await;
        // Some are given up before anything has come, some after.
        if let (Ok(answer), 0) = (attached, round % 3) {
            let _ = answer.into_inner().message().await;
        }
    }
    drop(channel);
    let monitor = slipway_tests::monitor(&node, &pod.id);
    let open = || fs::read_dir(format!("/proc/{monitor}/fd")).expect("descriptors").count();
    wait("the end of all sessions", || {
        let now = held(&node);
        now.1 <= before.1 + 8 && now.2 <= before.2 + 8 && open() < 64
    });
    assert_eq!(pod.exec(&id, "echo well"), "well");
}

/// A table that names tests which are gone says that a class is held closed when it is not.
#[test]
fn each_test_that_security_md_names_exists() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the project's folder");
    let table = fs::read_to_string(top.join("SECURITY.md")).expect("SECURITY.md");
    let mut named = 0;
    for word in table.split('`').skip(1).step_by(2) {
        let Some((file, name)) = word.split_once(": ") else { continue };
        let path = top.join("tests/tests").join(file).with_extension("rs");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{word}: {error}"));
        assert!(text.contains(&format!("fn {name}(")), "{word} is not in {}", path.display());
        named += 1;
    }
    assert!(named > 30, "the table has {named} tests");
}

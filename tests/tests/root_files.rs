//! The files of /etc that are a container's own, and the files of /etc that say who its users are.

use serde_json::{Value, json};
use slipway_tests::{Need, Node, Pod, lacks, wait};
use std::process::Command;

const FILES: [&str; 3] = ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"];

fn read_only() -> Value {
    json!({"linux": {"security_context": {"readonly_rootfs": true}}})
}

/// /etc/hosts, /etc/resolv.conf and /etc/hostname were mounted writable whatever the request said of the root, and a
/// container that was to change nothing could change where names lead.
#[test]
fn a_read_only_root_covers_the_files_that_are_mounted_into_etc() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let script = FILES.map(|file| format!("(echo x >>{file}) 2>/dev/null && echo {file};")).concat();
    assert_eq!(pod.says("open", &format!("{script} echo done"), json!({})), FILES.join("\n") + "\ndone\n");
    assert_eq!(pod.says("fixed", &format!("{script} echo done"), read_only()), "done\n");
    let ran = node.slipway(&[
        "run",
        "--rm",
        "--read-only",
        "busybox:1",
        "sh",
        "-c",
        &format!("{script} echo done"),
    ]);
    assert_eq!(ran.ok(), "done", "{ran:#?}");
    // The container can't make them writable again, nor through a name of its own for them.
    let script = "for f in hosts resolv.conf hostname; do mount -o remount,rw,bind /etc/$f 2>/dev/null && echo $f; \
        (echo x >>/proc/1/root/etc/$f) 2>/dev/null && echo $f; done; echo done";
    assert_eq!(pod.says("again", script, read_only()), "done\n");
}

/// One file of the pod was bound into each of its containers, so that a container wrote what another one reads.
#[test]
fn a_write_to_a_file_of_etc_reaches_no_other_container() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({"hostname": "quay"}));
    let first = pod.run("first", "exec sleep 1000", json!({}));
    let second = pod.run("second", "exec sleep 1000", json!({}));
    let before = FILES.map(|file| pod.exec(&second, &format!("cat {file}")));
    for file in FILES {
        let _ = pod
            .exec(&first, &format!("echo 6.6.6.6 written >>{file} && chmod 0600 {file} && chown 9:9 {file}"));
        assert!(pod.exec(&first, &format!("cat {file}")).ends_with("6.6.6.6 written"));
    }
    assert_eq!(FILES.map(|file| pod.exec(&second, &format!("cat {file}"))), before);
    // Nor one that is started later, whose files have the usual owner and mode.
    let script = FILES.map(|file| format!("stat -c '%a %u:%g' {file}; grep -c written {file};")).concat();
    assert_eq!(pod.says("third", &format!("{script} :"), json!({})), "644 0:0\n0\n".repeat(3));
    assert_eq!(pod.exec(&first, "cat /etc/hostname").lines().next(), Some("quay"));
}

/// Replacements of /etc/passwd: a name, the script that makes it, and a part of the error of a look-up.
const HOSTILE: [(&str, &str, &str); 8] = [
    ("a link to the kernel's log", "ln -s /proc/kmsg $f", "/etc/passwd"),
    ("a link into proc", "ln -s /proc/self/cmdline $f", "/etc/passwd"),
    ("a link through a descriptor", "ln -s /proc/self/fd/0 $f", "/etc/passwd"),
    ("a pipe", "mkfifo $f", "not a regular file"),
    ("a device", "mknod $f c 1 5", "not a regular file"),
    ("a directory", "mkdir $f", "not a regular file"),
    ("a sparse gigabyte", "truncate -s 1G $f", "larger than"),
    ("a link to itself", "ln -s passwd $f", "/etc/passwd"),
];

/// Resident memory of the daemon in KiB.
fn resident(node: &Node) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("the daemon's status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    line.split_whitespace().nth(1).and_then(|size| size.parse().ok()).expect("a number")
}

/// A container that runs makes /etc/passwd a link to /proc/kmsg: the daemon, as root of the host, opened it and waited
/// for ever. It was read through whatever the container had put there.
#[test]
fn a_look_up_reads_regular_files_of_the_root_alone_while_the_container_runs() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let id = pod.run("main", "exec sleep 1000", json!({}));
    let by_name = |user: &str| node.slipway(&["exec", "-u", user, &id, "id", "-u"]);
    assert_eq!(by_name("sailor").ok(), "1000");
    let before = resident(&node);
    for file in ["/etc/passwd", "/etc/group"] {
        let _ = pod.exec(&id, &format!("cp -a {file} {file}.kept"));
        for (what, make, says) in HOSTILE {
            let _ = pod.exec(&id, &format!("f={file}; rm -rf $f; {}", make.replace("passwd", &file[5..])));
            let refused = by_name("sailor");
            let says = says.replace("/etc/passwd", file);
            assert!(
                refused.error().contains(file) && refused.error().contains(&says),
                "{file}, {what}: {refused:#?}"
            );
            // The container's own user was resolved when it started.
            assert_eq!(pod.exec(&id, "echo well"), "well", "{file}, {what}");
        }
        let _ = pod.exec(&id, &format!("rm -rf {file}; mv {file}.kept {file}"));
    }
    assert!(resident(&node) < before + 32 * 1024, "{before} KiB became {}", resident(&node));
    // Links inside of the root lead where they lead in the container.
    let _ = pod.exec(&id, "mkdir -p /srv/users && mv /etc/passwd /srv/users/ && ln -s ../srv/./users/../users/passwd /etc/passwd");
    assert_eq!(by_name("sailor").ok(), "1000");
    // A file that grows beyond any sense is not read to its end.
    let _ = pod.exec(&id, "yes sailor:x:1000:1000::/: | head -c 5000000 >/srv/users/passwd");
    assert!(by_name("sailor").error().contains("larger than"));
}

#[test]
fn a_look_up_reads_regular_files_of_the_root_alone_before_the_start() {
    let node = Node::start();
    node.build("busybox:1", "");
    let mut pod = Pod::start(&node, "web", json!({}));
    for (number, (what, make, says)) in HOSTILE.into_iter().enumerate() {
        pod.image = format!("hostile:{number}");
        node.build(&pod.image, &format!("RUN f=/etc/passwd; rm $f; {make}\nUSER sailor\n"));
        let error = pod.refuses(&format!("c{number}"), "true", json!({}));
        // A link into proc leads nowhere before there is a proc.
        assert!(error.contains(says) || error.contains("no such user"), "{what}: {error}");
    }
}

/// A file that the request itself mounts on /etc/passwd, or a directory on /etc, says who users are, as in the container.
#[test]
fn a_look_up_in_a_running_container_reads_what_the_request_mounts() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    std::fs::create_dir(node.path("etc")).expect("a directory");
    std::fs::write(node.path("etc/passwd"), "pilot:x:7:8:::\n").expect("a file");
    std::fs::write(node.path("etc/group"), "").expect("a file");
    for (name, host, inside) in [("file", "etc/passwd", "/etc/passwd"), ("directory", "etc", "/etc")] {
        let mounts = json!({"mounts": [{"host_path": node.path(host), "container_path": inside}]});
        let id = pod.run(name, "exec sleep 1000", mounts);
        assert_eq!(node.slipway(&["exec", "-u", "pilot", &id, "id", "-u"]).ok(), "7", "{name}");
    }
    // Another file system that the container has put over it does not.
    let privileged = json!({"linux": {"security_context": {"privileged": true}}});
    let id = pod.run("own", "exec sleep 1000", privileged);
    let _ = pod.exec(&id, "cp /etc/passwd /tmp/p && mount -t tmpfs tmpfs /root && cp /tmp/p /root/ && mount --bind /root/p /etc/passwd");
    let refused = node.slipway(&["exec", "-u", "sailor", &id, "id"]);
    assert!(refused.error().contains("/etc/passwd"), "{refused:#?}");
}

/// A file system that never answers under /etc holds one look-up for ten seconds, and the thread is given up.
#[test]
fn a_look_up_on_a_file_system_that_never_answers_is_given_up() {
    let test = "a_look_up_on_a_file_system_that_never_answers_is_given_up";
    if lacks(test, &[Need::Fuse]) {
        return;
    }
    let mut node = Node::start();
    node.build("busybox:1", "");
    let pod_id;
    {
        let pod = Pod::start(&node, "web", json!({}));
        pod_id = pod.id.clone();
        std::fs::create_dir(node.path("etc")).expect("a directory");
        std::fs::copy("/etc/hostname", node.path("etc/passwd")).expect("a file");
        let mounts = json!({"mounts": [{"host_path": node.path("etc"), "container_path": "/etc"}]});
        let id = pod.run("main", "exec sleep 1000", mounts);
        // From here on nobody answers for /etc.
        let pid = node.crictl(&["inspect", &id]).json()["info"]["pid"].to_string();
        let mount = "mount -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 silent /etc";
        let script = format!("exec 3<>/dev/fuse; nsenter -t {pid} -m {mount}; exec sleep 1000");
        let mut server = Command::new("sh").args(["-c", &script]).spawn().expect("sh starts");
        let mounts = format!("/proc/{pid}/mounts");
        wait("the silent file system", || {
            std::fs::read_to_string(&mounts).is_ok_and(|text| text.contains("fuse"))
        });
        for _ in 0..3 {
            let refused = node.slipway(&["exec", "-u", "sailor", &id, "id"]);
            assert!(refused.error().contains("does not answer"), "{refused:#?}");
        }
        assert!(threads(&node, "look-up") <= 1, "a thread for each look-up stays");
        assert!(node.terminate().success());
        let _ = server.kill();
        let _ = server.wait();
    }
    node.launch();
    let _ = node.crictl(&["rmp", "-f", &pod_id]).ok();
}

/// Threads of the daemon with a name.
fn threads(node: &Node, name: &str) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", node.pid())).expect("the daemon's threads");
    tasks
        .flatten()
        .filter(|task| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
        })
        .count()
}

/// The id 4294967295 means "unchanged" to setresuid(2), so that a line of /etc/passwd with it kept the user of the
/// daemon, root. It is no id, wherever it stands.
#[test]
fn the_id_that_means_unchanged_is_refused_wherever_it_stands() {
    let node = Node::start();
    node.build("busybox:1", "");
    let mut pod = Pod::start(&node, "web", json!({}));
    let none = "4294967295";
    for (number, (line, user)) in [
        (format!("RUN echo ghost:x:{none}:1000::/:/bin/sh >>/etc/passwd"), "ghost"),
        (format!("RUN echo ghost:x:1000:{none}::/:/bin/sh >/etc/passwd"), "ghost"),
        (format!("RUN echo ghosts:x:{none}: >>/etc/group"), "sailor:ghosts"),
        (format!("RUN echo ghosts:x:{none}:sailor >>/etc/group"), "sailor"),
        ("RUN true".to_owned(), none),
        ("RUN true".to_owned(), "0:4294967295"),
    ]
    .into_iter()
    .enumerate()
    {
        pod.image = format!("ghost:{number}");
        node.build(&pod.image, &format!("{line}\nUSER {user}\n"));
        let error = pod.refuses(&format!("c{number}"), "id", json!({}));
        assert!(error.contains(none) && error.contains("2147483647"), "{line}, {user}: {error}");
    }
    // A RUN by that user is refused as well.
    let context = slipway_tests::build::Context::new("FROM busybox:1\nUSER 4294967295\nRUN id\n");
    assert!(slipway_tests::build::failed(&node, &context, &[]).contains(none));

    pod.image = "busybox:1".to_owned();
    for (field, wish) in [
        ("run_as_user", json!({"run_as_user": {"value": 4_294_967_295_u32}})),
        ("run_as_group", json!({"run_as_user": {"value": 0}, "run_as_group": {"value": 4_294_967_295_u32}})),
        ("supplemental_groups", json!({"supplemental_groups": [4_294_967_295_u32]})),
    ] {
        let created = pod.create(field, "id", json!({"linux": {"security_context": wish}}));
        assert!(created.error().contains(field) && created.error().contains(none), "{created:#?}");
    }
    let id = pod.run("main", "exec sleep 1000", json!({}));
    let _ = pod.exec(&id, &format!("echo ghost:x:{none}:0::/: >>/etc/passwd"));
    for user in ["ghost", none, "0:4294967295"] {
        let refused = node.slipway(&["exec", "-u", user, &id, "id"]);
        assert!(refused.error().contains(none), "{user}: {refused:#?}");
    }
}

/// A container without a value of its own kept the daemon's `oom_score_adj`, which systemd sets to -999 for a daemon like
/// this: the kernel would kill anything else of the node first.
#[test]
fn an_oom_score_that_is_not_asked_for_is_0_and_not_the_daemon_s() {
    let mut node = Node::start();
    node.build("busybox:1", "");
    node.kill();
    let mut launcher = Command::new("sh");
    let program = slipway_tests::folder("SLIPWAY_PROGRAMS").join("slipwayd");
    launcher.args(["-c", "echo 300 >/proc/self/oom_score_adj; exec \"$0\" \"$@\""]).arg(program);
    node.launch_by(launcher);
    let own = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", node.pid())).expect("a score");
    assert_eq!(own.trim(), "300");
    let read = "cat /proc/self/oom_score_adj";
    let shared = json!({"linux": {"security_context": {"namespace_options": {"network": 2, "pid": 0}}}});
    let pod = Pod::start(&node, "web", shared);
    let id = pod.run("main", &format!("{read}; exec sleep 1000"), json!({}));
    assert_eq!(node.crictl(&["logs", &id]).ok(), "0");
    assert_eq!(pod.exec(&id, &format!("{read}; cat /proc/1/oom_score_adj")), "0\n0");
    assert_eq!(node.slipway(&["run", "--rm", "--network", "host", "busybox:1", "sh", "-c", read]).ok(), "0");
    let context = slipway_tests::build::Context::new(&format!("FROM busybox:1\nRUN {read} >/score\n"));
    let _ = slipway_tests::build::built(&node, &context, &["-t", "scored:1"]);
    assert_eq!(slipway_tests::build::run(&node, "scored:1", &["cat", "/score"]), "0");
}

//! The life of builds: one sandbox each, cancelled, killed, many at once and beside prunes, and a context that is swapped.

use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use slipway_proto::slipway::v1 as own;
use slipway_proto::slipway::v1::slipway_client::SlipwayClient;
use slipway_tests::build::{Context, built, failed, run};
use slipway_tests::{Node, Output, residue};

/// The resources that the builds of a node hold: children of its daemon, mounts, cgroups, files of builds under way.
fn held(node: &Node) -> Vec<String> {
    let children = residue::children(node.pid());
    let mut found: Vec<String> = children.into_iter().map(|pid| format!("process {pid}")).collect();
    let mounts =
        std::fs::read_to_string(format!("/proc/{}/mountinfo", node.pid())).expect("the daemon's mounts");
    let below = node.path("").display().to_string();
    let mounts = mounts.lines().filter(|line| line.contains(&below) && line.contains("build-"));
    found.extend(mounts.map(|line| format!("mount {line}")));
    for folder in ["lib/build", "run/pods", "run/netns"] {
        let Ok(entries) = std::fs::read_dir(node.path(folder)) else { continue };
        found.extend(entries.flatten().map(|entry| format!("file {}", entry.path().display())));
    }
    found
}

/// Waits until only what was held before is held.
#[track_caller]
fn settled(node: &Node, before: &[String]) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let left: Vec<String> = held(node).into_iter().filter(|one| !before.contains(one)).collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{left:#?}\n{}", node.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn background(node: &Node, context: &Context, flags: &[&str]) -> Child {
    let mut command = node.command();
    command.arg("build").args(flags).arg(context.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("slipway starts")
}

/// Reads the progress of a build until a line ends with this.
#[track_caller]
fn reads(child: &mut Child, end: &str) {
    let stderr = child.stderr.as_mut().expect("its progress");
    let mut said = String::new();
    let mut byte = [0_u8; 1];
    while !said.lines().any(|line| line.ends_with(end)) {
        let read = std::io::Read::read(stderr, &mut byte).expect("progress");
        assert_ne!(read, 0, "the build ended: {said}");
        said.push(char::from(byte[0]));
    }
}

#[test]
fn a_build_is_one_sandbox_and_leaves_nothing_whatever_its_end() {
    let node = Node::start();
    node.build("busybox:1", "");
    let before = held(&node);
    let name = "(readlink /proc/self/ns/net && readlink /proc/self/ns/ipc)";
    let context = Context::new(&format!(
        "FROM busybox:1\nRUN {name} >/one\nRUN {name} >/two && cmp /one /two\nRUN echo waits && sleep 1000\n",
    ));
    let mut child = background(&node, &context, &[]);
    reads(&mut child, " waits");
    let during: Vec<String> = held(&node).into_iter().filter(|one| !before.contains(one)).collect();
    assert_eq!(during.iter().filter(|one| one.starts_with("process")).count(), 1, "one monitor: {during:#?}");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("the interrupt is sent");
    assert!(!child.wait().expect("slipway ends").success());
    settled(&node, &before);
    let mut child = background(&node, &context, &[]);
    reads(&mut child, " waits");
    child.kill().expect("the client is killed");
    let _ = child.wait();
    settled(&node, &before);
    let failing = Context::new("FROM busybox:1\nRUN sleep 1000 & exit 5\n");
    assert!(failed(&node, &failing, &[]).contains("exit code 5"));
    settled(&node, &before);
    let _ = built(&node, &Context::new("FROM busybox:1\nRUN (sleep 1000 &) ; true\n"), &[]);
    settled(&node, &before);
}

#[test]
fn a_copy_and_an_add_stop_when_the_client_goes() {
    // They went on to their end when the client was gone: on a file of a terabyte for an hour, and nothing told of it.
    let node = Node::start();
    let before = held(&node);
    for instruction in ["COPY huge /x", "ADD huge /x"] {
        let context = Context::new(&format!("FROM scratch\n{instruction}\n")).file("huge", "");
        let huge = std::fs::File::options().write(true).open(context.join("huge")).expect("a file");
        huge.set_len(1 << 40).expect("a file of holes");
        let mut child = background(&node, &context, &[]);
        reads(&mut child, instruction);
        child.kill().expect("the client is killed");
        let _ = child.wait();
        settled(&node, &before);
    }
}

#[test]
fn a_build_outlives_no_daemon() {
    let mut node = Node::start();
    node.build("busybox:1", "");
    let context = Context::new("FROM busybox:1\nRUN echo waits && sleep 1000\n");
    let mut child = background(&node, &context, &[]);
    reads(&mut child, " waits");
    node.kill();
    assert!(!child.wait().expect("slipway ends").success());
    node.launch();
    settled(&node, &[]);
    let _ = built(&node, &Context::new("FROM busybox:1\nRUN true\n"), &[]);
}

#[test]
fn builds_and_prunes_at_once_do_not_harm_each_other() {
    let node = Node::start();
    node.build("busybox:1", "");
    let base = tempfile::tempdir().expect("a context");
    slipway_tests::busybox::context(
        base.path(),
        "RUN echo ready >/ready\nCOPY root/etc/passwd /own\nRUN cat /ready /own >/both\n",
    );
    let path = base.path().display().to_string();
    let outputs: Vec<Output> = std::thread::scope(|scope| {
        let pruning = scope.spawn(|| (0..6).map(|_| node.slipway(&["prune", "-a"])).collect::<Vec<_>>());
        let builds: Vec<_> = (0..4)
            .map(|number| {
                let (node, path) = (&node, &path);
                scope.spawn(move || {
                    let (tag, argument) = (format!("many:{number}"), format!("NUMBER={number}"));
                    node.slipway(&["build", "--no-cache", "-t", &tag, "--build-arg", &argument, path])
                })
            })
            .collect();
        let mut outputs: Vec<Output> =
            builds.into_iter().map(|build| build.join().expect("a build")).collect();
        outputs.extend(pruning.join().expect("the prunes"));
        outputs
    });
    for output in &outputs {
        assert_eq!(output.status, 0, "{output:#?}\n{}", node.log());
    }
    let last = node.slipway(&["build", "-t", "many:last", &path]);
    assert_eq!(last.status, 0, "{last:#?}");
    assert_eq!(run(&node, "many:last", &["head", "-n1", "/both"]), "ready");
}

#[test]
fn a_context_that_is_not_the_one_that_was_meant_is_refused() {
    let node = Node::start();
    node.build("busybox:1", "");
    let context = Context::new("FROM busybox:1\nCOPY f /f\n").file("f", "f");
    let here = std::fs::metadata(context.path()).expect("the context");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let start = |path: String, device: u64, inode: u64| {
        let files = own::ContextPath { path, device, inode };
        let start = own::BuildStart {
            context: Some(own::build_start::Context::Path(files)),
            ..own::BuildStart::default()
        };
        let request = own::BuildRequest { message: Some(own::build_request::Message::Start(start)) };
        runtime.block_on(async {
            let mut client = SlipwayClient::new(slipway_tests::grpc::channel(&node).await);
            let mut events = client.build(tokio_stream::once(request)).await?.into_inner();
            while events.message().await?.is_some() {}
            Ok::<_, tonic::Status>(())
        })
    };
    start(context.path(), here.dev(), here.ino()).expect("the right one is built");
    for (path, device, inode, says) in [
        (context.path(), here.dev(), here.ino() + 1, "another directory"),
        (context.path(), here.dev() + 1, here.ino(), "another directory"),
        (format!("{}/f", context.path()), here.dev(), here.ino(), "f"),
        ("relative".to_owned(), 1, 1, "relative"),
        ("/absent/context".to_owned(), 1, 1, "/absent/context"),
    ] {
        let refused = start(path, device, inode).expect_err("it is refused");
        assert!(refused.message().contains(says), "{refused:?}");
        assert!(
            matches!(
                refused.code(),
                tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition | tonic::Code::NotFound
            ),
            "{refused:?}"
        );
    }
}

//! Equal builds at once are one image: a step that is under way is not made a second time.
//!
//! Each build that found nothing in the cache made every step by itself, and wrote the time into its image: 100 equal
//! builds at once were 96 images.

use slipway_tests::build::{Context, built, run};
use slipway_tests::{Node, Output};
use std::collections::BTreeSet;
use std::process::{Child, Stdio};

fn begin(node: &Node, context: &Context) -> Child {
    let mut command = node.command();
    command.args(["build", "-q", &context.path()]).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("slipway starts")
}

/// The ids of the images that so many builds at once are.
fn images(node: &Node, context: &Context, count: usize) -> BTreeSet<String> {
    let builds: Vec<Child> = (0..count).map(|_| begin(node, context)).collect();
    let ended = builds.into_iter().map(|build| {
        let output = build.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), node.log());
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    });
    ended.collect()
}

#[test]
fn a_hundred_equal_builds_at_once_are_one_image() {
    let node = Node::start();
    node.build("base:1", "");
    let context = Context::new(
        "FROM base:1 AS one\nCOPY cargo /cargo\nRUN date +%N >/made; echo once >>/made\nWORKDIR /hold\n\
         FROM base:1\nCOPY --from=one /made /made\nLABEL fleet=one\nCMD [\"cat\", \"/made\"]\n",
    )
    .file("cargo", "rope");
    let made = images(&node, &context, 100);
    assert_eq!(made.len(), 1, "{made:?}");
    let id = made.first().expect("an image");
    assert!(run(&node, id, &[]).ends_with("once"));
    // A later build gives that image, too; a build without the cache does not.
    assert_eq!(images(&node, &context, 1), made);
    let other = node.slipway(&["build", "-q", "--no-cache", &context.path()]);
    assert_ne!(other.ok(), id);
}

#[test]
fn equal_builds_that_make_no_layer_are_one_image() {
    let node = Node::start();
    let context = Context::new("FROM scratch\nLABEL fleet=one\nCMD [\"/x\"]\n");
    let made = images(&node, &context, 8);
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(images(&node, &context, 1), made);
    let (id, format) = (made.first().expect("an image"), "{{.info.imageSpec.created}}");
    let created = node.crictl(&["inspecti", "-o", "go-template", "--template", format, id]);
    assert!(created.ok().starts_with("20"), "{created:?}");
}

#[test]
fn a_step_that_fails_fails_each_build_that_waits_for_it() {
    let node = Node::start();
    node.build("base:1", "");
    let context = Context::new("FROM base:1\nRUN sleep 0.5; exit 5\n");
    let builds: Vec<Child> = (0..6).map(|_| begin(&node, &context)).collect();
    for build in builds {
        let output = build.wait_with_output().expect("it ends");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains("exit code 5"), "{error}");
    }
}

/// A client that reads nothing holds up the step of its build, and would hold up all equal builds with it.
#[test]
fn a_build_does_not_wait_for_one_whose_client_is_stopped() {
    let node = Node::start();
    node.build("base:1", "");
    let context = Context::new("FROM base:1\nRUN seq 1000000\nRUN echo after >/after\n");
    let mut first = node.command();
    first.args(["build", &context.path()]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // Nobody reads what it says, so that it stops.
    let mut first = first.spawn().expect("slipway starts");
    slipway_tests::wait("the first build's step", || build_runs(&node));
    let second = node.slipway(&["build", "-q", "-t", "second:1", &context.path()]);
    assert_eq!(second.status, 0, "{second:#?}");
    assert!(first.try_wait().expect("it is asked").is_none(), "the first build is stuck");
    assert_eq!(run(&node, "second:1", &["cat", "/after"]), "after");
    first.kill().expect("the first client is killed");
    let _ = first.wait();
}

/// Whether a pod of a build is there.
fn build_runs(node: &Node) -> bool {
    let pods = std::fs::read_dir(node.path("run/pods")).expect("the pods");
    pods.flatten().any(|pod| pod.file_name().to_string_lossy().starts_with("build-"))
}

#[test]
fn a_step_whose_build_is_given_up_is_made_by_one_that_waits() {
    let node = Node::start();
    node.build("base:1", "");
    let context = Context::new("FROM base:1\nRUN until [ -e /proc/1/root/cargo ]; do sleep 0.1; done\n");
    let mut first = begin(&node, &context);
    let processes = || {
        let listed = Output::of(std::process::Command::new("ps").args(["-eo", "args"]));
        listed.ok().lines().filter(|line| line.contains("/proc/1/root/cargo")).count()
    };
    slipway_tests::wait("the step", || processes() == 1);
    let mut second = begin(&node, &context);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(processes(), 1, "the second build waits for the first one's step");
    first.kill().expect("the first client is killed");
    let _ = first.wait();
    slipway_tests::wait("the second build's own step", || processes() == 1);
    second.kill().expect("the second client is killed");
    let _ = second.wait();
    slipway_tests::wait("the end of both", || processes() == 0);
    // Nothing of the two is in the way of a third.
    let _ = built(&node, &Context::new("FROM base:1\nRUN true\n"), &[]);
}

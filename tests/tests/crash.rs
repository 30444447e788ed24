//! `kill -9` of the daemon at any moment of any verb: the next daemon takes up what it finds, the same request again
//! works, and when all is removed nothing is left. A quick run takes some moments of each verb; with
//! `SLIPWAY_CRASHES=all` every system call with an effect is one.

use serde_json::json;
use slipway_tests::fault::{Moment, Strace, moments, some, stopped};
use slipway_tests::{Need, Node, Output, Registry, Residue, lacks, monitor, wait};

/// Moments of each verb in a quick run.
const QUICK: usize = 5;

/// A verb under fire.
struct Verb<'a, T> {
    /// Makes the objects that have to exist before.
    prepare: &'a dyn Fn(&Node) -> T,
    /// The verb.
    act: &'a dyn Fn(&Node, &T) -> Output,
    /// Asks again, sees that all works, and removes it; gets the first answer.
    finish: &'a dyn Fn(&Node, T, &Output),
}

impl<T> Verb<'_, T> {
    /// Kills the daemon at moments of the verb, each time from the same beginning.
    fn under_fire(&self, node: &mut Node) {
        let _ = node.crictl(&["version"]).ok();
        let base = Residue::of(node);
        let record = node.path("calls");
        let prepared = (self.prepare)(node);
        let strace = Strace::record(node.pid(), &record);
        let answer = (self.act)(node, &prepared);
        strace.finish();
        let _ = answer.ok();
        (self.finish)(node, prepared, &answer);
        base.returns(node, "undisturbed");
        let chosen = some(&moments(&record), QUICK);
        assert!(chosen.len() >= QUICK, "strace recorded too little: {chosen:?}");
        let mut killed = 0;
        for moment in &chosen {
            killed += u32::from(self.killed_at(node, moment));
            base.returns(node, &format!("{moment:?}"));
        }
        assert!(killed > 0, "the daemon was never killed");
        eprintln!("killed at {killed} of {} moments", chosen.len());
    }

    fn killed_at(&self, node: &mut Node, moment: &Moment) -> bool {
        let prepared = (self.prepare)(node);
        let strace = Strace::kill_at(node.pid(), moment);
        let answer = (self.act)(node, &prepared);
        drop(strace);
        let died = died(node);
        assert!(
            died || answer.status == 0,
            "{moment:?}: failed without a fault: {answer:#?}\n{}",
            node.log()
        );
        if died {
            node.launch();
        }
        (self.finish)(node, prepared, &answer);
        died
    }
}

/// Whether the daemon has died of the fault; it either has or answers.
fn died(node: &mut Node) -> bool {
    wait("the daemon's answer or death", || {
        let died = node.has_died();
        died || node.crictl(&["version"]).status == 0 || node.has_died()
    });
    node.has_died()
}

/// The one id that a command lists, or none.
fn listed(node: &Node, arguments: &[&str]) -> Option<String> {
    let output = node.crictl(arguments);
    let ids: Vec<_> = output.ok().lines().map(str::to_owned).collect();
    assert!(ids.len() <= 1, "{output:#?}");
    ids.into_iter().next()
}

/// The answer to a creation that is asked again: a new id, or the one that the first has made.
fn id_of(node: &Node, again: &Output, list: &[&str]) -> String {
    if again.status == 0 {
        return again.stdout.trim().to_owned();
    }
    let id = listed(node, list).unwrap_or_else(|| panic!("{again:#?}\n{}", node.log()));
    assert!(again.stderr.contains("AlreadyExists") && again.stderr.contains(&id), "{again:#?}");
    id
}

fn remove_pod(node: &Node, pod: &str) {
    let _ = node.crictl(&["stopp", pod]).ok();
    let _ = node.crictl(&["rmp", pod]).ok();
    assert_eq!(listed(node, &["pods", "-q"]), None);
}

fn run_pod_under_fire(more: serde_json::Value) {
    let mut node = Node::start();
    let file = node.pod_file("web", more);
    let run = |node: &Node| node.crictl(&["runp", &file]);
    let verb = Verb {
        prepare: &|_| (),
        act: &|node, ()| run(node),
        finish: &|node, (), first| {
            let pod = if first.status == 0 {
                first.stdout.trim().to_owned()
            } else {
                id_of(node, &run(node), &["pods", "-q"])
            };
            let status = node.crictl(&["inspectp", &pod]).json();
            assert_eq!(status["status"]["state"], "SANDBOX_READY", "{status:#}");
            remove_pod(node, &pod);
        },
    };
    verb.under_fire(&mut node);
}

#[test]
fn a_pod_on_the_hosts_network_is_made_under_fire() {
    run_pod_under_fire(json!({}));
}

#[test]
fn a_pod_on_the_bridge_is_made_under_fire() {
    if lacks("a_pod_on_the_bridge_is_made_under_fire", &[Need::Nat]) {
        return;
    }
    let port = slipway_tests::registry::free_port().port();
    run_pod_under_fire(json!({
        "hostname": "web",
        "port_mappings": [{"protocol": 0, "container_port": 8080, "host_port": port}],
        "linux": {"security_context": {"namespace_options": {"network": 0, "pid": 0}}},
    }));
}

const FOREVER: &str = "trap 'exit 7' TERM; echo begun; while :; do sleep 0.05; done";

fn create(node: &Node, pod: &str) -> Output {
    let container = node.container_file("main", "busybox:1", FOREVER, json!({}));
    node.crictl(&["create", pod, &container, &node.path("web.pod.json").display().to_string()])
}

/// A node with an image and a pod that outlives every crash.
fn with_pod() -> (Node, String) {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = node.pod("web", json!({}));
    let _ = node.container(&pod, "web", "warm", "exit 0");
    let _ = node.crictl(&["rm", "-f", "-a"]).ok();
    (node, pod)
}

fn started(node: &Node, pod: &str) -> String {
    let id = create(node, pod).ok().to_owned();
    let _ = node.crictl(&["start", &id]).ok();
    begun(node, &id);
    id
}

/// Waits for the container's first line, by when its trap is about to be set.
fn begun(node: &Node, id: &str) {
    wait("the container's first line", || {
        let status = node.status(id);
        assert_eq!(status["state"], "CONTAINER_RUNNING", "{status:#}\n{}", node.log());
        node.crictl(&["logs", id]).ok().contains("begun")
    });
}

fn runs(node: &Node, id: &str) {
    begun(node, id);
    assert_eq!(node.crictl(&["exec", "-s", id, "echo", "afloat"]).ok(), "afloat");
}

fn remove(node: &Node, id: &str) {
    // The daemon may be about to finish a removal by itself.
    let removed = node.crictl(&["rm", "-f", id]);
    assert!(removed.status == 0 || removed.stderr.contains("NotFound"), "{removed:#?}\n{}", node.log());
    assert_eq!(listed(node, &["ps", "-a", "-q"]), None);
    let _ = std::fs::remove_dir_all(node.path("logs"));
}

#[test]
fn a_container_is_created_under_fire() {
    let (mut node, pod) = with_pod();
    let verb = Verb {
        prepare: &|_| (),
        act: &|node, ()| create(node, &pod),
        finish: &|node, (), first| {
            let id = if first.status == 0 {
                first.stdout.trim().to_owned()
            } else {
                id_of(node, &create(node, &pod), &["ps", "-a", "-q"])
            };
            let _ = node.crictl(&["start", &id]).ok();
            runs(node, &id);
            remove(node, &id);
        },
    };
    verb.under_fire(&mut node);
}

#[test]
fn a_container_is_started_under_fire() {
    let (mut node, pod) = with_pod();
    let verb = Verb {
        prepare: &|node| create(node, &pod).ok().to_owned(),
        act: &|node, id| node.crictl(&["start", id]),
        finish: &|node, id, _| {
            // As kubelet would: what runs is left alone, what does not is started.
            if node.status(&id)["state"] == "CONTAINER_CREATED" {
                let _ = node.crictl(&["start", &id]).ok();
            }
            runs(node, &id);
            remove(node, &id);
        },
    };
    verb.under_fire(&mut node);
}

#[test]
fn a_container_is_stopped_under_fire() {
    let (mut node, pod) = with_pod();
    let verb = Verb {
        prepare: &|node| started(node, &pod),
        act: &|node, id| node.crictl(&["stop", "-t", "30", id]),
        finish: &|node, id, _| {
            let _ = node.crictl(&["stop", "-t", "30", &id]).ok();
            let status = node.exited(&id);
            assert_eq!(status["exitCode"], 7, "{status:#}\n{}", node.log());
            remove(node, &id);
        },
    };
    verb.under_fire(&mut node);
}

#[test]
fn a_container_is_removed_under_fire() {
    let (mut node, pod) = with_pod();
    let verb = Verb {
        prepare: &|node| started(node, &pod),
        act: &|node, id| node.crictl(&["rm", "-f", id]),
        finish: &|node, id, _| remove(node, &id),
    };
    verb.under_fire(&mut node);
}

fn pod_with_container(node: &Node) -> String {
    let port = slipway_tests::registry::free_port().port();
    let pod = node.pod(
        "web",
        json!({
            "hostname": "web",
            "port_mappings": [{"protocol": 0, "container_port": 8080, "host_port": port}],
            "linux": {"security_context": {"namespace_options": {"network": 0, "pid": 0}}},
        }),
    );
    let _ = started(node, &pod);
    pod
}

#[test]
fn a_pod_is_stopped_under_fire() {
    if lacks("a_pod_is_stopped_under_fire", &[Need::Nat]) {
        return;
    }
    let (mut node, first) = with_pod();
    remove_pod(&node, &first);
    let verb = Verb {
        prepare: &pod_with_container,
        act: &|node, pod| node.crictl(&["stopp", pod]),
        finish: &|node, pod, _| {
            let _ = node.crictl(&["stopp", &pod]).ok();
            let status = node.crictl(&["inspectp", &pod]).json();
            assert_eq!(status["status"]["state"], "SANDBOX_NOTREADY", "{status:#}");
            let container = listed(node, &["ps", "-a", "-q"]).expect("the container");
            assert_eq!(node.status(&container)["state"], "CONTAINER_EXITED");
            remove_pod(node, &pod);
            let _ = std::fs::remove_dir_all(node.path("logs"));
        },
    };
    verb.under_fire(&mut node);
}

#[test]
fn a_pod_is_removed_under_fire() {
    if lacks("a_pod_is_removed_under_fire", &[Need::Nat]) {
        return;
    }
    let (mut node, first) = with_pod();
    remove_pod(&node, &first);
    let verb = Verb {
        prepare: &pod_with_container,
        act: &|node, pod| node.crictl(&["rmp", "-f", pod]),
        finish: &|node, pod, _| {
            let _ = node.crictl(&["rmp", "-f", &pod]);
            assert_eq!(listed(node, &["pods", "-q"]), None);
            assert_eq!(listed(node, &["ps", "-a", "-q"]), None);
            let _ = std::fs::remove_dir_all(node.path("logs"));
        },
    };
    verb.under_fire(&mut node);
}

#[test]
fn an_image_is_pulled_under_fire() {
    let mut node = Node::start();
    let registry = Registry::start();
    let name = registry.name("fleet/busybox:1");
    node.build(&name, "");
    let _ = node.slipway(&["push", &name]).ok();
    let forget = |node: &Node| {
        let _ = node.crictl(&["rmi", &name]);
        let _ = node.slipway(&["prune", "-a"]).ok();
    };
    forget(&node);
    let verb = Verb {
        prepare: &|_| (),
        act: &|node, ()| node.crictl(&["pull", &name]),
        finish: &|node, (), _| {
            let _ = node.crictl(&["pull", &name]).ok();
            let ran = node.slipway(&["run", "--rm", "--network", "host", &name, "echo", "afloat"]);
            assert_eq!(ran.ok(), "afloat");
            forget(node);
        },
    };
    verb.under_fire(&mut node);
}

#[test]
fn an_image_is_built_under_fire() {
    let mut node = Node::start();
    let context = tempfile::tempdir_in(node.path("")).expect("a build context");
    slipway_tests::busybox::context(context.path(), "RUN echo afloat >/made\n");
    let build =
        |node: &Node| node.slipway(&["build", "-t", "busybox:1", &context.path().display().to_string()]);
    let verb = Verb {
        prepare: &|_| (),
        act: &|node, ()| build(node),
        finish: &|node, (), _| {
            let _ = build(node).ok();
            let ran = node.slipway(&["run", "--rm", "--network", "host", "busybox:1", "cat", "/made"]);
            assert_eq!(ran.ok(), "afloat");
            let _ = node.crictl(&["rmi", "busybox:1"]).ok();
            let _ = node.slipway(&["prune", "-a"]).ok();
        },
    };
    verb.under_fire(&mut node);
}

#[test]
fn a_container_of_ones_own_is_run_under_fire() {
    let mut node = Node::start();
    node.build("busybox:1", "");
    let run = |node: &Node| {
        node.slipway(&["run", "-d", "--name", "boat", "busybox:1", "sh", "-c", "while :; do sleep 0.1; done"])
    };
    let verb = Verb {
        prepare: &|_| (),
        act: &|node, ()| run(node),
        finish: &|node, (), _| {
            let _ = node.slipway(&["rm", "-f", "boat"]);
            let id = run(node).ok().to_owned();
            assert_eq!(node.slipway(&["exec", &id, "echo", "afloat"]).ok(), "afloat");
            let _ = node.slipway(&["rm", "-f", "boat"]).ok();
            assert_eq!(node.slipway(&["ps", "-a", "-q"]).ok(), "");
        },
    };
    verb.under_fire(&mut node);
}

/// The daemon is dead while the child is at each of its sync points: its namespaces joined, in the midst of its mounts,
/// its root entered, before its exec. Each is held still by a SIGSTOP at the end of a call.
#[test]
fn a_container_is_started_again_whose_daemon_died_at_a_sync_point() {
    let (mut node, pod) = with_pod();
    let base = Residue::of(&node);
    for call in ["setns", "move_mount", "pivot_root", "capset"] {
        let id = create(&node, &pod).ok().to_owned();
        let record = node.path("calls");
        let options = [&format!("--inject={call}:signal=SIGSTOP"), "-o", &record.display().to_string()];
        let strace = Strace::attach_to_all(monitor(&node, &pod), &options);
        let mut start = node.crictl_command(&["start", &id]);
        let mut start = start.stderr(std::process::Stdio::null()).spawn().expect("crictl starts");
        wait("the child's stop", || stopped(&record).is_some());
        let child = stopped(&record).expect("a stopped child");
        node.kill();
        assert!(!start.wait().expect("crictl ends").success());
        drop(strace);
        let process = format!("/proc/{child}");
        wait("the child's end with the daemon that wanted it", || !std::path::Path::new(&process).exists());
        node.launch();
        assert_eq!(node.status(&id)["state"], "CONTAINER_CREATED", "{call}");
        let _ = node.crictl(&["start", &id]).ok();
        runs(&node, &id);
        remove(&node, &id);
        base.returns(&node, call);
    }
}

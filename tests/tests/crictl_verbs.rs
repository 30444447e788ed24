//! `slipway` under the name crictl beside the real crictl, on the same daemon: the same output and exit status, verb by
//! verb and flag by flag.

use std::process::Command;

use serde_json::json;
use slipway_tests::{Node, Output, Registry};

/// `slipway`, called by a link of the name crictl.
fn ours(node: &Node, arguments: &[&str]) -> Output {
    let link = node.path("crictl");
    if !link.exists() {
        let program = slipway_tests::folder("SLIPWAY_PROGRAMS").join("slipway");
        std::os::unix::fs::symlink(program, &link).expect("a link to slipway");
    }
    let endpoint = format!("unix://{}", node.socket().display());
    Output::of(
        Command::new(link)
            .args(["--config", "/dev/null", "--timeout", "60s", "--runtime-endpoint", &endpoint])
            .args(["--image-endpoint", &endpoint])
            .args(arguments),
    )
}

/// Asserts that both print the same and end the same. Ages grow between two calls, so a difference has to stay.
#[track_caller]
fn same(node: &Node, arguments: &[&str]) {
    for attempt in 0..5 {
        let (theirs, ours) = (node.crictl(arguments), ours(node, arguments));
        if (theirs.status, one_space(&theirs.stdout)) == (ours.status, one_space(&ours.stdout)) {
            return;
        }
        assert!(attempt < 4, "crictl:\n{theirs:#?}\nslipway:\n{ours:#?}");
    }
}

/// With one space after each colon: Go's protojson writes two in some builds of a program, so that nobody relies on it.
fn one_space(json: &str) -> String {
    json.replace("\":  ", "\": ")
}

/// Asserts that both refuse with the same status, and ours in one line that names the thing.
#[track_caller]
fn both_refuse(node: &Node, arguments: &[&str], name: &str) {
    let (theirs, ours) = (node.crictl(arguments), ours(node, arguments));
    assert_eq!(theirs.status, ours.status, "crictl:\n{theirs:#?}\nslipway:\n{ours:#?}");
    assert_eq!(ours.stdout, "", "{ours:#?}");
    assert!(ours.error().contains(name) && ours.error().lines().count() == 1, "{ours:#?}");
}

struct Fleet {
    node: Node,
    pod: String,
    running: String,
    ended: String,
}

/// Two pods, in one of them a container that runs and one that has ended.
fn fleet() -> Fleet {
    let node = Node::start();
    node.build("busybox:1", "");
    let _ = node.slipway(&["tag", "busybox:1", "harbour.example/tool:2"]).ok();
    let labels =
        json!({"labels": {"app": "web", "tier": "front"}, "annotations": {"note": "x: y", "mark": "<&>"}});
    let pod = node.pod("web", labels);
    let _ = node.pod("db", json!({"metadata": {"attempt": 2}, "labels": {"app": "db"}}));
    let names = json!({"labels": {"io.kubernetes.pod.namespace": "test", "io.kubernetes.pod.name": "web", "tier": "one"}});
    let create = |name: &str, script: &str, more: serde_json::Value| {
        let container = node.container_file(name, "busybox:1", script, more);
        let pod_file = node.path("web.pod.json").display().to_string();
        let id = node.crictl(&["create", &pod, &container, &pod_file]).ok().to_owned();
        node.start_script(&id, script);
        id
    };
    let running = create("main", "echo out; echo err >&2; exec sleep 1000", names.clone());
    let ended = create("second", "echo bye; exit 3", json!({"metadata": {"attempt": 1}}));
    let _ = node.exited(&ended);
    Fleet { node, pod, running, ended }
}

#[test]
fn images_look_the_same() {
    let Fleet { node, .. } = fleet();
    let registry = Registry::start();
    let name = registry.name("fleet/other:1");
    node.build(&name, "LABEL other=yes\n");
    let _ = node.slipway(&["push", &name]).ok();
    for flags in [
        &["images"][..],
        &["images", "-q"],
        &["images", "--digests"],
        &["images", "--no-trunc"],
        &["images", "--pinned"],
        &["images", "-v"],
        &["images", "-o", "json"],
        &["images", "-o", "yaml"],
        &["images", "busybox"],
        &["images", "busybox:1"],
        &["images", "absent"],
        &["images", "-f", "dangling=true"],
        &["images", "--filter", "dangling=false"],
        &["images", "-f", "reference=.*fleet/other"],
        &["img", "-q"],
        &["inspecti", "busybox:1"],
        &["inspecti", "-q", &name],
        &["inspecti", "busybox:1", &name],
        &["inspecti", "-o", "yaml", "busybox:1"],
        &["inspecti", "-o", "table", "busybox:1"],
        &["inspecti", "-q", "-o", "table", &name],
    ] {
        same(&node, flags);
    }
    both_refuse(&node, &["inspecti", "absent:1"], "absent:1");
    both_refuse(&node, &["rmi", "absent:1"], "absent:1");
    both_refuse(&node, &["images", "-f", "size=1"], "size=1");
    both_refuse(&node, &["pull", "a:b:c"], "a:b:c");
    same(&node, &["pull", &name]);
    same(&node, &["pull", "--pull-timeout", "1m", &name]);
}

#[test]
fn pods_look_the_same() {
    let Fleet { node, pod, .. } = fleet();
    for flags in [
        &["pods"][..],
        &["pods", "-q"],
        &["pods", "--no-trunc"],
        &["pods", "-v"],
        &["pods", "-o", "json"],
        &["pods", "-o", "yaml"],
        &["pods", "-o", "table"],
        &["pods", "--name", "^w"],
        &["pods", "--namespace", "test"],
        &["pods", "--namespace", "other"],
        &["pods", "-s", "ready"],
        &["pods", "--state", "NotReady"],
        &["pods", "--label", "app=web", "--label", "tier=front"],
        &["pods", "-l", "-q"],
        &["pods", "-n", "1"],
        &["pods", "--last", "0"],
        &["pods", "--id", &pod[..12]],
        &["inspectp", &pod],
        &["inspectp", "-q", &pod],
        &["inspectp", "-o", "yaml", &pod],
        &["inspectp", "-o", "table", &pod],
        &["inspectp", "--name", "web"],
        &["inspectp"],
    ] {
        same(&node, flags);
    }
    both_refuse(&node, &["inspectp", "absent"], "absent");
    both_refuse(&node, &["pods", "-s", "sunk"], "sunk");
    both_refuse(&node, &["rmp", &pod], &pod);
    both_refuse(&node, &["runp", "/absent.json"], "/absent.json");
}

#[test]
fn containers_look_the_same() {
    let Fleet { node, pod, running, ended } = fleet();
    for flags in [
        &["ps"][..],
        &["ps", "-a"],
        &["ps", "-q"],
        &["ps", "-a", "-q"],
        &["ps", "-aq"],
        &["ps", "-a", "--no-trunc"],
        &["ps", "-a", "-v"],
        &["ps", "-a", "-o", "json"],
        &["ps", "-a", "-o", "yaml"],
        &["ps", "-r"],
        &["ps", "-a", "--name", "sec"],
        &["ps", "-a", "-s", "exited"],
        &["ps", "-p", &pod],
        &["ps", "--image", "busybox:1"],
        &["ps", "--image", "harbour.example/tool:2"],
        &["ps", "--image", "absent"],
        &["ps", "--label", "tier=one"],
        &["ps", "--namespace", "test"],
        &["ps", "-l"],
        &["ps", "-n", "1"],
        &["ps", "--id", &running[..11]],
        &["inspect", &running],
        &["inspect", "-q", &ended],
        &["inspect", &running, &ended],
        &["inspect", "-o", "yaml", &ended],
        &["inspect", "-o", "table", &running],
        &["inspect", "-o", "table", &ended],
        &["inspect", "--name", "main"],
        &["inspect", "-a"],
    ] {
        same(&node, flags);
    }
    both_refuse(&node, &["ps", "-s", "sunk"], "sunk");
    both_refuse(&node, &["ps", "-o", "xml"], "xml");
    both_refuse(&node, &["inspect", "absent"], "absent");
    both_refuse(&node, &["inspect", "-o", "xml", &running], "xml");
    both_refuse(&node, &["start", "absent"], "absent");
    both_refuse(&node, &["start", &running], &running);
    both_refuse(&node, &["rm", &running], &running);
    both_refuse(&node, &["create", &pod, "/absent.json", "/absent.json"], "/absent.json");
}

#[test]
fn logs_and_commands_look_the_same() {
    let Fleet { node, running, ended, .. } = fleet();
    for flags in [
        &["logs", &running][..],
        &["logs", "--tail", "1", &running],
        &["logs", "--tail", "0", &running],
        &["logs", "--tail", "-1", &running],
        &["logs", "-t", &running],
        &["logs", "--since", "1h", &running],
        &["logs", "--since", "0s", &running],
        &["logs", "--stream", "stdout", &running],
        &["logs", "--stream", "stderr", &running],
        &["logs", "--limit-bytes", "6", &running],
        &["logs", "-f", &ended],
        &["exec", "-s", &running, "echo", "hi"],
        &["exec", "--sync", &running, "sh", "-c", "echo out; echo err >&2"],
        &["exec", "-s", &running, "sh", "-c", "exit 7"],
        &["exec", "-s", "--name", "main", "echo", "hi"],
        &["exec", "-s", "-q", "--label", "tier=one", "echo", "hi"],
    ] {
        same(&node, flags);
    }
    let logs = (node.crictl(&["logs", &running]), ours(&node, &["logs", &running]));
    assert_eq!(logs.0.stderr, logs.1.stderr, "{logs:#?}");
    both_refuse(&node, &["logs", "absent"], "absent");
    both_refuse(&node, &["logs", "--since", "soon", &running], "soon");
    both_refuse(&node, &["exec", "-s", "absent", "true"], "absent");
    both_refuse(&node, &["exec", "-s", &ended, "true"], &ended);
    both_refuse(&node, &["exec", "-s", "--timeout", "1", &running, "sleep", "20"], &running);
    let failed = ours(&node, &["exec", "-s", &running, "sh", "-c", "echo why >&2; exit 7"]);
    assert!(failed.error().contains("ended with 7: why"), "{failed:#?}");
}

#[test]
fn the_runtime_looks_the_same() {
    let node = Node::start();
    for flags in [
        &["version"][..],
        &["info"],
        &["info", "-q"],
        &["info", "-o", "yaml"],
        &["images"],
        &["pods"],
        &["ps", "-a"],
        &["ps", "-o", "json"],
        &["pods", "-o", "yaml"],
    ] {
        same(&node, flags);
    }
    let words = ours(&node, &["bogus"]);
    assert_eq!((words.status, node.crictl(&["bogus"]).status), (3, 3), "{words:#?}");
    for verb in ["rm", "rmp", "rmi", "stopp", "runp", "create", "run", "exec"] {
        let (theirs, ours) = (node.crictl(&[verb]), ours(&node, &[verb]));
        assert_eq!((theirs.status, ours.status), (0, 0), "{ours:#?}");
        assert!(ours.stdout.contains("Usage: "), "{ours:#?}");
    }
    for (arguments, name) in [
        (&["ps", "--bogus"][..], "--bogus"),
        (&["start"], "CONTAINERS"),
        (&["logs"], "CONTAINER"),
        (&["pull"], "IMAGE"),
        (&["info", "-o", "go-template"], "go-template"),
    ] {
        let refused = ours(&node, arguments);
        assert!(refused.status == 1 && refused.error().contains(name), "{refused:#?}");
        assert_eq!((refused.stderr.lines().count(), refused.stdout.as_str()), (1, ""), "{refused:#?}");
    }
}

/// The states of a pod and its container, without the fields that differ from one to the next.
fn seen(node: &Node, pod: &str, container: &str) -> serde_json::Value {
    let mut status = node.status(container);
    for name in ["id", "createdAt", "startedAt", "finishedAt"] {
        status[name] = json!(null);
    }
    let pod = node.crictl(&["inspectp", pod]).json()["status"].clone();
    json!([status, pod["state"], pod["metadata"], pod["labels"], pod["linux"]])
}

#[test]
fn a_pod_goes_through_its_life_the_same() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod_file = node.pod_file("web", json!({"labels": {"app": "web"}}));
    let container = node.container_file("main", "busybox:1", "echo hi; exec sleep 1000", json!({}));
    let life = |run: &dyn Fn(&[&str]) -> Output| {
        let mut said = Vec::new();
        let pod = run(&["runp", &pod_file]).ok().to_owned();
        let id = run(&["create", &pod, &container, &pod_file]).ok().to_owned();
        let mut step = |arguments: &[&str]| {
            let output = run(arguments);
            said.push((output.status, output.stdout.replace(&pod, "POD").replace(&id, "CONTAINER")));
        };
        step(&["start", &id]);
        step(&["stop", "-t", "1", &id]);
        let known = seen(&node, &pod, &id);
        let log = known[0]["logPath"].as_str().expect("a log path").to_owned();
        let rotated = format!("{log}.20260101-000000");
        std::fs::write(&rotated, "").expect("a rotated log");
        step(&["stop", &id]);
        step(&["rm", &id]);
        step(&["rm", "-f", &id]);
        let left = [log, rotated].map(|path| std::path::Path::new(&path).exists());
        step(&["stopp", &pod]);
        step(&["stopp", &pod]);
        step(&["rmp", &pod]);
        step(&["pods", "-q"]);
        (said, known, left)
    };
    let theirs = life(&|arguments| node.crictl(arguments));
    let ours = life(&|arguments| ours(&node, arguments));
    assert_eq!(theirs, ours);
    assert_eq!(ours.2, [false, false], "crictl's rm removes the log and its rotations");
}

#[test]
fn run_of_two_files_does_the_same_from_json_and_yaml() {
    let node = Node::start();
    let registry = Registry::start();
    let name = registry.name("fleet/busybox:1");
    node.build(&name, "");
    let _ = node.slipway(&["push", &name]).ok();
    let pod = "metadata:\n  name: web # the pod\n  namespace: test\n  uid: web-1\nlog_directory: LOGS\nlabels: &labels\n  app: web\n  number: \"1\"\nannotations: *labels\nlinux:\n  security_context:\n    namespace_options: {network: 2, pid: 1}\n"
        .replace("LOGS", &node.path("logs").display().to_string());
    let container = format!(
        "metadata:\n  name: main\nimage:\n  image: {name}\ncommand:\n- sh\n- -c\n- |\n  echo one\n  echo $COLOUR\nenvs:\n- key: COLOUR\n  value: blue\nlog_path: main.log\nlinux: {{}}\n"
    );
    let (pod_file, container_file) = (node.path("pod.yaml"), node.path("container.yaml"));
    std::fs::write(&pod_file, pod).expect("a pod's file");
    std::fs::write(&container_file, container).expect("a container's file");
    let (pod_file, container_file) = (pod_file.display().to_string(), container_file.display().to_string());
    let mut results = Vec::new();
    for run in [true, false] {
        let arguments = ["run", &container_file, &pod_file];
        let output = if run { ours(&node, &arguments) } else { node.crictl(&arguments) };
        let id = output.ok().to_owned();
        assert_eq!(node.exited(&id)["exitCode"], 0);
        assert_eq!(node.crictl(&["logs", &id]).ok(), "one\nblue");
        let pod = node.crictl(&["pods", "-q"]).ok().to_owned();
        results.push(seen(&node, &pod, &id));
        let _ = node.crictl(&["rmp", "-f", &pod]).ok();
        std::fs::remove_dir_all(node.path("logs")).expect("the logs are removed");
    }
    assert_eq!(results[0], results[1]);
}

#[test]
fn files_that_do_not_parse_are_refused_with_their_line() {
    let node = Node::start();
    let mut bomb = String::from(
        "metadata: {name: a, namespace: b}\nlabels:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n",
    );
    for level in 1..30 {
        bomb.push_str(&format!("  a{level}: &a{level} [{}]\n", format!("*a{}, ", level - 1).repeat(10)));
    }
    for (text, says) in [
        ("{\"metadata\": {\"name\": \"a\",\n\"namespace\" \"b\"}}", "line 2"),
        ("metadata:\n  name: a\n namespace: b\n", "line 3"),
        (bomb.as_str(), "16 MiB"),
        (&"[".repeat(200_000), "line 1: recursion limit"),
        ("", "empty"),
        ("just words\n", "an object"),
        ("metadata:\n  name: a\n", "namespace"),
        ("metadata: {name: a, namespace: b, attempt: many}\n", "metadata.attempt"),
    ] {
        let file = node.path("pod.yaml");
        std::fs::write(&file, text).expect("a pod's file");
        let refused = ours(&node, &["runp", &file.display().to_string()]);
        assert!(refused.error().contains(says) && refused.error().contains("pod.yaml"), "{refused:#?}");
        assert_eq!((refused.status, refused.stderr.lines().count()), (1, 1), "{refused:#?}");
    }
    assert_eq!(node.crictl(&["pods", "-q"]).ok(), "");
}

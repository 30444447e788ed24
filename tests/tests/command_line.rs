//! `slipway` as people use it: run, exec, ps, logs, stop, rm, build, tag, prune.

use serde_json::json;
use slipway_tests::{Node, Output};
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn run_follows_both_streams_and_returns_the_status() {
    let node = Node::start();
    node.build("busybox:1", "");
    let script = "for i in $(seq 200); do echo out $i; echo err $i >&2; done; exit 5";
    let output = node.slipway(&["run", "--rm", "--network", "host", "busybox:1", "sh", "-c", script]);
    assert_eq!(output.status, 5, "{output:#?}");
    let (out, err): (Vec<_>, Vec<_>) = (output.stdout.lines().collect(), output.stderr.lines().collect());
    assert_eq!((out.len(), out[0], out[199]), (200, "out 1", "out 200"));
    assert_eq!((err.len(), err[0], err[199]), (200, "err 1", "err 200"));
    assert_eq!(node.slipway(&["ps", "-a", "-q"]).ok(), "");
}

#[test]
fn an_interrupt_stops_an_attached_run() {
    let node = Node::start();
    node.build("busybox:1", "");
    let mut run = node
        .command()
        .args(["run", "--rm", "--name", "loop", "--network", "host", "busybox:1", "sh", "-c"])
        .arg("trap 'exit 3' INT TERM; echo ready; while :; do sleep 0.1; done")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("slipway starts");
    let mut line = String::new();
    let stdout = run.stdout.take().expect("its output");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("a line");
    assert_eq!(line, "ready\n");
    let pid = rustix::process::Pid::from_child(&run);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("the interrupt is sent");
    let deadline = Instant::now() + Duration::from_secs(30);
    while run.try_wait().expect("its state").is_none() {
        if Instant::now() > deadline {
            let _ = run.kill();
            panic!("the run does not end:\n{}", node.log());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(node.slipway(&["ps", "-a", "-q"]).ok(), "");
}

#[test]
fn a_run_that_fails_by_itself_has_a_status_apart_from_the_programs() {
    let node = Node::start();
    let made = "RUN echo text >/plain && printf '#!/absent\\n' >/script && chmod 755 /script\n";
    node.build("busybox:1", made);
    let sleep = ["run", "-d", "--name", "boat", "--network", "host", "busybox:1", "sleep", "1000"];
    let _ = node.slipway(&sleep).ok();
    for (words, status, says) in [
        (&["busybox:1", "sh", "-c", "exit 1"][..], 1, ""),
        (&["busybox:1", "sh", "-c", "exit 125"], 125, ""),
        (&["busybox:1", "/absent"], 127, "/absent"),
        (&["busybox:1", "absent"], 127, "absent"),
        (&["busybox:1", "/script"], 127, "/script"),
        (&["busybox:1", "/plain"], 126, "/plain"),
        (&["busybox:1", "/etc"], 126, "/etc"),
        (&["--no-pull", "absent:1"], 125, "absent:1"),
        (&["--name", "boat", "busybox:1", "true"], 125, "boat"),
        (&["--name", "a b", "busybox:1", "true"], 125, "a b"),
        (&["-v", "/etc/passwd/absent:/b", "busybox:1", "true"], 125, "/etc/passwd/absent"),
        (&["--user", "stranger", "busybox:1", "true"], 125, "stranger"),
        (&["--network", "mars", "busybox:1"], 1, "mars"),
    ] {
        let ran = node.slipway(&[&["run", "--rm"], words].concat());
        assert_eq!((ran.status, ran.stdout.as_str()), (status, ""), "{ran:#?}");
        assert!(ran.stderr.lines().count() == usize::from(!says.is_empty()), "{ran:#?}");
        assert!(ran.stderr.contains(says), "{ran:#?}");
    }
    assert_eq!(node.slipway(&["run", "-d", "--network", "host", "busybox:1", "/absent"]).status, 127);
    assert_eq!(node.slipway(&["run", "-d", "--network", "host", "busybox:1", "/plain"]).status, 126);
    assert_eq!(node.slipway(&["exec", "boat", "/absent"]).status, 1, "other verbs have one status");
    assert_eq!(node.slipway(&["ps", "-a", "-q"]).ok().lines().count(), 1);
}

#[test]
fn a_run_that_loses_the_daemon_or_finds_none_says_so_by_its_status() {
    let mut node = Node::start();
    node.build("busybox:1", "");
    let script = "echo ready; exec sleep 1000";
    let mut run = node.command();
    run.args(["run", "--network", "host", "busybox:1", "sh", "-c", script]);
    let mut run =
        run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("slipway");
    let mut line = String::new();
    let stdout = run.stdout.as_mut().expect("its output");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("a line");
    assert_eq!(line, "ready\n");
    node.kill();
    let lost = run.wait_with_output().expect("slipway ends");
    assert_eq!(lost.status.code(), Some(125), "{lost:?}");
    let none = node.slipway(&["run", "busybox:1", "true"]);
    assert!(none.status == 125 && none.stderr.contains("connect"), "{none:#?}");
    assert_eq!(node.slipway(&["ps"]).status, 1, "other verbs have one status");
}

#[test]
fn a_detached_run_is_listed_executed_in_stopped_and_removed() {
    let node = Node::start();
    node.build("busybox:1", "");
    let files = node.path("shared");
    std::fs::create_dir(&files).expect("a directory to share");
    std::fs::write(files.join("note"), "from the host").expect("a file to share");
    let volume = format!("{}:/shared:ro", files.display());
    let arguments = ["run", "-d", "--name", "loop", "--network", "host", "-e", "COLOUR=blue", "-v", &volume];
    let script = ["busybox:1", "sh", "-c", "echo $COLOUR; exec sleep 1000"];
    let _ = node.slipway(&[&arguments[..], &script[..]].concat()).ok();
    assert!(node.slipway(&["ps"]).ok().contains("loop"));
    assert_eq!(node.crictl(&["ps", "-a", "-q"]).ok(), "", "CRI lists what came by CRI alone");
    assert_eq!(node.slipway(&["exec", "loop", "cat", "/shared/note"]).ok(), "from the host");
    assert_ne!(node.slipway(&["exec", "loop", "touch", "/shared/new"]).status, 0, "the volume is read-only");
    assert_eq!(node.slipway(&["exec", "loop", "sh", "-c", "exit 9"]).status, 9);
    assert_eq!(node.slipway(&["logs", "loop"]).ok(), "blue");
    assert!(
        node.slipway(&["run", "-d", "--name", "loop", "busybox:1"]).error().contains("loop"),
        "the name is in use"
    );
    let _ = node.slipway(&["stop", "-t", "1", "loop"]).ok();
    let _ = node.slipway(&["rm", "loop"]).ok();
    assert_eq!(node.slipway(&["ps", "-a", "-q"]).ok(), "");
}

#[test]
fn a_second_build_is_cached_and_a_changed_file_is_not() {
    let node = Node::start();
    let context = tempfile::tempdir().expect("a context");
    slipway_tests::busybox::context(context.path(), "COPY note /note\nRUN cat /note >/copy\n");
    std::fs::write(context.path().join("note"), "one").expect("a file of the context");
    let path = context.path().display().to_string();
    let build = || -> Output { node.slipway(&["build", "-t", "note:1", &path]) };
    let first = build();
    assert_eq!(first.status, 0, "{first:#?}");
    let second = build();
    let text = format!("{}{}", second.stdout, second.stderr);
    assert_eq!(second.status, 0, "{second:#?}");
    assert_eq!(text.matches("CACHED").count(), 4, "{text}");
    std::fs::write(context.path().join("note"), "two").expect("the file changes");
    let third = build();
    let text = format!("{}{}", third.stdout, third.stderr);
    assert_eq!(text.matches("CACHED").count(), 2, "{text}");
    let output = node.slipway(&["run", "--rm", "--network", "host", "note:1", "cat", "/copy"]);
    assert_eq!(output.ok(), "two");
}

#[test]
fn a_failing_build_names_the_line_and_the_status() {
    let node = Node::start();
    let context = tempfile::tempdir().expect("a context");
    slipway_tests::busybox::context(context.path(), "RUN exit 3\n");
    let failed = node.slipway(&["build", "-t", "bad:1", &context.path().display().to_string()]);
    let text = failed.error();
    assert!(text.contains("exit 3") && text.contains('3'), "{failed:#?}");
    assert!(node.slipway(&["images"]).ok().lines().all(|line| !line.contains("bad")));
}

#[test]
fn a_tag_names_an_image_until_it_is_removed() {
    let node = Node::start();
    node.build("busybox:1", "");
    let _ = node.slipway(&["tag", "busybox:1", "harbour.example/tool:2"]).ok();
    let images = node.crictl(&["images", "-o", "json"]).json();
    let tags = images["images"][0]["repoTags"].as_array().expect("tags").clone();
    assert!(tags.contains(&json!("harbour.example/tool:2")), "{images:#}");
    let _ = node.slipway(&["rmi", "harbour.example/tool:2"]).ok();
}

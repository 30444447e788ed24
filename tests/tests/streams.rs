//! The streams of `slipway`: attached runs under load, exec with input, logs that are followed over rotations, and the
//! credentials that it finds by itself.

use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use slipway_tests::registry::{PASSWORD, USER};
use slipway_tests::{Node, Output, Registry};

#[test]
fn an_attached_run_loses_nothing_of_a_megabyte_on_each_stream() {
    let node = Node::start();
    node.build("busybox:1", "");
    let script = "for i in $(seq 20000); do echo out-line-number-$i-with-some-more-text-in-it-to-fill; done & for i in $(seq 20000); do echo err-line-number-$i-with-some-more-text-in-it-to-fill >&2; done; wait; exit 7";
    let output = node.slipway(&["run", "--rm", "--network", "host", "busybox:1", "sh", "-c", script]);
    assert_eq!(output.status, 7, "{}", node.log());
    for (stream, text) in [("out", &output.stdout), ("err", &output.stderr)] {
        let expected: String = (1..=20000)
            .map(|i| format!("{stream}-line-number-{i}-with-some-more-text-in-it-to-fill\n"))
            .collect();
        assert!(
            text.len() > 1_000_000 && *text == expected,
            "{stream}: {} of {} bytes",
            text.len(),
            expected.len()
        );
    }
}

fn spawn(node: &Node, arguments: &[&str]) -> Child {
    let mut command = node.command();
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("slipway starts")
}

#[test]
fn standard_input_reaches_a_run_and_an_exec_and_its_end_too() {
    let node = Node::start();
    node.build("busybox:1", "");
    let _ = node
        .slipway(&["run", "-d", "--name", "loop", "--network", "host", "busybox:1", "sleep", "1000"])
        .ok();
    let text: String = (0..50_000).map(|i| format!("line {i}\n")).collect();
    let run = ["run", "-i", "--rm", "--network", "host", "busybox:1", "cat"];
    for arguments in [&run[..], &["exec", "-i", "loop", "cat"]] {
        let mut child = spawn(&node, arguments);
        let mut input = child.stdin.take().expect("its input");
        let sent = text.clone();
        let writer = std::thread::spawn(move || input.write_all(sent.as_bytes()));
        let output = child.wait_with_output().expect("slipway ends");
        writer.join().expect("the writer").expect("the input is taken");
        assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), node.log());
        assert!(
            output.stdout == text.as_bytes(),
            "{arguments:?}: {} of {} bytes",
            output.stdout.len(),
            text.len()
        );
    }
    let user = node.slipway(&[
        "exec",
        "-u",
        "sailor",
        "-w",
        "/tmp",
        "-e",
        "A=b",
        "loop",
        "sh",
        "-c",
        "echo $(id -un) $(pwd) $A",
    ]);
    assert_eq!(user.ok(), "sailor /tmp b");
    let mut gone = spawn(&node, &["exec", "loop", "sh", "-c", "echo $$; exec sleep 900"]);
    let mut first = [0_u8; 1];
    gone.stdout.as_mut().expect("its output").read_exact(&mut first).expect("the command runs");
    gone.kill().expect("the client is killed");
    let _ = gone.wait();
    wait_for(&node, "the command of a client that is gone ends", || {
        !node.slipway(&["exec", "loop", "ps"]).ok().contains("sleep 900")
    });
}

#[track_caller]
fn wait_for(node: &Node, what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "{what}\n{}", node.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reads a stream of a child's until a line is there.
#[track_caller]
fn reads(child: &mut Child, line: &str) -> String {
    let stdout = child.stdout.as_mut().expect("its output");
    let (mut said, mut byte) = (String::new(), [0_u8; 1]);
    while !said.lines().any(|one| one == line) || !said.ends_with('\n') {
        assert_ne!(stdout.read(&mut byte).expect("output"), 0, "it ended: {said}");
        said.push(char::from(byte[0]));
    }
    said
}

#[test]
fn followed_logs_go_on_over_rotations_and_end_with_the_container() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = node.pod("web", serde_json::json!({}));
    let script = "i=0; while [ ! -e /stop ]; do i=$((i+1)); echo line $i; sleep 0.01; done; echo last";
    let container = node.container(&pod, "web", "main", script);
    let link = node.path("crictl");
    std::os::unix::fs::symlink(slipway_tests::folder("SLIPWAY_PROGRAMS").join("slipway"), &link)
        .expect("a link");
    let mut as_crictl = std::process::Command::new(&link);
    as_crictl.args(["--config", "/dev/null", "-r", &format!("unix://{}", node.socket().display())]);
    as_crictl
        .args(["logs", "-f", &container])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut followers =
        [as_crictl.spawn().expect("slipway starts"), spawn(&node, &["logs", "-f", &container])];
    let mut said = followers.each_mut().map(|follower| reads(follower, "line 5"));
    let log = node.status(&container)["logPath"].as_str().expect("a log").to_owned();
    for rotation in 0..3 {
        std::fs::rename(&log, format!("{log}.2026010{rotation}-000000")).expect("the log is rotated");
        let reopened = Output::of(std::process::Command::new(&link).args([
            "--config",
            "/dev/null",
            "-r",
            &format!("unix://{}", node.socket().display()),
            "logs",
            "--reopen",
            "--tail",
            "0",
            &container,
        ]));
        assert_eq!(reopened.status, 0, "{reopened:#?}");
        let next = format!("line {}", said[0].lines().count().max(said[1].lines().count()) + 40);
        for (follower, said) in followers.iter_mut().zip(&mut said) {
            said.push_str(&reads(follower, &next));
        }
    }
    let _ = node.crictl(&["exec", "-s", &container, "touch", "/stop"]).ok();
    for (mut follower, mut said) in followers.into_iter().zip(said) {
        said.push_str(&reads(&mut follower, "last"));
        assert!(follower.wait().expect("slipway ends").success());
        let numbers: Vec<String> = said.lines().map(str::to_owned).collect();
        let expected = (1..numbers.len()).map(|i| format!("line {i}")).chain(["last".to_owned()]);
        assert_eq!(numbers, expected.collect::<Vec<_>>(), "no line is lost or told twice");
    }
}

#[test]
fn logs_are_narrowed_by_number_time_and_stream() {
    let node = Node::start();
    node.build("busybox:1", "");
    let script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; sleep 1; echo late; printf open";
    let ran = node.slipway(&["run", "--name", "job", "--network", "host", "busybox:1", "sh", "-c", script]);
    assert_eq!(ran.ok(), "out 1\nout 2\nout 3\nlate\nopen");
    let logs = |flags: &[&str]| node.slipway(&[&["logs"], flags, &["job"]].concat());
    assert_eq!(logs(&[]).ok(), ran.ok());
    assert_eq!(logs(&["-f"]).ok(), ran.ok(), "following what has ended ends");
    assert_eq!(logs(&["--tail", "2"]).stdout, "late\nopen");
    assert_eq!(logs(&["--tail", "0"]).stdout, "");
    assert_eq!(
        (logs(&["--stream", "stderr"]).stdout.as_str(), logs(&["--stream", "stderr"]).stderr.as_str()),
        ("", "err 1\nerr 2\nerr 3\n")
    );
    let stamped = logs(&["-t", "--stream", "stdout"]).stdout;
    let late = stamped.lines().find(|line| line.ends_with(" late")).expect("the late line");
    let time = late.split(' ').next().expect("its time");
    assert_eq!(logs(&["--since", time]).stdout, "late\nopen");
    assert_eq!(logs(&["--since", "2h", "--tail", "1"]).stdout, "open");
    assert!(logs(&["--since", "soon"]).error().contains("soon"));
    assert!(node.slipway(&["logs", "absent"]).error().contains("absent"));
}

#[test]
fn a_client_attaches_later_and_an_interrupt_leaves_the_container() {
    let node = Node::start();
    node.build("busybox:1", "");
    let script = "while [ ! -e /stop ]; do echo tick; sleep 0.05; done; exit 4";
    let _ = node
        .slipway(&["run", "-d", "--name", "clock", "--network", "host", "busybox:1", "sh", "-c", script])
        .ok();
    let mut first = spawn(&node, &["attach", "clock"]);
    let _ = reads(&mut first, "tick");
    let pid = rustix::process::Pid::from_child(&first);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("the interrupt is sent");
    assert_eq!(first.wait().expect("slipway ends").code(), Some(130));
    let mut second = spawn(&node, &["attach", "clock"]);
    let _ = reads(&mut second, "tick");
    // The end that it asks for may overtake its own.
    let _ = node.slipway(&["exec", "clock", "touch", "/stop"]);
    assert_eq!(
        second.wait_with_output().expect("slipway ends").status.code(),
        Some(4),
        "its status is the container's"
    );
}

#[test]
fn dockers_configuration_proves_who_one_is() {
    let node = Node::start();
    let registry = Registry::with_password();
    let name = registry.name("fleet/busybox:1");
    node.build(&name, "");
    let folder = node.path("docker");
    std::fs::create_dir(&folder).expect("a folder");
    let with = |arguments: &[&str]| Output::of(node.command().env("DOCKER_CONFIG", &folder).args(arguments));
    let refused = with(&["push", &name]);
    assert!(refused.error().lines().count() == 1 && refused.stderr.contains("fleet/busybox"), "{refused:#?}");
    let host = name.split('/').next().expect("a host");
    let config = serde_json::json!({"auths": {host: {"username": USER, "password": PASSWORD}}});
    std::fs::write(folder.join("config.json"), config.to_string()).expect("a configuration");
    let _ = with(&["push", "-q", &name]).ok();
    let _ = with(&["untag", &name]).ok();
    let _ = with(&["pull", "-q", &name]).ok();
    let mut asked = spawn(&node, &["pull", "-q", "--username", USER, &name]);
    writeln!(asked.stdin.take().expect("its input"), "{PASSWORD}").expect("the password is typed");
    let output = asked.wait_with_output().expect("slipway ends");
    assert!(output.status.success(), "{output:?}");
    std::fs::write(folder.join("config.json"), "{\n\"auths\": 1}").expect("a configuration");
    let broken = with(&["pull", &name]);
    assert!(broken.error().contains("config.json") && broken.stderr.contains("line 2"), "{broken:#?}");
    assert_eq!(broken.stderr.lines().count(), 1, "{broken:#?}");
}

#[test]
fn what_is_typed_wrong_is_told_in_one_line_on_standard_error() {
    let node = Node::start();
    node.build("busybox:1", "");
    for (arguments, says) in [
        (&["bogus"][..], "bogus"),
        (&["run"], "<IMAGE>"),
        (&["run", "--bogus", "busybox:1"], "--bogus"),
        (&["run", "-p", "80:sea", "busybox:1"], "80:sea"),
        (&["run", "-v", "/a", "busybox:1"], "/a"),
        (&["run", "--network", "mars", "busybox:1"], "mars"),
        (&["exec", "absent", "true"], "absent"),
        (&["stop", "absent"], "absent"),
        (&["rm", "absent"], "absent"),
        (&["start", "absent"], "absent"),
        (&["attach", "absent"], "absent"),
        (&["inspect", "absent"], "absent"),
        (&["tag", "absent:1", "b:1"], "absent"),
        (&["tag", "busybox:1", "Not//Good"], "Not//Good"),
        (&["untag", "absent:1"], "absent"),
        (&["push", "absent:1"], "absent"),
        (&["build", "/absent"], "/absent"),
        (&["build", "-t", "Not//Good", "/var"], "Not//Good"),
        (&["ps", "-o", "go-template"], "go-template"),
    ] {
        let refused = node.slipway(arguments);
        assert!(refused.error().contains(says), "{refused:#?}");
        assert_eq!(
            (refused.status, refused.stderr.trim().lines().count(), refused.stdout.as_str()),
            (1, 1, ""),
            "{refused:#?}"
        );
    }
    assert_eq!(node.slipway(&["ps", "-a", "-q"]).ok(), "");
    let nowhere = Output::of(
        std::process::Command::new(slipway_tests::folder("SLIPWAY_PROGRAMS").join("slipway")).args([
            "--address",
            "unix:///absent.sock",
            "ps",
        ]),
    );
    assert!(nowhere.error().contains("/absent.sock") && nowhere.stderr.lines().count() == 1, "{nowhere:#?}");
}

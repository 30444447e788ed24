//! Readers that are slower than what they read: an attached run loses nothing by that, neither output nor input.

use std::io::{Read, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use prost::Message as _;
use rustix::mount::MountFlags;
use rustix::net::sockopt;
use rustix::process::{Pid, Signal, kill_process};
use slipway_proto::slipway::v1 as own;
use slipway_tests::Node;
use slipway_tests::http2::{self, Http2};

fn spawn(node: &Node, arguments: &[&str]) -> Child {
    let mut command = node.command();
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("slipway starts")
}

#[track_caller]
fn wait(node: &Node, what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !done() {
        assert!(Instant::now() < deadline, "{what}\n{}", node.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Reads a stream to its end on a thread of its own.
fn reading(stream: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    let mut stream = stream;
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("the stream is read");
        bytes
    })
}

fn numbers(last: u32) -> String {
    (1..=last).map(|number| format!("{number}\n")).collect()
}

#[test]
fn a_run_is_read_whole_though_its_container_was_removed_before_its_reader_began() {
    let node = Node::start();
    node.build("busybox:1", "");
    let script = "for round in 1 2 3 4; do seq 2000000; seq 300000 >&2; done; printf '\\0\\377 open'; exit 7";
    let arguments = ["run", "--rm", "--name", "boat", "--network", "host", "busybox:1", "sh", "-c", script];
    let mut run = spawn(&node, &arguments);
    wait(&node, "the container", || node.slipway(&["ps", "-a"]).stdout.contains("boat"));
    wait(&node, "its removal", || !node.slipway(&["ps", "-a"]).stdout.contains("boat"));
    let stdout = reading(run.stdout.take().expect("its output"));
    let stderr = reading(run.stderr.take().expect("its errors"));
    let (stdout, stderr) = (stdout.join().expect("the reader"), stderr.join().expect("the reader"));
    let words = String::from_utf8_lossy(stderr.get(stderr.len().saturating_sub(300)..).unwrap_or_default());
    assert_eq!(run.wait().expect("slipway ends").code(), Some(7), "{words}");
    let mut expected = numbers(2_000_000).repeat(4).into_bytes();
    expected.extend_from_slice(b"\0\xff open");
    assert!(stdout == expected, "{} of {} bytes of output", stdout.len(), expected.len());
    let expected = numbers(300_000).repeat(4).into_bytes();
    assert!(stderr == expected, "{} of {} bytes of errors", stderr.len(), expected.len());
}

#[test]
fn a_slow_reader_is_told_when_its_containers_log_is_not_whole() {
    let mut node = Node::start();
    node.kill();
    let disk = node.path("lib");
    rustix::mount::mount("tmpfs", &disk, "tmpfs", MountFlags::empty(), Some(c"size=24m")).expect("a disk");
    node.launch();
    node.build("busybox:1", "");
    let arguments = ["run", "--name", "boat", "--network", "host", "busybox:1", "seq", "4000000"];
    let mut run = spawn(&node, &arguments);
    wait(&node, "the end", || node.slipway(&["ps", "-a", "-o", "json"]).stdout.contains("EXITED"));
    let stderr = reading(run.stderr.take().expect("its errors"));
    let stdout = reading(run.stdout.take().expect("its output")).join().expect("the reader");
    let words = String::from_utf8(stderr.join().expect("the reader")).expect("words");
    assert!(stdout.starts_with(b"1\n2\n3\n") && stdout.len() < numbers(4_000_000).len());
    assert_eq!(run.wait().expect("slipway ends").code(), Some(125), "{words}");
    assert!(words.contains("log is not whole") && words.lines().count() == 1, "{words}");
    let _ = node.slipway(&["rm", "boat"]).ok();
}

#[test]
fn the_input_of_a_run_outlives_a_reader_that_was_too_slow() {
    let node = Node::start();
    node.build("busybox:1", "");
    let script = "seq 2000000; echo >/shared/printed; cat; exit 3";
    std::fs::create_dir(node.path("shared")).expect("the shared directory");
    let volume = format!("{}:/shared", node.path("shared").display());
    let mut run = spawn(&node, &["run", "-i", "--rm", "-v", &volume, "busybox:1", "sh", "-c", script]);
    wait(&node, "the output", || node.path("shared/printed").exists());
    let mut input = run.stdin.take().expect("its input");
    let text: String = (0..100_000).map(|number| format!("typed {number}\n")).collect();
    let sent = text.clone();
    let writer = std::thread::spawn(move || input.write_all(sent.as_bytes()));
    let stdout = reading(run.stdout.take().expect("its output"));
    let stdout = stdout.join().expect("the reader");
    writer.join().expect("the writer").expect("the input is taken");
    assert_eq!(run.wait().expect("slipway ends").code(), Some(3), "{}", node.log());
    let expected = numbers(2_000_000) + &text;
    assert!(stdout == expected.as_bytes(), "{} of {} bytes", stdout.len(), expected.len());
}

#[test]
fn a_container_that_reads_no_input_keeps_nobody_from_the_daemon() {
    let node = Node::start();
    node.build("busybox:1", "");
    let deaf: Vec<Child> = (0..4)
        .map(|number| {
            let name = format!("deaf-{number}");
            let mut run = spawn(
                &node,
                &["run", "-i", "--rm", "--name", &name, "--network", "host", "busybox:1", "sleep", "1000"],
            );
            let mut input = run.stdin.take().expect("its input");
            // More than all that lies between holds; it fails when the client ends.
            std::thread::spawn(move || input.write_all(&vec![b'x'; 16 << 20]));
            wait(&node, "the container", || node.slipway(&["ps"]).stdout.contains(&name));
            run
        })
        .collect();
    let echo = ["run", "--rm", "--network", "host", "busybox:1", "echo", "here"];
    assert_eq!(node.slipway(&echo).ok(), "here");
    for (number, mut run) in deaf.into_iter().enumerate() {
        run.kill().expect("the client is killed");
        let _ = run.wait();
        let _ = node.slipway(&["rm", "-f", &format!("deaf-{number}")]).ok();
    }
}

#[test]
fn the_input_of_a_silent_container_ends_with_its_client() {
    let node = Node::start();
    node.build("busybox:1", "");
    let mut run = spawn(&node, &["run", "-i", "--name", "cat", "--network", "host", "busybox:1", "cat"]);
    let mut input = run.stdin.take().expect("its input");
    input.write_all(b"ready\n").expect("the input is taken");
    let mut first = [0_u8; 6];
    run.stdout.as_mut().expect("its output").read_exact(&mut first).expect("the container runs");
    run.kill().expect("the client is killed");
    let _ = run.wait();
    wait(&node, "the end of cat", || !node.slipway(&["ps"]).stdout.contains("cat"));
    assert_eq!(node.slipway(&["logs", "cat"]).ok(), "ready");
    let _ = node.slipway(&["rm", "cat"]).ok();
}

/// A message of the log with a line of one letter.
fn short_line() -> Vec<u8> {
    let entry = own::LogEntry { stream: 1, timestamp: 0, data: b"x\n".to_vec() };
    own::LogEntries { entries: vec![entry] }.encode_to_vec()
}

/// Each end of a connection limits how many small frames it holds unread, and breaks the connection off beyond that:
/// the logs of a million lines once ended like this on a machine under load.
#[test]
fn a_client_that_was_held_up_takes_a_window_full_of_short_messages() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("daemon.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let mut command = std::process::Command::new(slipway_tests::folder("SLIPWAY_PROGRAMS").join("slipway"));
    command.arg("--address").arg(format!("unix://{}", path.display())).args(["logs", "boat"]);
    let client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("slipway starts");
    let (socket, _) = listener.accept().expect("the client connects");
    let daemon = Http2::answer(socket);
    let pid = Pid::from_child(&client);
    kill_process(pid, Signal::STOP).expect("the client is stopped");
    let message = short_line();
    // gRPC's own head is 5 bytes.
    let lines = daemon.room(message.len() + 5);
    let mut frames = http2::frames(&vec![message; lines]);
    frames.extend(Http2::trailers());
    // As much as the kernel holds is there when the client goes on.
    sockopt::set_socket_send_buffer_size(daemon.socket(), frames.len()).expect("a large buffer");
    daemon.socket().set_nonblocking(true).expect("no waiting");
    let held = daemon.socket().write(&frames).expect("the first frames are sent");
    daemon.socket().set_nonblocking(false).expect("waiting");
    kill_process(pid, Signal::CONT).expect("the client goes on");
    // A client that breaks off says why.
    let _ = daemon.socket().write_all(&frames[held..]);
    let output = client.wait_with_output().expect("slipway ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout.len(), 2 * lines);
}

#[test]
fn the_daemon_takes_a_window_full_of_short_input_that_nobody_reads() {
    let node = Node::start();
    node.build("busybox:1", "");
    let _ = node
        .slipway(&["run", "-d", "--name", "boat", "--network", "host", "busybox:1", "sleep", "1000"])
        .ok();
    let socket = UnixStream::connect(node.socket()).expect("the daemon answers");
    let mut client = Http2::call(socket, "/slipway.v1.Slipway/Exec");
    let request = |message| own::ExecRequest { message: Some(message) }.encode_to_vec();
    let command = vec!["sleep".to_owned(), "1000".to_owned()];
    let start = own::ExecStart { container: "boat".into(), command, stdin: true, ..Default::default() };
    let start = request(own::exec_request::Message::Start(start));
    // More than a pipe holds, in messages that are no short ones.
    let long = vec![request(own::exec_request::Message::Stdin(vec![b'x'; 8 << 10])); 16];
    let spent: usize = long.iter().chain([&start]).map(|message| message.len() + 5).sum();
    let short = request(own::exec_request::Message::Stdin(b"x".to_vec()));
    let room = client.room(1) - spent;
    client.send(&http2::frames(&[vec![start], long].concat()));
    client.send(&http2::frames(&vec![short.clone(); room / (short.len() + 5)]));
    assert!(client.is_alive(), "the connection is broken off");
    drop(client);
    let _ = node.slipway(&["rm", "-f", "boat"]).ok();
}

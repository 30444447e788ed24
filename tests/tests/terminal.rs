//! `slipway exec` and `slipway run` at a terminal: a real one, whose other side is the test's. The client leads a session there, as it would
//! below a shell.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{ControlModes, InputModes, LocalModes, OutputModes, Winsize};
use rustix::termios::{tcgetattr, tcsetwinsize};
use slipway_proto::slipway::v1 as own;
use slipway_proto::slipway::v1::slipway_client::SlipwayClient;
use slipway_tests::{Node, grpc, wait};

type Modes = (InputModes, OutputModes, ControlModes, LocalModes);

/// A terminal of a person's, and what it shows.
struct Terminal {
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    theirs: OwnedFd,
    before: Modes,
}

impl Terminal {
    fn open(columns: u16, rows: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).expect("a terminal");
        grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("the terminal is unlocked");
        let theirs = ioctl_tiocgptpeer(&ours, flags).expect("its other side");
        let keyboard = File::from(ours);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (mut shown, lines) = (keyboard.try_clone().expect("a second descriptor"), screen.clone());
        // It ends when the last descriptor of the other side is closed.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = shown.read(&mut buffer) {
                lines.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..length]);
            }
        });
        let before = modes(&theirs);
        let terminal = Self { keyboard, screen, theirs, before };
        terminal.resize(columns, rows);
        terminal
    }

    fn resize(&self, ws_col: u16, ws_row: u16) {
        let size = Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.keyboard, size).expect("the terminal's size");
    }

    /// Starts `slipway` here.
    fn start(&self, node: &Node, arguments: &[&str]) -> Child {
        let slipway = node.command();
        let stream = || self.theirs.try_clone().expect("a descriptor");
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(slipway.get_program()).args(slipway.get_args()).args(arguments);
        command.stdin(stream()).stdout(stream()).stderr(stream());
        command.spawn().expect("setsid starts")
    }

    fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the keys are typed");
    }

    fn text(&self) -> String {
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&screen).into_owned()
    }

    /// Waits until a text has been shown so many times.
    #[track_caller]
    fn shows(&self, text: &str, times: usize) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while self.text().matches(text).count() < times {
            assert!(
                std::time::Instant::now() < deadline,
                "{text:?} is not shown {times} times: {:?}",
                self.text()
            );
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    fn is_as_before(&self) -> bool {
        modes(&self.theirs) == self.before
    }
}

fn modes(terminal: &OwnedFd) -> Modes {
    let modes = tcgetattr(terminal).expect("the terminal's modes");
    (modes.input_modes, modes.output_modes, modes.control_modes, modes.local_modes)
}

/// The client's exit status, when it has ended in time.
#[track_caller]
fn status(mut client: Child) -> Option<i32> {
    wait("the client's end", || client.try_wait().expect("the client is waited for").is_some());
    client.wait().expect("the client is waited for").code()
}

fn boat() -> Node {
    let node = Node::start();
    node.build("busybox:1", "");
    sail(&node);
    node
}

fn sail(node: &Node) {
    let _ = node
        .slipway(&["run", "-d", "--name", "boat", "--network", "host", "busybox:1", "sleep", "1000"])
        .ok();
}

/// Waits for its terminal to have a size, then says what comes over it until a line says `end`.
const SAYS: &str = r#"
trap 'echo interrupted' INT
trap 'echo now $(stty size)' WINCH
until [ "$(stty size 2>/dev/null)" = "37 91" ]; do sleep 0.05; done
echo begun
while [ "$line" != end ]; do read -r line || line=nothing; echo "read <$line>"; done
exit 7"#;

#[test]
fn a_command_has_the_size_and_the_keys_of_the_clients_terminal() {
    let node = boat();
    let mut terminal = Terminal::open(91, 37);
    let client = terminal.start(&node, &["exec", "-it", "boat", "sh", "-c", SAYS]);
    terminal.shows("begun", 1);
    assert!(!terminal.is_as_before());
    terminal.types("ahoy\r");
    terminal.shows("read <ahoy>", 1);
    assert_eq!(terminal.text().matches("ahoy").count(), 2, "one echo: {:?}", terminal.text());
    assert!(!terminal.text().contains("\r\r\n"), "lines end once: {:?}", terminal.text());
    terminal.types("\x04");
    terminal.shows("read <nothing>", 1);
    terminal.types("\x03");
    terminal.shows("interrupted", 1);
    terminal.resize(100, 40);
    terminal.shows("now 40 100", 1);
    terminal.types("end\r");
    terminal.shows("read <end>", 1);
    assert_eq!(status(client), Some(7), "{:?}", terminal.text());
    assert!(terminal.is_as_before(), "{:?}", terminal.text());
}

#[test]
fn a_run_has_the_terminal_until_it_ends() {
    let node = boat();
    let mut terminal = Terminal::open(91, 37);
    let run = ["run", "-it", "--rm", "--name", "shell", "--network", "host", "busybox:1", "sh", "-c", SAYS];
    let client = terminal.start(&node, &run);
    terminal.shows("begun", 1);
    terminal.types("ahoy\r");
    terminal.shows("read <ahoy>", 1);
    assert_eq!(terminal.text().matches("ahoy").count(), 2, "one echo: {:?}", terminal.text());
    terminal.types("\x03");
    terminal.shows("interrupted", 1);
    terminal.resize(100, 40);
    terminal.shows("now 40 100", 1);
    terminal.types("end\r");
    assert_eq!(status(client), Some(7), "{:?}", terminal.text());
    assert!(terminal.is_as_before(), "{:?}", terminal.text());
    let script = "trap 'exit 3' TERM; echo afloat; read -r line";
    for (way, times) in [(Signal::TERM, 1), (Signal::HUP, 2)] {
        let client = terminal.start(&node, &[&run[..8], &["sh", "-c", script]].concat());
        terminal.shows("afloat", times);
        assert!(!terminal.is_as_before());
        signal(&client, way);
        assert_eq!(status(client), Some(3), "it is stopped: {:?}", terminal.text());
        assert!(terminal.is_as_before(), "{way:?}: {:?}", terminal.text());
    }
    let refused = node.slipway(&run);
    assert_eq!((refused.status, refused.error()), (1, "slipway: input is not a terminal"), "{refused:#?}");
    assert_eq!(node.slipway(&["ps", "-a", "-q"]).ok().lines().count(), 1, "the first one alone is left");
}

/// Starts a command at the terminal that does not end by itself.
fn waits(terminal: &Terminal, node: &Node) -> Child {
    let begun = terminal.text().matches("begun").count();
    let client = terminal.start(node, &["exec", "-it", "boat", "sh", "-c", "echo begun; exec sleep 1000"]);
    terminal.shows("begun", begun + 1);
    assert!(!terminal.is_as_before());
    client
}

fn signal(client: &Child, signal: Signal) {
    kill_process(Pid::from_child(client), signal).expect("the signal is sent");
}

#[test]
fn a_terminal_gets_its_modes_back_however_the_command_ends() {
    let mut node = boat();
    let terminal = Terminal::open(80, 24);
    for (way, number) in [(Signal::TERM, 15), (Signal::HUP, 1), (Signal::INT, 2)] {
        let client = waits(&terminal, &node);
        signal(&client, way);
        assert_eq!(status(client), Some(128 + number), "{:?}", terminal.text());
        assert!(terminal.is_as_before(), "signal {number}: {:?}", terminal.text());
    }
    let client = waits(&terminal, &node);
    let _ = node.slipway(&["rm", "-f", "boat"]).ok();
    assert_eq!(status(client), Some(137), "{:?}", terminal.text());
    assert!(terminal.is_as_before(), "the container is killed: {:?}", terminal.text());
    sail(&node);
    let client = waits(&terminal, &node);
    node.kill();
    assert_eq!(status(client), Some(1), "{:?}", terminal.text());
    assert!(terminal.is_as_before(), "the daemon is killed: {:?}", terminal.text());
    assert!(terminal.text().contains("exec in container boat"), "{:?}", terminal.text());
}

#[test]
fn input_that_is_no_terminal_is_refused_before_anything_is_executed() {
    let node = boat();
    let refused = node.slipway(&["exec", "-it", "boat", "touch", "/made"]);
    assert_eq!((refused.status, refused.error()), (1, "slipway: input is not a terminal"), "{refused:#?}");
    assert_eq!(node.slipway(&["exec", "boat", "test", "-e", "/made"]).status, 1);
    // Without input the command's terminal needs none of the client's.
    let alone = node.slipway(&["exec", "-t", "boat", "sh", "-c", "test -t 0 && echo has one"]);
    assert_eq!(alone.ok(), "has one", "{alone:#?}");
}

#[test]
fn a_terminal_has_its_size_and_its_kind_from_the_first_instant() {
    let node = boat();
    let says = "echo size $(stty size) kind $TERM end";
    let run = ["run", "--rm", "-it", "--network", "host", "busybox:1", "sh", "-c", says];
    for arguments in
        [&["exec", "-it", "boat", "sh", "-c", says][..], &["exec", "-t", "boat", "sh", "-c", says], &run]
    {
        let terminal = Terminal::open(91, 37);
        for round in 1..=5 {
            assert_eq!(status(terminal.start(&node, arguments)), Some(0), "{:?}", terminal.text());
            terminal.shows("size 37 91 kind xterm end", round);
        }
    }
}

/// The size came in a message after the start, so that a program which asks at once could see a terminal of no columns. A
/// client that never sends that message shows what the program begins with.
#[tokio::test]
async fn a_terminal_begins_with_the_size_of_the_start_message() {
    let node = boat();
    let size = Some(own::TerminalSize { width: 91, height: 37 });
    let command = ["stty", "size"].map(str::to_owned).to_vec();
    let start = own::ExecStart {
        container: "boat".into(),
        command: command.clone(),
        tty: true,
        size,
        ..Default::default()
    };
    let start = own::ExecRequest { message: Some(own::exec_request::Message::Start(start)) };
    let mut client = SlipwayClient::new(grpc::channel(&node).await);
    // The stream of requests stays open: its end would be the session's.
    let requests = tokio_stream::StreamExt::chain(tokio_stream::iter([start]), tokio_stream::pending());
    let mut answers = client.exec(requests).await.expect("a session").into_inner();
    let mut said = Vec::new();
    while let Some(answer) = answers.message().await.expect("an answer") {
        match answer.message {
            Some(own::stream_output::Message::Stdout(bytes)) => said.extend(bytes),
            Some(own::stream_output::Message::Exit(exit)) => {
                assert_eq!(exit.code, 0);
                break;
            }
            _ => {}
        }
    }
    assert_eq!(String::from_utf8_lossy(&said), "37 91\r\n");
    let request = own::RunContainerRequest {
        name: "sized".into(),
        image: "busybox:1".into(),
        network: own::ContainerNetwork::Host.into(),
        command,
        detach: true,
        tty: true,
        size,
        ..Default::default()
    };
    let _ = client.run_container(request).await.expect("a container");
    wait("its words", || node.slipway(&["logs", "sized"]).stdout.trim() == "37 91");
}

#[test]
fn a_command_without_input_has_the_terminals_size_and_leaves_the_keys_to_the_client() {
    let node = boat();
    let mut terminal = Terminal::open(91, 37);
    let client = terminal.start(&node, &["exec", "-t", "boat", "sh", "-c", SAYS]);
    terminal.shows("begun", 1);
    assert!(terminal.is_as_before());
    terminal.types("\x03");
    assert_eq!(status(client), Some(130), "{:?}", terminal.text());
}

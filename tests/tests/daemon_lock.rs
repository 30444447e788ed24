//! The lock by which one daemon has its directories goes with the daemon.
//!
//! A lock of flock(2) is shared with a child from its fork to its exec. One restart in 40 after a `kill -9` came in the
//! time of a monitor's birth, and was told that another daemon has the directories.

use serde_json::json;
use slipway_tests::fault::{Strace, kill};
use slipway_tests::{Node, Output, residue, wait};
use std::process::{Command, Stdio};

/// The children of a process that run the same program as it does.
fn unborn(pid: u32) -> Vec<u32> {
    let program = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    residue::children(pid).into_iter().filter(|child| program(*child) == program(pid)).collect()
}

#[test]
fn a_daemon_that_dies_between_fork_and_exec_of_a_monitor_leaves_its_directories_free() {
    let mut node = Node::start();
    let held = Strace::attach_to_all(node.pid(), &["--inject=execve:delay_enter=60s", "-o", "/dev/null"]);
    let mut client = node.crictl_command(&["runp", &node.pod_file("pod", json!({}))]);
    let mut client = client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("crictl starts");
    let daemon = node.pid();
    wait("a monitor between fork and exec", || !unborn(daemon).is_empty());
    let child = unborn(daemon)[0];
    node.kill();
    // The child has the connection, too: the client would wait for it.
    client.kill().expect("the client is killed");
    let _ = client.wait();
    let program = slipway_tests::folder("SLIPWAY_PROGRAMS").join("slipwayd");
    let lives = || std::path::Path::new(&format!("/proc/{child}/exe")).exists();
    assert!(lives(), "the child has not come to its exec");
    node.launch();
    // The child has the dead daemon's socket, too, on which nobody answers: that one can be connected to says nothing.
    wait("the next daemon", || node.log().matches("serving socket").count() == 2);
    assert!(lives(), "the child has not come to its exec");
    // Two that live never share them.
    let second = Output::of(
        Command::new(program)
            .arg("--config")
            .arg(node.path("config.toml"))
            .arg("--root")
            .arg(node.path("lib"))
            .arg("--state")
            .arg(node.path("other")),
    );
    assert!(second.error().contains("in use by another slipwayd"), "{second:#?}");
    kill(child);
    drop(held);
    let _ = node.pod("after", json!({}));
}

#[test]
fn a_daemon_that_is_killed_while_it_makes_pods_is_followed_at_once_by_the_next() {
    let mut node = Node::start();
    for round in 0..12_u64 {
        let clients: Vec<_> = (0..3)
            .map(|number| {
                let file = node.pod_file(&format!("pod-{round}-{number}"), json!({}));
                let mut client = node.crictl_command(&["runp", &file]);
                client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("crictl starts")
            })
            .collect();
        std::thread::sleep(std::time::Duration::from_millis(10 + 7 * round));
        node.kill();
        node.launch();
        for mut client in clients {
            let _ = client.wait();
        }
    }
    assert!(!node.log().contains("in use by another"), "{}", node.log());
}

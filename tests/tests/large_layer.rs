//! A layer of a million entries, beside GNU tar over the same bytes: how long, and how much memory. Too slow for every
//! change; `tests/nightly` runs it. Nothing is asserted on time.

use slipway_tests::artifact::{Artifact, gzip};
use slipway_tests::tarball::Tarball;
use slipway_tests::{Node, Scripted};
use std::process::Command;
use std::time::Instant;

const DIRECTORIES: usize = 1000;
const FILES: usize = 999;

#[test]
#[ignore = "it takes minutes"]
fn a_million_entries_are_pulled_checked_and_removed() {
    let mut tar = Tarball::new();
    for directory in 0..DIRECTORIES {
        tar = tar.directory(&format!("d{directory}/"));
        for file in 0..FILES {
            // Most files of a large tree are small, many are empty.
            let data = if file % 10 == 0 { &b"a few bytes of a file\n"[..] } else { b"" };
            tar = tar.file(&format!("d{directory}/f{file}"), data);
        }
    }
    let tar = tar.end();
    let artifact = Artifact::with(&[(&tar, gzip(&tar), "tar+gzip")]);
    let registry = Scripted::start();
    registry.hold(&artifact, "fleet/large", "1");
    let node = Node::start();
    let name = registry.name("fleet/large:1");
    let seconds = |what: &str, work: &dyn Fn()| {
        let began = Instant::now();
        work();
        println!("{what}: {:.1} s", began.elapsed().as_secs_f64());
    };
    println!(
        "{} entries, {} MB, {} MB compressed",
        DIRECTORIES * (FILES + 1),
        tar.len() >> 20,
        artifact.layers[0].len() >> 20
    );
    seconds("pull", &|| assert_eq!(node.slipway(&["pull", "-q", &name]).ok(), artifact.id()));
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("the daemon's status");
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    println!("the daemon's peak: {}", peak.split_whitespace().skip(1).collect::<Vec<_>>().join(" "));
    seconds("check", &|| assert_eq!(node.slipway(&["check"]).ok(), ""));
    seconds("remove", &|| drop(node.crictl(&["rmi", &name]).ok().to_owned()));
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    std::fs::write(folder.path().join("tar"), &artifact.layers[0]).expect("the layer is written");
    seconds("tar -xz of the same", &|| {
        let status = Command::new("tar").args(["-xzf", "tar"]).current_dir(folder.path()).status();
        assert!(status.expect("tar runs").success());
    });
}

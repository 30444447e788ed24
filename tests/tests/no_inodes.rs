//! A file system that has room for bytes and none for another inode.
//!
//! The kernel says "No space left on device" then, and overlayfs, which can't make its own directories, mounts a
//! container's root read-only: its start said that the file system is read-only, where `df` shows gigabytes free.

use rustix::mount::{MountFlags, mount};
use serde_json::json;
use slipway_tests::artifact::Artifact;
use slipway_tests::tarball::Tarball;
use slipway_tests::{Node, Output, Scripted};
use std::fs::{self, File};
use std::path::PathBuf;

/// A node whose root is a small file system, with some of its inodes taken by files that a test can remove.
struct Crowded {
    node: Node,
    taken: Vec<PathBuf>,
    /// Refusals whose words don't say why.
    unclear: Vec<String>,
}

impl Crowded {
    fn fill(&mut self) {
        let folder = self.node.path("lib/taken");
        fs::create_dir_all(&folder).expect("a directory");
        loop {
            let path = folder.join(self.taken.len().to_string());
            match File::create_new(&path) {
                Ok(_) => self.taken.push(path),
                Err(error) => return assert_eq!(error.raw_os_error(), Some(28), "{error}"),
            }
        }
    }

    /// Asks for something with so many inodes left, one more each time, until it is done; each refusal says why.
    fn until_done(&mut self, what: &str, ask: impl Fn(&Node, usize) -> Output) {
        for left in 0..60 {
            self.fill();
            for path in self.taken.drain(self.taken.len() - left..) {
                fs::remove_file(path).expect("a file is removed");
            }
            let output = ask(&self.node, left);
            if output.status == 0 {
                assert!(left > 0, "{what} needs no inode");
                return;
            }
            let error = output.error();
            if error.contains("ended with exit code") {
                continue; // The program in the container was told by the kernel, and said so itself.
            }
            if !error.contains("no inode is left") || error.to_lowercase().contains("read-only") {
                self.unclear.push(format!("{what} with {left} inodes: {error}"));
            }
        }
        panic!("{what} is not done with 60 inodes\n{}", self.node.log());
    }
}

#[test]
fn no_inode_left_is_said_as_such_by_every_request() {
    let mut node = Node::start();
    node.kill();
    let options = c"size=512m,nr_inodes=3000,mode=0700";
    mount("tmpfs", node.path("lib"), "tmpfs", MountFlags::empty(), options).expect("a small file system");
    node.launch();
    node.build("busybox:1", "");
    let registry = Scripted::start();
    registry.hold(&Artifact::of(&[Tarball::new().directory("a/").file("a/b", b"b").end()]), "fleet/app", "1");
    let (pod_file, image) = (node.pod_file("pod", json!({})), registry.name("fleet/app:1"));
    let pod = node.crictl(&["runp", &pod_file]).ok().to_owned();
    let started = node.container_file("started", "busybox:1", "exec sleep 1000", json!({}));
    let id = node.crictl(&["create", &pod, &started, &pod_file]).ok().to_owned();
    let mut crowded = Crowded { node, taken: Vec::new(), unclear: Vec::new() };
    crowded.until_done("pull", |node, _| node.slipway(&["pull", &image]));
    crowded.until_done("tag", |node, _| node.slipway(&["tag", "busybox:1", "other:1"]));
    let context =
        slipway_tests::build::Context::new("FROM busybox:1\nRUN mkdir /made\nCOPY f /made/\n").file("f", "f");
    crowded.until_done("build", |node, _| node.slipway(&["build", "-q", "-t", "built:1", &context.path()]));
    crowded.until_done("pod", |node, left| {
        let file = node.pod_file(&format!("pod-{left}"), json!({}));
        node.crictl(&["runp", &file])
    });
    crowded.until_done("create", |node, left| {
        let file = node.container_file(&format!("made-{left}"), "busybox:1", "true", json!({}));
        node.crictl(&["create", &pod, &file, &pod_file])
    });
    crowded.until_done("run", |node, _| {
        node.slipway(&["run", "--rm", "--network", "host", "busybox:1", "true"])
    });
    // The inodes that a start needs beyond its creation: a start that fails is final.
    crowded.until_done("start", |node, left| {
        if left == 0 {
            return node.crictl(&["start", &id]);
        }
        let file = node.container_file(&format!("again-{left}"), "busybox:1", "exec sleep 1000", json!({}));
        let created = node.crictl(&["create", &pod, &file, &pod_file]);
        if created.status == 0 { node.crictl(&["start", created.stdout.trim()]) } else { created }
    });
    assert_eq!(crowded.unclear, [""; 0]);
    for path in crowded.taken.drain(..) {
        fs::remove_file(path).expect("a file is removed");
    }
    // Ends of containers that found no inode for their records are known to the daemon alone until they are repaired.
    let repaired = crowded.node.slipway(&["check", "--repair"]);
    let findings = repaired.stdout.lines().filter(|line| !line.contains("/ended.1: it is absent"));
    assert_eq!(findings.collect::<Vec<_>>(), [""; 0]);
    assert_eq!(crowded.node.slipway(&["check"]).ok(), "");
}

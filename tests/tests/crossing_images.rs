//! Builds, tags and pulls of images concurrent with their removal: every image that was reported done, and not removed by its
//! own name, is there afterwards and runs.
//!
//! A prune chose the images without a name, and removed later whatever names they had by then: 252 of 813 builds beside a
//! loop of prunes were lost, and each of 24 tags that were given while a prune ran.

use serde_json::json;
use slipway_tests::artifact::Artifact;
use slipway_tests::build::{Context, built};
use slipway_tests::tarball::Tarball;
use slipway_tests::{Node, Output, Registry, Scripted};
use std::sync::atomic::{AtomicBool, Ordering};

/// How often each request is made beside the removals.
const TIMES: usize = 10;

const BASE: &str = "base:1";

/// A node with an image that a container holds, and registries to pull from and push to.
struct Yard {
    node: Node,
    pulls: Scripted,
    pushes: Registry,
    pod: String,
    pod_file: String,
}

/// A layer with a program of the base's is too large to make often: an image of a layer of one file on the base's layers
/// can't be served without them, so that what is pulled is only a file, and is looked for as one.
fn cargo(number: usize) -> Artifact {
    Artifact::of(&[
        Tarball::new().directory("hold/").file("hold/shared", b"shared\n").end(),
        Tarball::new().directory("hold/").file("hold/cargo", format!("{number}\n").as_bytes()).end(),
    ])
}

impl Yard {
    fn open() -> Self {
        let node = Node::start();
        node.build(BASE, "");
        let keeper = ["run", "-d", "--network", "host", "--name", "keeper", BASE, "sleep", "100000"];
        let _ = node.slipway(&keeper).ok();
        let pulls = Scripted::start();
        for number in 0..TIMES {
            pulls.hold(&cargo(number), "fleet/cargo", &number.to_string());
        }
        pulls.hold(&cargo(999), "fleet/victim", "1");
        let pod_file = node.pod_file("pod", json!({}));
        let pod = node.crictl(&["runp", &pod_file]).ok().to_owned();
        Self { node, pulls, pushes: Registry::start(), pod, pod_file }
    }

    fn pulled(&self, number: usize) -> String {
        self.pulls.name(&format!("fleet/cargo:{number}"))
    }

    fn pushed(&self, number: usize) -> String {
        self.pushes.name(&format!("fleet/made:{number}"))
    }

    /// One request, by its number; the requests of one kind come one after another.
    fn make(&self, kind: Kind, number: usize) -> Output {
        let node = &self.node;
        match kind {
            Kind::Build => {
                let text = format!("FROM {BASE}\nCOPY cargo /cargo\nLABEL number={number}\n");
                let context = Context::new(&text).file("cargo", &number.to_string());
                node.slipway(&["build", "-t", &format!("built:{number}"), &context.path()])
            }
            Kind::Tag => node.slipway(&["tag", BASE, &format!("tagged:{number}")]),
            Kind::Pull => node.slipway(&["pull", &self.pulled(number)]),
            Kind::Run => node.slipway(&[
                "run",
                "-d",
                "--network",
                "host",
                "--name",
                &format!("run-{number}"),
                BASE,
                "sleep",
                "100000",
            ]),
            Kind::Create => {
                let file =
                    node.container_file(&format!("main-{number}"), BASE, "exec sleep 100000", json!({}));
                node.crictl(&["create", &self.pod, &file, &self.pod_file])
            }
            Kind::Push => {
                let named = node.slipway(&["tag", BASE, &self.pushed(number)]);
                if named.status == 0 { node.slipway(&["push", &self.pushed(number)]) } else { named }
            }
        }
    }

    /// Whether what was reported done is there, and runs where it can.
    fn is_there(&self, kind: Kind, number: usize) -> bool {
        let node = &self.node;
        let runs = |image: &str, command: &[&str], says: &str| {
            let run = node.slipway(&[&["run", "--rm", "--network", "host", image], command].concat());
            run.status == 0 && run.stdout.trim() == says
        };
        match kind {
            Kind::Build => runs(&format!("built:{number}"), &["cat", "/cargo"], &number.to_string()),
            Kind::Tag => runs(&format!("tagged:{number}"), &["echo", "afloat"], "afloat"),
            Kind::Pull => {
                // It holds no program: the layers are what a container of it gets.
                let file = node.container_file("look", &self.pulled(number), "", json!({}));
                let created = node.crictl(&["create", &self.pod, &file, &self.pod_file]);
                created.status == 0 && node.crictl(&["rm", created.stdout.trim()]).status == 0
            }
            Kind::Run => node.slipway(&["exec", &format!("run-{number}"), "echo", "afloat"]).status == 0,
            Kind::Create => {
                let listed = node.crictl(&["ps", "-a", "-q", "--name", &format!("main-{number}$")]);
                let id = listed.ok();
                node.crictl(&["start", id]).status == 0
                    && node.crictl(&["exec", "-s", id, "echo", "afloat"]).status == 0
            }
            Kind::Push => {
                let name = self.pushed(number);
                let _ = node.slipway(&["untag", &name]).ok();
                node.slipway(&["pull", &name]).status == 0
            }
        }
    }

    /// Makes everything beside a removal that is repeated until all is made; what was reported done and is gone.
    fn cross(&self, kinds: &[Kind], remove: impl Fn(usize) -> Vec<Output> + Sync) -> Vec<String> {
        let over = AtomicBool::new(false);
        let mut lost = Vec::new();
        std::thread::scope(|scope| {
            let removing = scope.spawn(|| {
                let mut round = 0;
                while !over.load(Ordering::SeqCst) {
                    for output in remove(round) {
                        assert_eq!(output.status, 0, "{output:#?}\n{}", self.node.log());
                    }
                    round += 1;
                }
            });
            let made: Vec<_> = kinds
                .iter()
                .map(|kind| {
                    scope.spawn(|| (0..TIMES).map(|number| self.make(*kind, number)).collect::<Vec<_>>())
                })
                .collect();
            let made: Vec<Vec<Output>> =
                made.into_iter().map(|one| one.join().expect("the requests")).collect();
            over.store(true, Ordering::SeqCst);
            removing.join().expect("the removals");
            for (kind, outputs) in kinds.iter().zip(made) {
                for (number, output) in outputs.into_iter().enumerate() {
                    // Nothing that is asked for here has a reason to fail: its image is held, or has a name.
                    assert_eq!(output.status, 0, "{kind:?} {number}: {output:#?}\n{}", self.node.log());
                    if !self.is_there(*kind, number) {
                        lost.push(format!("{kind:?} {number}"));
                    }
                }
            }
        });
        let check = self.node.slipway(&["check"]);
        assert_eq!((check.status, check.stdout.as_str()), (0, ""), "{check:#?}");
        lost
    }
}

/// A request that is reported done.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Build,
    Tag,
    Pull,
    Run,
    Create,
    Push,
}

const ALL: [Kind; 6] = [Kind::Build, Kind::Tag, Kind::Pull, Kind::Run, Kind::Create, Kind::Push];

#[test]
fn nothing_that_was_reported_done_is_lost_to_prunes() {
    let yard = Yard::open();
    let lost = yard.cross(&ALL, |_| vec![yard.node.slipway(&["prune"])]);
    assert_eq!(lost, [""; 0], "{}", yard.node.log());
}

/// A prune of all may take a name and an image that nothing uses: what a container holds keeps all its names.
#[test]
fn nothing_that_a_container_holds_is_lost_to_prunes_of_all() {
    let yard = Yard::open();
    let held = [Kind::Tag, Kind::Run, Kind::Create, Kind::Push];
    let lost = yard.cross(&held, |_| vec![yard.node.slipway(&["prune", "-a"])]);
    assert_eq!(lost, [""; 0], "{}", yard.node.log());
}

/// A removal takes the one image that it names, and collects what only that one had; it shares a layer with what is pulled.
#[test]
fn nothing_that_was_reported_done_is_lost_to_removals_of_other_images_and_their_collections() {
    let yard = Yard::open();
    let victim = yard.pulls.name("fleet/victim:1");
    let lost = yard
        .cross(&ALL, |_| vec![yard.node.slipway(&["pull", &victim]), yard.node.slipway(&["rmi", &victim])]);
    assert_eq!(lost, [""; 0], "{}", yard.node.log());
}

#[test]
fn nothing_that_was_reported_done_is_lost_when_other_names_are_taken_away() {
    let yard = Yard::open();
    let lost = yard.cross(&ALL, |round| {
        let name = format!("passing:{}", round % 3);
        vec![
            yard.node.slipway(&["tag", BASE, &name]),
            yard.node.slipway(&["untag", &name]),
            yard.node.slipway(&["prune"]),
        ]
    });
    assert_eq!(lost, [""; 0], "{}", yard.node.log());
}

/// Does something while another client prunes again and again.
fn beside_prunes(node: &Node, work: impl FnOnce()) {
    /// Ends the prunes, also when the work has panicked.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pruning = scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let _ = node.slipway(&["prune"]).ok();
            }
        });
        let ends = Over(&over);
        work();
        drop(ends);
        pruning.join().expect("the prunes");
    });
}

/// Each build moves the name from the image of the build before, which a prune then takes: never the one that has it now.
#[test]
fn a_name_that_builds_move_is_always_that_of_the_last_one() {
    let node = Node::start();
    node.build(BASE, "");
    let mut wrong = Vec::new();
    beside_prunes(&node, || {
        for number in 0..3 * TIMES {
            let context = Context::new(&format!("FROM {BASE}\nCMD [\"echo\", \"{number}\"]\n"));
            let _ = built(&node, &context, &["-t", "moving:1"]);
            let run = node.slipway(&["run", "--rm", "--network", "host", "moving:1"]);
            if run.status != 0 || run.stdout.trim() != number.to_string() {
                wrong.push(format!("{number}: {run:?}"));
            }
        }
    });
    assert_eq!(wrong, [""; 0], "{}", node.log());
}

/// A prune of all takes what was there, unused, when it began. What is built, tagged or pulled from then on stays.
#[test]
fn what_is_made_or_named_while_a_prune_of_all_runs_stays() {
    let node = Node::start();
    node.build(BASE, "");
    let _ =
        node.slipway(&["run", "-d", "--network", "host", "--name", "keeper", BASE, "sleep", "100000"]).ok();
    let registry = Scripted::start();
    let count = 150;
    for number in 0..count {
        registry.hold(&cargo(number), "fleet/cargo", &number.to_string());
        let _ = node.slipway(&["pull", &registry.name(&format!("fleet/cargo:{number}"))]).ok();
    }
    let images = || node.slipway(&["images", "-q"]).ok().lines().map(str::to_owned).collect::<Vec<_>>();
    let (before, mut done) = (images().len(), Vec::new());
    std::thread::scope(|scope| {
        let pruning = scope.spawn(|| node.slipway(&["prune", "-a"]));
        while images().len() >= before {
            assert!(!pruning.is_finished(), "nothing was pruned");
        }
        let mut number = 0;
        while !pruning.is_finished() {
            number += 1;
            let left = images();
            let name = format!("late:{number}");
            if let Some(last) = left.iter().max()
                && node.slipway(&["tag", last, &name]).status == 0
            {
                done.push(name);
            }
            let context = Context::new(&format!("FROM {BASE}\nLABEL late={number}\n"));
            let name = format!("late-build:{number}");
            let _ = built(&node, &context, &["-t", &name]);
            done.push(name);
            let name = registry.name(&format!("fleet/cargo:{number}"));
            let _ = node.slipway(&["pull", &name]).ok();
            done.push(name);
        }
        let _ = pruning.join().expect("the prune").ok();
    });
    // The last ones may have been named when the prune was over; those before were not.
    assert!(done.len() > 3, "the prune was over too soon: {done:?}");
    let lost: Vec<_> = done.iter().filter(|name| node.crictl(&["inspecti", name]).status != 0).collect();
    assert_eq!(lost, Vec::<&String>::new(), "of {}: {}", done.len(), node.log());
}

/// A foreground run whose container has ended is not done before its client has all that it said, and how it ended.
#[test]
fn a_run_beside_prunes_hears_its_output_and_its_status() {
    let node = Node::start();
    node.build(BASE, "");
    let mut wrong = Vec::new();
    beside_prunes(&node, || {
        for number in 0..3 * TIMES {
            let script = format!("echo {number}; exit 7");
            let run = node.slipway(&["run", "--network", "host", BASE, "sh", "-c", &script]);
            if (run.status, run.stdout.trim()) != (7, number.to_string().as_str()) {
                wrong.push(format!("{run:?}"));
            }
        }
    });
    assert_eq!(wrong, [""; 0], "{}", node.log());
}

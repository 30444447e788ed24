//! Each case of `tests/dockerfiles` makes the image that BuildKit makes of it: its settings and its files. The expected
//! images were recorded from BuildKit; where Slipway's is another on purpose, the case has both.
//!
//! With BuildKit at hand (`SLIPWAY_RIVALS=$(tests/peers/build rivals)`) the ignored test checks the recorded images
//! against it; with `SLIPWAY_RECORD=1` it writes them.

use std::path::{Path, PathBuf};

use serde_json::Value;
use slipway_tests::buildkit::Buildkit;
use slipway_tests::case::{self, Case};
use slipway_tests::{Node, image, skip};

/// The settings and files of an image of Slipway's store.
fn stored(node: &Node, name: &str) -> (Value, image::Files) {
    let id = node.crictl(&["inspecti", "-q", name]).json()["status"]["id"].clone();
    let hex = |id: &Value| id.as_str().expect("an id")["sha256:".len()..].to_owned();
    let blob = std::fs::read(node.path("lib/blobs/sha256").join(hex(&id))).expect("a configuration");
    let config: Value = serde_json::from_slice(&blob).expect("JSON");
    let layers = config["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default();
    let layers: Vec<PathBuf> =
        layers.iter().map(|id| node.path("lib/layers").join(hex(id)).join("fs")).collect();
    (config["config"].clone(), image::files(&layers))
}

/// Slipway's result for a case, and its output.
fn made(node: &Node, case: &Case, base: &image::Files) -> (String, String) {
    let context = tempfile::tempdir_in("/var/tmp").expect("a directory for the context");
    case.make_context(context.path());
    let directory = context.path().display().to_string();
    for (name, file) in case.bases() {
        let output = node.slipway(&["build", "-t", &name, "-f", &format!("{directory}/{file}"), &directory]);
        if output.status != 0 {
            return (format!("{name} fails\n"), output.stderr);
        }
    }
    let arguments = case.arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = node
        .slipway(&[&["build", "--no-cache", "-t", "case:1"], arguments.as_slice(), &[&directory]].concat());
    if output.status != 0 {
        return ("fails\n".to_owned(), output.stderr);
    }
    let (config, files) = stored(node, "case:1");
    (image::text(&config, &files, base), output.stderr)
}

/// The lines that only one of two texts has.
fn difference(ours: &str, expected: &str) -> String {
    let only = |text: &str, other: &str, mark: &str| {
        let lines = text.lines().filter(|line| !other.lines().any(|known| known == *line));
        lines.map(|line| format!("  {mark} {line}\n")).collect::<String>()
    };
    only(expected, ours, "-") + &only(ours, expected, "+")
}

fn agree(group: &str) {
    let node = Node::start();
    node.build("busybox:1", "");
    let base = stored(&node, "busybox:1").1;
    let mut wrong = String::new();
    for case in Case::group(group) {
        let (image, said) = made(&node, &case, &base);
        if image != case.image() {
            let why = said.trim().lines().last().unwrap_or_default();
            wrong += &format!("{}: {why}\n{}", case.name(), difference(&image, case.image()));
        }
    }
    assert!(wrong.is_empty(), "- expected, + made\n{wrong}");
}

#[test]
fn the_image_is_the_one_that_buildkit_makes_of_wildcards_and_links() {
    agree("sources");
}

#[test]
fn the_image_is_the_one_that_buildkit_makes_of_a_dockerignore() {
    agree("ignore");
}

#[test]
fn the_image_is_the_one_that_buildkit_makes_of_the_environment() {
    agree("environment");
}

#[test]
fn the_image_is_the_one_that_buildkit_makes_of_modes_and_owners() {
    agree("owners");
}

#[test]
fn the_image_is_the_one_that_buildkit_makes_of_archives() {
    agree("archives");
}

#[test]
fn the_image_is_the_one_that_buildkit_makes_of_triggers() {
    agree("triggers");
}

#[test]
fn the_image_is_the_one_that_buildkit_makes_of_heredocs() {
    agree("heredocs");
}

#[test]
fn the_image_is_the_one_that_buildkit_makes_of_settings() {
    agree("settings");
}

fn judged(buildkit: &Buildkit, case: &Case) -> String {
    let folder = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let context = folder.path().join("context");
    std::fs::create_dir(&context).expect("a context");
    case.make_context(&context);
    let into = |name: &str| Path::new(folder.path()).join(name);
    for (name, file) in case.bases() {
        if let Err(said) = buildkit.image(&context, &file, &[], &into(&name)) {
            eprintln!("{}: {name}: {said}", case.name());
            return format!("{name} fails\n");
        }
    }
    match buildkit.image(&context, "Dockerfile", &case.arguments(), &into("image")) {
        Ok(text) => text,
        Err(said) => {
            eprintln!("{}: {}", case.name(), said.trim().lines().last().unwrap_or_default());
            "fails\n".to_owned()
        }
    }
}

#[test]
#[ignore = "it needs BuildKit, whose build takes minutes: tests/nightly"]
fn the_recorded_images_are_those_that_buildkit_makes() {
    let Some(buildkit) = Buildkit::start() else {
        return skip("the_recorded_images_are_those_that_buildkit_makes", "BuildKit");
    };
    let record = std::env::var_os("SLIPWAY_RECORD").is_some();
    let only = std::env::var("SLIPWAY_CASES").unwrap_or_default();
    let groups = std::fs::read_dir(case::folder()).expect("the groups");
    let mut wrong = String::new();
    for group in groups.map(|entry| entry.expect("a group").file_name()) {
        for mut case in Case::group(&group.to_string_lossy()) {
            if !case.name().contains(&only) {
                continue;
            }
            let image = judged(&buildkit, &case);
            if record {
                case.record(&image);
            } else if image != case.of_buildkit() {
                wrong += &format!("{}:\n{}", case.name(), difference(&image, case.of_buildkit()));
            }
        }
    }
    assert!(wrong.is_empty(), "- recorded, + made\n{wrong}");
}

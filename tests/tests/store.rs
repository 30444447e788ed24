//! The store on disk: what is damaged is found and mended, and work on it from all sides at once leaves it whole.

use slipway_tests::artifact::{Artifact, digest};
use slipway_tests::tarball::Tarball;
use slipway_tests::{Node, Output, Registry, Scripted, tree};
use std::path::PathBuf;
use std::process::Stdio;

/// A node with one pulled image of two layers, and where it came from.
struct Hold {
    node: Node,
    registry: Scripted,
    artifact: Artifact,
    name: String,
}

impl Hold {
    fn load() -> Self {
        let (node, registry) = (Node::start(), Scripted::start());
        let artifact = Artifact::of(&[
            Tarball::new().directory("etc/").file("etc/motd", b"ahoy\n").end(),
            Tarball::new().directory("hold/").file("hold/cargo", &[7; 50_000]).end(),
        ]);
        registry.hold(&artifact, "fleet/app", "1");
        let name = registry.name("fleet/app:1");
        let _ = node.crictl(&["pull", &name]).ok();
        Self { node, registry, artifact, name }
    }

    fn layer(&self, at: usize) -> PathBuf {
        self.node.path("lib/layers").join(&digest(&self.artifact.layers[at])["sha256:".len()..])
    }

    fn blob(&self, bytes: &[u8]) -> PathBuf {
        self.node.path("lib/blobs/sha256").join(&digest(bytes)["sha256:".len()..])
    }

    fn image(&self) -> PathBuf {
        self.node.path("lib/images").join(&self.artifact.id()["sha256:".len()..])
    }

    fn layers(&self) -> usize {
        std::fs::read_dir(self.node.path("lib/layers")).expect("the layers").count()
    }

    fn check(&self) -> Output {
        self.node.slipway(&["check"])
    }

    /// The check finds this path wrong, the repair mends it, and nothing is wrong any more.
    #[track_caller]
    fn is_mended(&self, path: &str) {
        let found = self.check();
        assert_eq!(found.status, 1, "{found:#?}");
        assert!(found.stdout.contains(path), "{path}: {found:#?}");
        let mended = self.node.slipway(&["check", "--repair"]);
        assert!(mended.ok().contains("(mended)"), "{mended:#?}");
        self.is_well();
    }

    #[track_caller]
    fn is_well(&self) {
        let again = self.check();
        assert_eq!(again.ok(), "", "{again:#?}");
        assert!(self.node.crictl(&["images"]).ok().contains("fleet/app"));
        assert_eq!(
            std::fs::read(self.layer(1).join("fs/hold/cargo")).expect("the cargo is there"),
            [7; 50_000]
        );
        let _ = self.node.slipway(&["prune"]).ok();
    }
}

#[test]
fn a_layer_whose_files_changed_is_fetched_again() {
    let hold = Hold::load();
    hold.is_well();
    let cargo = hold.layer(1).join("fs/hold/cargo");
    std::fs::write(&cargo, "rats").expect("the cargo is spoilt");
    hold.is_mended(&hold.layer(1).display().to_string());
    std::fs::remove_file(&cargo).expect("the cargo is lost");
    hold.is_mended(&hold.layer(1).display().to_string());
    std::fs::write(hold.layer(1).join("skeleton"), "bones").expect("the skeleton is broken");
    hold.is_mended(&hold.layer(1).display().to_string());
    // The whole layer was fetched for each, the other one never again.
    let fetched = |at: usize| {
        let path = slipway_tests::scripted::blob_path("fleet/app", &hold.artifact.layers[at]);
        hold.registry.seen_at(&path).len()
    };
    assert_eq!((fetched(0), fetched(1)), (1, 4));
}

#[test]
fn a_damaged_layer_is_also_mended_by_a_pull_and_refused_until_then() {
    let hold = Hold::load();
    std::fs::write(hold.layer(1).join("fs/hold/cargo"), "rats").expect("the cargo is spoilt");
    let manifest = format!("/v2/fleet/app/manifests/{}", digest(&hold.artifact.manifest_bytes()));
    hold.registry.answer(&manifest, vec![slipway_tests::scripted::Answer::status("403 Forbidden")]);
    let failed = hold.node.slipway(&["check", "--repair"]);
    assert_eq!(failed.status, 1, "{failed:#?}");
    assert!(failed.stdout.contains("can't be fetched again") && failed.stdout.contains("403"), "{failed:#?}");
    let refused = hold.node.slipway(&["run", "-d", &hold.name, "/x"]);
    assert!(refused.error().contains("pull the image again"), "{refused:#?}");
    let _ = hold.node.crictl(&["pull", &hold.name]).ok();
    hold.is_well();
}

#[test]
fn objects_and_records_that_changed_are_made_again() {
    let mut hold = Hold::load();
    for bytes in [hold.artifact.manifest_bytes(), hold.artifact.config.clone()] {
        std::fs::write(hold.blob(&bytes), "{}").expect("an object is spoilt");
        hold.is_mended(&hold.blob(&bytes).display().to_string());
    }
    // The layers' records come from their files, without a registry.
    let before = hold.registry.seen().len();
    let record = hold.layer(0).join("record");
    let good = std::fs::read(&record).expect("the record is read");
    std::fs::write(&record, "{").expect("the record is spoilt");
    hold.node.kill();
    hold.node.launch();
    hold.is_mended(&record.display().to_string());
    assert_eq!(hold.registry.seen().len(), before);
    let again = std::fs::read(&record).expect("the record is read");
    for field in ["diff_id", "size", "kept"] {
        let value = |bytes: &[u8]| {
            let body = bytes.splitn(3, |byte| *byte == b'\n').last().expect("a body");
            serde_json::from_slice::<serde_json::Value>(body).expect("JSON")[field].clone()
        };
        assert_eq!(value(&good), value(&again));
    }
    // The image's configuration, of which a new daemon knows only that it is broken, also with the image's record.
    let (image, config) = (hold.image(), hold.blob(&hold.artifact.config));
    for paths in [&[&config][..], &[&config, &image]] {
        hold.node.kill();
        for path in paths {
            std::fs::write(path, "{").expect("it is spoilt");
        }
        hold.node.launch();
        let _ = hold.node.slipway(&["prune"]).ok();
        hold.is_mended(&paths.last().expect("a path").display().to_string());
    }
    // The image's own record comes from its configuration, at once.
    hold.node.kill();
    std::fs::write(&image, "{").expect("it is spoilt");
    hold.node.launch();
    assert!(hold.check().ok().contains(&image.display().to_string()), "{}", hold.node.log());
    let digests = hold.node.crictl(&["inspecti", &hold.name]).json()["status"]["repoDigests"].clone();
    assert!(digests[0].as_str().is_some_and(|text| text.contains(&digest(&hold.artifact.manifest_bytes()))));
    hold.node.kill();
    hold.node.launch();
    hold.is_well();
    // A layer that is gone altogether.
    hold.node.kill();
    std::fs::remove_dir_all(hold.layer(1)).expect("the layer is lost");
    hold.node.launch();
    hold.is_mended(&image.display().to_string());
    // A record that is only a cache goes.
    hold.node.kill();
    let cache = hold.node.path("lib/build-cache").join("0".repeat(64));
    std::fs::write(&cache, "{").expect("a record of no sense");
    hold.node.launch();
    hold.is_mended(&cache.display().to_string());
    assert!(!cache.exists());
}

/// One damaged record switched garbage collection off, and no command removed it.
#[test]
fn a_collection_goes_on_around_what_is_damaged_and_keeps_what_it_could_refer_to() {
    let mut hold = Hold::load();
    hold.node.kill();
    for path in [hold.image(), hold.blob(&hold.artifact.config)] {
        std::fs::write(path, "{").expect("it is spoilt");
    }
    hold.node.launch();
    let before = hold.layers();
    let context = slipway_tests::build::Context::new("FROM scratch\nCOPY new /new\n").file("new", "new");
    let _ = slipway_tests::build::built(&hold.node, &context, &["-t", "made:1"]);
    assert_eq!(hold.layers(), before + 1);
    let _ = hold.node.slipway(&["prune", "-a"]).ok();
    assert_eq!(hold.layers(), before, "what came later is collected, what was there is kept");
    let _ = hold.node.slipway(&["rmi", "-f", &hold.name]).ok();
    let _ = hold.node.slipway(&["prune"]).ok();
    assert_eq!((hold.layers(), hold.check().ok()), (0, ""));
}

#[test]
fn an_image_whose_name_is_damaged_stays_and_has_it_again_by_a_pull_or_a_tag() {
    let mut hold = Hold::load();
    let refs = hold.node.path("lib/refs");
    let only = || std::fs::read_dir(&refs).expect("the tags").flatten().next().expect("a tag").path();
    for by_pull in [true, false] {
        hold.node.kill();
        let path = only();
        let whole = std::fs::read(&path).expect("the tag");
        std::fs::write(&path, &whole[..whole.len() - 1]).expect("it is cut");
        hold.node.launch();
        let _ = hold.node.slipway(&["prune"]).ok();
        assert!(hold.check().stdout.contains(&path.display().to_string()), "{}", hold.node.log());
        if by_pull {
            let _ = hold.node.crictl(&["pull", &hold.name]).ok();
        } else {
            let _ = hold.node.slipway(&["tag", &hold.artifact.id(), &hold.name]).ok();
        }
        hold.is_well();
    }
    // A name that was copied to another's place is not believed.
    hold.node.kill();
    let other = refs.join("0".repeat(64));
    std::fs::copy(only(), &other).expect("it is copied");
    hold.node.launch();
    assert!(hold.check().stdout.contains(&format!("{}: ", other.display())), "{}", hold.node.log());
    let _ = hold.node.slipway(&["check", "--repair"]).ok();
    assert!(!other.exists());
    hold.is_well();
}

/// A repair asked a registry called localhost for what was built here.
#[test]
fn what_was_built_here_is_not_asked_of_any_registry_and_can_be_removed() {
    let mut node = Node::start();
    node.build("localhost/boat:1", "");
    let id = node.crictl(&["inspecti", "localhost/boat:1"]).json()["status"]["id"].clone();
    let id = id.as_str().expect("an id")["sha256:".len()..].to_owned();
    for both in [false, true] {
        node.kill();
        std::fs::write(node.path(format!("lib/blobs/sha256/{id}")), "{").expect("it is spoilt");
        if both {
            std::fs::write(node.path(format!("lib/images/{id}")), "{").expect("it is spoilt");
        }
        node.launch();
        let failed = node.slipway(&["check", "--repair"]);
        assert_eq!(failed.status, 1, "{failed:#?}");
        assert!(failed.stdout.contains("rmi -f") && !failed.stdout.contains("refused"), "{failed:#?}");
        let _ = node.slipway(&["rmi", "-f", "localhost/boat:1"]).ok();
        assert_eq!(node.slipway(&["check"]).ok(), "");
        node.build("localhost/boat:1", "");
        assert_eq!(node.slipway(&["run", "--rm", "localhost/boat:1", "echo", "afloat"]).ok(), "afloat");
    }
    let _ = node.slipway(&["prune", "-a"]).ok();
}

#[test]
fn a_layer_in_use_or_built_here_is_reported_and_kept() {
    let node = Node::start();
    // One context for both builds: the second makes the very layer that is damaged.
    let context = tempfile::tempdir().expect("a context");
    slipway_tests::busybox::context(context.path(), "");
    let build = ["build", "-t", "busybox:1", &context.path().display().to_string()].map(str::to_owned);
    let build = build.each_ref().map(String::as_str);
    let _ = node.slipway(&build).ok();
    let id = node.slipway(&["run", "-d", "--name", "ship", "busybox:1", "sleep", "1000"]).ok().to_owned();
    let passwd = std::process::Command::new("find")
        .arg(node.path("lib/layers"))
        .args(["-path", "*/fs/etc/group"])
        .output()
        .expect("find runs");
    let path = PathBuf::from(String::from_utf8_lossy(&passwd.stdout).trim());
    std::fs::write(&path, "rats").expect("a file is spoilt");
    let kept = node.slipway(&["check", "--repair"]);
    assert_eq!(kept.status, 1, "{kept:#?}");
    assert!(kept.stdout.contains("in use") && !kept.stdout.contains("mended"), "{kept:#?}");
    assert!(path.exists());
    let _ = node.slipway(&["rm", "-f", &id]).ok();
    let lost = node.slipway(&["check", "--repair"]);
    assert_eq!(lost.status, 1, "{lost:#?}");
    assert!(lost.stdout.contains("build its images again"), "{lost:#?}");
    let refused = node.slipway(&["run", "busybox:1", "true"]);
    assert!(refused.error().contains("damaged"), "{refused:#?}");
    let _ = node.slipway(&build).ok();
    assert_eq!(node.slipway(&["run", "--rm", "busybox:1", "grep", "-c", "root", "/etc/group"]).ok(), "1");
    assert_eq!(node.slipway(&["check"]).ok(), "");
    let _ = node.slipway(&["prune", "-a"]).ok();
}

#[test]
fn pulls_builds_and_prunes_at_once_leave_the_store_whole() {
    let (node, registry) = (Node::start(), Registry::start());
    let name = registry.name("fleet/busybox:1");
    node.build(&name, "");
    let _ = node.slipway(&["push", &name]).ok();
    let context = tempfile::tempdir().expect("a context");
    std::fs::write(context.path().join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /\n")
        .expect("a Dockerfile");
    let context = context.path().display().to_string();
    let run = |arguments: &[&str]| {
        let mut command = node.command();
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
        (arguments.join(" "), command.spawn().expect("it starts"))
    };
    for round in 0..4 {
        let tag = format!("made:{round}");
        let together = [
            run(&["pull", &name]),
            run(&["prune", "-a"]),
            run(&["build", "-t", &tag, &context]),
            run(&["pull", &name]),
            run(&["prune"]),
        ];
        for (what, child) in together {
            let output = child.wait_with_output().expect("it ends");
            // An image that a prune of all took between its pull and its answer is told to be gone, and nothing else.
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() || error.contains("is not here"), "{what}: {error}");
        }
    }
    let _ = node.crictl(&["pull", &name]).ok();
    assert_eq!(node.slipway(&["check"]).ok(), "");
    assert_eq!(node.slipway(&["run", "--rm", &name, "echo", "ahoy"]).ok(), "ahoy");
    let _ = node.slipway(&["prune", "-a"]).ok();
    for folder in
        ["layers", "images", "refs", "drafts", "trash", "blobs/sha256", "blobs/partial", "build-cache"]
    {
        assert_eq!(tree::tree(&node.path("lib").join(folder)).len(), 0, "{folder}");
    }
}

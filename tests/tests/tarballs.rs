//! Images whose layers other tools made: pulled, their blobs dropped, every tar made again bit for bit from the files, and
//! pushed elsewhere with the digests that they had.

use serde_json::json;
use slipway_tests::artifact::{self, Artifact, digest, gzip, zstd};
use slipway_tests::tarball::Tarball;
use slipway_tests::{Node, Output, Registry, Scripted};
use std::path::Path;
use std::process::Command;

/// A tree with all that a tar can say: long names, links, a hole, a device, a pipe, modes, owners, times, attributes.
fn make_tree(top: &Path) {
    let script = r"
        set -e
        umask 022
        mkdir -p deep/a-name-that-is-rather-long/and-another-one-below-it/and-still-one-more-so-that-no-header-holds-it-all/end
        echo far >deep/a-name-that-is-rather-long/and-another-one-below-it/and-still-one-more-so-that-no-header-holds-it-all/end/file
        mkdir -p etc sticky; chmod 1777 sticky
        echo ahoy >etc/motd; ln etc/motd etc/same; ln -s ../etc/motd etc/link
        ln -s /$(printf 'long/%.0s' $(seq 40)) etc/long-link
        head -c 300000 /dev/urandom >data; : >empty; printf x >one
        truncate -s 2M hole; printf middle >>hole; truncate -s 4M hole; printf end >>hole
        mkfifo pipe; mknod null c 1 3; mknod disk b 7 200
        printf 'bad\377name' >weird; touch $(printf 'caf\303\251')
        chmod 4755 one; chown 1000:1001 data; chown 3000000:3000001 empty
        touch -d '2001-02-03 04:05:06.789012345' data; touch -d '1969-12-31 00:00:00' etc/motd
        touch -d '2001-02-03 04:05:06' etc sticky
    ";
    let output = Output::of(Command::new("bash").args(["-c", script]).current_dir(top));
    assert_eq!(output.status, 0, "{output:#?}");
}

fn run(program: &str, arguments: &[&str], top: &Path) -> Vec<u8> {
    let output = Command::new(program).args(arguments).current_dir(top).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Tars of one tree by several tools, each with its name.
fn tars(top: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let python = "import sys, tarfile\n\
        f = {'pax': tarfile.PAX_FORMAT, 'gnu': tarfile.GNU_FORMAT}[sys.argv[1]]\n\
        t = tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=f, errors='surrogateescape')\n\
        t.add('.')\nt.close()\n";
    let sparse = ["-c", "-S", "--format=pax", "-f", "-"];
    let plain = ["--exclude=./empty", "--exclude=./deep", "--exclude=./etc"];
    vec![
        ("gnu tar, gnu", run("tar", &["-c", "--format=gnu", "-f", "-", "."], top)),
        ("gnu tar, oldgnu", run("tar", &["-c", "--format=oldgnu", "-f", "-", "."], top)),
        ("gnu tar, pax", run("tar", &["-c", "--format=pax", "--xattrs", "-f", "-", "."], top)),
        (
            "gnu tar, ustar",
            run("tar", &[&["-c", "--format=ustar", "-f", "-"], &plain[..], &["."]].concat(), top),
        ),
        ("gnu tar, v7", run("tar", &["-c", "--format=v7", "-f", "-", "data", "one", "sticky"], top)),
        ("gnu tar, large blocks", run("tar", &["-c", "-b", "200", "-f", "-", "etc", "data"], top)),
        ("gnu tar, sparse gnu", run("tar", &["-c", "-S", "--format=gnu", "-f", "-", "hole", "data"], top)),
        ("gnu tar, sparse 0.0", run("tar", &[&sparse[..], &["--sparse-version=0.0", "hole"]].concat(), top)),
        ("gnu tar, sparse 0.1", run("tar", &[&sparse[..], &["--sparse-version=0.1", "hole"]].concat(), top)),
        ("gnu tar, sparse 1.0", run("tar", &[&sparse[..], &["--sparse-version=1.0", "hole"]].concat(), top)),
        ("gnu tar, absolute", run("tar", &["-c", "-P", "--transform=s,^,/,", "-f", "-", "data", "one"], top)),
        ("gnu tar, changed twice", {
            let mut twice = run("tar", &["-c", "-b", "1", "-f", "-", "data", "etc"], top);
            twice.truncate(twice.len() - 1024);
            [twice, run("tar", &["-c", "-b", "1", "-f", "-", "etc", "data", "one"], top)].concat()
        }),
        ("busybox tar", run("busybox", &["tar", "-c", "-f", "-", "data", "one", "etc", "sticky"], top)),
        ("python, pax", run("python3", &["-c", python, "pax"], top)),
        ("python, gnu", run("python3", &["-c", python, "gnu"], top)),
        (
            "by hand",
            Tarball::new()
                .directory("./")
                .file("./f", b"first")
                .hard_link("./h", "./f")
                .file("f", b"second")
                .file(".wh.gone", b"")
                .symlink("l", "f")
                .file("l", b"over a link")
                .directory("d//")
                .file("d/.wh..wh..opq", b"")
                .raw(&[0; 1024])
                .raw(b"what follows the end")
                .unfinished(),
        ),
    ]
}

/// The layers of an image here, their tars made again: by a push to a registry that has nothing yet.
fn comes_back(node: &Node, name: &str, artifact: &Artifact, what: &str) {
    let blobs = node.path("lib/blobs/sha256");
    for layer in &artifact.layers {
        assert!(!blobs.join(&digest(layer)["sha256:".len()..]).exists(), "{what}: the layer's blob was kept");
    }
    assert_eq!(node.slipway(&["check"]).ok(), "", "{what}");
    let registry = Registry::start();
    let target = registry.name("fleet/copy:1");
    let _ = node.slipway(&["tag", name, &target]).ok();
    let _ = node.slipway(&["push", &target]).ok();
    let manifest = run(
        "skopeo",
        &["inspect", "--raw", "--tls-verify=false", &format!("docker://{target}")],
        Path::new("/"),
    );
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("a manifest");
    assert_eq!(manifest["config"]["digest"], artifact.id(), "{what}");
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let copied = format!("dir:{}", folder.path().display());
    run(
        "skopeo",
        &["copy", "-q", "--src-tls-verify=false", &format!("docker://{target}"), &copied],
        Path::new("/"),
    );
    let diff_ids = artifact.diff_ids();
    for (layer, diff_id) in
        manifest["layers"].as_array().expect("layers").iter().zip(diff_ids.as_array().expect("diff ids"))
    {
        let blob = folder.path().join(&layer["digest"].as_str().expect("a digest")["sha256:".len()..]);
        let tar = run("gzip", &["-dc", &blob.display().to_string()], Path::new("/"));
        assert_eq!(json!(digest(&tar)), *diff_id, "{what}");
    }
    // And it comes back from there as the same image.
    let other = Node::start();
    assert!(other.crictl(&["pull", &target]).ok().contains(&artifact.id()), "{what}");
}

#[test]
fn the_tar_of_every_tool_is_made_again_bit_for_bit() {
    let (tree, node, registry) =
        (tempfile::tempdir_in("/var/tmp").expect("a tree"), Node::start(), Scripted::start());
    make_tree(tree.path());
    let made = tars(tree.path());
    for (what, tar) in &made {
        let artifact = Artifact::of(std::slice::from_ref(tar));
        registry.hold(&artifact, "fleet/one", "1");
        let name = registry.name("fleet/one:1");
        let pulled = node.crictl(&["pull", &name]);
        assert!(pulled.status == 0 && pulled.ok().contains(&artifact.id()), "{what}: {pulled:#?}");
        // The check makes every tar again and compares its digest with the diff id.
        let checked = node.slipway(&["check"]);
        assert_eq!(checked.ok(), "", "{what}");
        let _ = node.crictl(&["rmi", &name]).ok();
    }
    // All of them as one image, which travels on.
    let all: Vec<Vec<u8>> = made.into_iter().map(|(_, tar)| tar).collect();
    let artifact = Artifact::of(&all);
    registry.hold(&artifact, "fleet/all", "1");
    let name = registry.name("fleet/all:1");
    let _ = node.crictl(&["pull", &name]).ok();
    comes_back(&node, &name, &artifact, "all");
}

#[test]
fn what_was_unpacked_is_what_the_other_tool_packed() {
    let (tree, node, registry) =
        (tempfile::tempdir_in("/var/tmp").expect("a tree"), Node::start(), Scripted::start());
    make_tree(tree.path());
    let tar = run("tar", &["-c", "--format=pax", "-f", "-", "."], tree.path());
    let artifact = Artifact::of(std::slice::from_ref(&tar));
    registry.hold(&artifact, "fleet/tree", "1");
    let _ = node.crictl(&["pull", &registry.name("fleet/tree:1")]).ok();
    let files = node.path("lib/layers").join(&digest(&tar)["sha256:".len()..]).join("fs");
    let list = ["-mindepth", "1", "-printf", "%P|%y|%m|%U:%G|%n|%l|%T@|"];
    let sized = |top: &Path| {
        let text = run(
            "bash",
            &[
                "-c",
                &format!(
                    "find . {} -exec stat -c '%F %t:%T' {{}} ';' | sort",
                    list.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ")
                ),
            ],
            top,
        );
        String::from_utf8_lossy(&text).into_owned()
    };
    assert_eq!(sized(&files), sized(tree.path()));
    run(
        "diff",
        &[
            "-r",
            "--no-dereference",
            "-x",
            "pipe",
            "-x",
            "null",
            "-x",
            "disk",
            ".",
            &files.display().to_string(),
        ],
        tree.path(),
    );
}

#[test]
fn images_of_every_form_are_pulled_and_pushed_on() {
    let (node, registry) = (Node::start(), Scripted::start());
    let tar = |text: &str| Tarball::new().file(text, text.as_bytes()).end();
    let (one, two, three) = (tar("one"), tar("two"), tar("three"));
    let oci = Artifact::with(&[
        (&one, gzip(&one), "tar+gzip"),
        (&two, zstd(&two), "tar+zstd"),
        (&three, three.clone(), "tar"),
    ]);
    let docker = Artifact::with(&[(&two, gzip(&two), "tar+gzip"), (&one, gzip(&one), "tar+gzip")]).docker();
    registry.hold(&oci, "fleet/oci", "1");
    registry.hold(&docker, "fleet/docker", "1");
    let manifest = oci.manifest_bytes();
    let index = artifact::index(&manifest).to_string().into_bytes();
    registry.hold(&oci, "fleet/index", "old");
    for selector in ["1", "2", &digest(&index)] {
        let answer = slipway_tests::scripted::Answer::Document(artifact::OCI_INDEX, index.clone());
        registry.answer(&format!("/v2/fleet/index/manifests/{selector}"), vec![answer]);
    }
    for (name, artifact) in [
        ("fleet/oci:1", &oci),
        ("fleet/docker:1", &docker),
        ("fleet/index:1", &oci),
        ("fleet/index:2", &oci),
        (&format!("fleet/index@{}", digest(&index)), &oci),
        (&format!("fleet/oci@{}", digest(&manifest)), &oci),
    ] {
        assert!(node.crictl(&["pull", &registry.name(name)]).ok().contains(&artifact.id()), "{name}");
    }
    let image = node.crictl(&["inspecti", &oci.id()]).json()["status"].clone();
    assert_eq!(image["repoTags"].as_array().map(Vec::len), Some(3), "{image:#}");
    assert_eq!(image["repoDigests"].as_array().map(Vec::len), Some(2), "{image:#}");
    comes_back(&node, &registry.name("fleet/docker:1"), &docker, "docker");
    comes_back(&node, &registry.name("fleet/oci:1"), &oci, "oci");
}

#[test]
fn images_that_skopeo_and_umoci_made_come_and_go_unchanged() {
    let (tree, node) = (tempfile::tempdir_in("/var/tmp").expect("a tree"), Node::start());
    let layout = tree.path().join("layout");
    let image = format!("{}:one", layout.display());
    let bundle = tree.path().join("bundle").display().to_string();
    run("umoci", &["init", "--layout", &layout.display().to_string()], tree.path());
    run("umoci", &["new", "--image", &image], tree.path());
    for (round, text) in ["first", "second"].into_iter().enumerate() {
        let bundle = format!("{bundle}{round}");
        run("umoci", &["unpack", "--image", &image, &bundle], tree.path());
        let root = Path::new(&bundle).join("rootfs");
        std::fs::create_dir_all(root.join("etc")).expect("a directory");
        std::fs::write(root.join("etc").join(text), text).expect("a file");
        if round == 1 {
            std::fs::remove_file(root.join("etc/first")).expect("it is taken away");
        }
        run("umoci", &["repack", "--image", &image, &bundle], tree.path());
    }
    let registry = Registry::start();
    let name = registry.name("fleet/umoci:1");
    let upload =
        ["copy", "-q", "--dest-tls-verify=false", &format!("oci:{image}"), &format!("docker://{name}")];
    run("skopeo", &upload, tree.path());
    let raw = |name: &str| {
        run(
            "skopeo",
            &["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")],
            Path::new("/"),
        )
    };
    let before = raw(&name);
    let _ = node.crictl(&["pull", &name]).ok();
    assert_eq!(node.slipway(&["check"]).ok(), "");
    // Pushed into the same registry, where its blobs are, it is the very same manifest.
    let again = registry.name("fleet/umoci:2");
    let _ = node.slipway(&["tag", &name, &again]).ok();
    let _ = node.slipway(&["push", &again]).ok();
    assert_eq!(String::from_utf8_lossy(&raw(&again)), String::from_utf8_lossy(&before));
    // A build on top of it has its layers below, and travels.
    let context = tree.path().join("context");
    std::fs::create_dir(&context).expect("a context");
    std::fs::write(context.join("Dockerfile"), format!("FROM {name}\nCOPY Dockerfile /etc/\n"))
        .expect("a Dockerfile");
    let built = registry.name("fleet/built:1");
    let _ = node.slipway(&["build", "-t", &built, &context.display().to_string()]).ok();
    let _ = node.slipway(&["push", &built]).ok();
    let (base, top) = (before, raw(&built));
    let layers = |bytes: &[u8]| {
        serde_json::from_slice::<serde_json::Value>(bytes).expect("a manifest")["layers"].clone()
    };
    let (base, top) = (layers(&base), layers(&top));
    let digests = |layers: &serde_json::Value| -> Vec<serde_json::Value> {
        layers.as_array().into_iter().flatten().map(|layer| layer["digest"].clone()).collect()
    };
    assert_eq!(digests(&top)[..2], digests(&base));
    assert_eq!(digests(&top).len(), 3);
    let other = Node::start();
    let _ = other.crictl(&["pull", &built]).ok();
    assert_eq!(other.slipway(&["check"]).ok(), "");
}

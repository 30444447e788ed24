//! Images in forms that other tools write and other runtimes take: indexes within indexes, manifests without a platform,
//! attestations, whiteouts that hide nothing.

use serde_json::{Value, json};
use slipway_tests::artifact::{self, Artifact, OCI_INDEX, OCI_MANIFEST, descriptor, digest};
use slipway_tests::scripted::{Answer, blob_path};
use slipway_tests::tarball::Tarball;
use slipway_tests::{Node, Pod, Scripted, busybox, tree};
use std::process::Command;

const REPOSITORY: &str = "/v2/fleet/app/manifests";

fn tar(word: &str) -> Vec<u8> {
    Tarball::new().file("word", word.as_bytes()).end()
}

fn index(entries: &[Value]) -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).to_string().into_bytes()
}

fn nested(index: &[u8]) -> Value {
    descriptor(OCI_INDEX, index)
}

fn with_platform(mut entry: Value, os: &str, architecture: &str) -> Value {
    entry["platform"] = json!({"os": os, "architecture": architecture});
    entry
}

/// An image of another architecture by its configuration.
fn foreign() -> Artifact {
    let mut artifact = Artifact::of(&[tar("foreign")]);
    artifact.config =
        String::from_utf8_lossy(&artifact.config).replace(artifact::architecture(), "s390x").into_bytes();
    artifact.manifest["config"] = descriptor("application/vnd.oci.image.config.v1+json", &artifact.config);
    artifact
}

/// An attestation as BuildKit makes it: a manifest whose layers are no file systems.
fn attestation() -> Artifact {
    let mut artifact = Artifact::of(&[b"{\"statement\": true}".to_vec()]);
    artifact.config =
        String::from_utf8_lossy(&artifact.config).replace(artifact::architecture(), "unknown").into_bytes();
    artifact.manifest["config"] = descriptor("application/vnd.oci.image.config.v1+json", &artifact.config);
    artifact.manifest["layers"][0]["mediaType"] = json!("application/vnd.in-toto+json");
    artifact
}

/// Serves documents by their digests, the last also by the tag.
fn serve(registry: &Scripted, artifacts: &[&Artifact], indexes: &[&[u8]]) {
    for artifact in artifacts {
        let manifest = artifact.manifest_bytes();
        registry.answer(
            &format!("{REPOSITORY}/{}", digest(&manifest)),
            vec![Answer::Document(OCI_MANIFEST, manifest)],
        );
        for blob in artifact.layers.iter().chain([&artifact.config]) {
            registry.answer(&blob_path("fleet/app", blob), vec![Answer::Whole(blob.clone())]);
        }
    }
    for index in indexes {
        for selector in [digest(index), "1".to_owned()] {
            let answer = Answer::Document(OCI_INDEX, index.to_vec());
            registry.answer(&format!("{REPOSITORY}/{selector}"), vec![answer]);
        }
    }
}

fn entry(artifact: &Artifact) -> Value {
    descriptor(OCI_MANIFEST, &artifact.manifest_bytes())
}

/// Registries hold indexes of indexes, and indexes whose entries name no platform; both were refused.
#[test]
fn an_image_is_found_through_every_form_of_index() {
    let node = Node::start();
    let ours = Artifact::of(&[tar("ours")]);
    let (foreign, attestation) = (foreign(), attestation());
    let here = artifact::architecture();
    let inner = index(&[with_platform(entry(&ours), "linux", here)]);
    let elsewhere = index(&[with_platform(entry(&foreign), "linux", "s390x")]);
    let mut marked = with_platform(entry(&attestation), "unknown", "unknown");
    marked["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let mut unmarked = marked.clone();
    unmarked.as_object_mut().expect("an entry").remove("platform");
    let missing = descriptor(OCI_MANIFEST, b"not there");
    for (case, outer, inner) in [
        ("an index in an index", index(&[nested(&inner)]), Some(&inner)),
        ("one with a platform", index(&[with_platform(nested(&inner), "linux", here)]), Some(&inner)),
        ("several", index(&[nested(&elsewhere), nested(&inner)]), Some(&inner)),
        ("no platform", index(&[entry(&foreign), entry(&ours)]), None),
        ("no platform, attested", index(&[entry(&attestation), marked.clone(), entry(&ours)]), None),
        ("attested", index(&[marked.clone(), unmarked, with_platform(entry(&ours), "linux", here)]), None),
        ("one that is missing", index(&[missing, entry(&ours)]), None),
    ] {
        let registry = Scripted::start();
        let indexes: Vec<&[u8]> =
            [Some(&elsewhere), inner, Some(&outer)].into_iter().flatten().map(Vec::as_slice).collect();
        serve(&registry, &[&ours, &foreign, &attestation], &indexes);
        let name = registry.name("fleet/app:1");
        assert!(node.crictl(&["pull", &name]).ok().contains(&ours.id()), "{case}");
        // The digest of what was asked for leads to the image, and the store is whole.
        let by_digest = registry.name(&format!("fleet/app@{}", digest(&outer)));
        assert!(node.crictl(&["inspecti", &by_digest]).ok().contains(&ours.id()), "{case}");
        assert_eq!(node.slipway(&["check"]).ok(), "", "{case}");
        let _ = node.crictl(&["rmi", &name]).ok();
    }
}

/// A registry could keep a client busy for ever with indexes that lead to more indexes.
#[test]
fn indexes_without_end_are_refused() {
    let node = Node::start();
    let _ = node.crictl(&["version"]).ok();
    let before = tree::tree(&node.path("lib"));
    let mut deep = vec![index(&[entry(&foreign())])];
    for _ in 0..20 {
        let next = index(&[nested(deep.last().expect("an index"))]);
        deep.push(next);
    }
    let leaves: Vec<Vec<u8>> = (0..200)
        .map(|number| index(&[with_platform(entry(&foreign()), "linux", &format!("odd{number}"))]))
        .collect();
    let mut wide = leaves.clone();
    wide.push(index(&leaves.iter().map(|leaf| nested(leaf)).collect::<Vec<_>>()));
    for (indexes, words) in [(&deep, "deep"), (&wide, "more than 64 manifests")] {
        let registry = Scripted::start();
        serve(&registry, &[], &indexes.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let name = registry.name("fleet/app:1");
        let output = node.crictl(&["pull", &name]);
        for word in ["FailedPrecondition", words, &format!("image {name}: its manifest is not usable")] {
            assert!(output.error().contains(word), "{word}: {output:#?}");
        }
        assert!(registry.seen().len() <= 65, "{}", registry.seen().len());
        tree::assert_same(&node.path("lib"), &before, words);
    }
}

/// Overlayfs lists a directory that one layer alone has as it is: a whiteout in it that hides nothing, or that lies in an
/// opaque directory, was a name that `ls` showed and nothing could look up.
#[test]
fn a_listing_shows_no_name_that_a_whiteout_hides() {
    let node = Node::start();
    let context = tempfile::tempdir_in(node.path("")).expect("a context");
    busybox::context(context.path(), "");
    for name in ["sh", "ls", "rm", "grep", "mkdir", "touch"] {
        let link = context.path().join("root/bin").join(name);
        std::os::unix::fs::symlink("busybox", link).expect("a link to busybox");
    }
    let packed = Command::new("tar").args(["-c", "-C"]).arg(context.path().join("root")).arg(".").output();
    let base = packed.expect("tar runs").stdout;
    let lower =
        Tarball::new().directory("opaque/").file("opaque/old", b"").directory("both/").file("both/old", b"");
    let upper = Tarball::new()
        .directory("opaque/")
        .file("opaque/.wh.old", b"")
        .file("opaque/.wh..wh..opq", b"")
        .directory("opaque/sub/")
        .file("opaque/sub/.wh.nothing", b"")
        .file("opaque/new", b"")
        .directory("alone/")
        .file("alone/.wh.nothing", b"")
        .file("alone/new", b"")
        .directory("both/")
        .file("both/.wh.old", b"")
        .file("both/.wh.nothing", b"");
    let registry = Scripted::start();
    let artifact = Artifact::of(&[base, lower.end(), upper.end()]);
    registry.hold(&artifact, "fleet/app", "1");
    let name = registry.name("fleet/app:1");
    let _ = node.crictl(&["pull", &name]).ok();
    let _ = node.slipway(&["tag", &name, "busybox:1"]).ok();
    let pod = Pod::start(&node, "web", json!({}));
    let script = "for d in opaque opaque/sub alone both; do echo $d: $(ls -A /$d); done; ls -lR /opaque /alone /both >/dev/null; rm -r /alone /opaque && echo removed";
    assert_eq!(
        pod.says("list", script, json!({})),
        "opaque: new sub\nopaque/sub:\nalone: new\nboth:\nremoved\n"
    );
    // The same layer, made by a build, from an upper directory in which overlayfs made the whiteouts.
    let file = "FROM busybox:1\nRUN mkdir /d && touch /d/a /d/b\nRUN rm /d/a\nRUN rm -r /d && mkdir /d && touch /d/c\nRUN ls -l /d >/list 2>&1\n";
    let build = tempfile::tempdir_in(node.path("")).expect("a context");
    std::fs::write(build.path().join("Dockerfile"), file).expect("a Dockerfile");
    let _ = node.slipway(&["build", "-t", "busybox:1", &build.path().display().to_string()]).ok();
    let pod = Pod::start(&node, "built", json!({}));
    assert_eq!(pod.says("list", "ls -A /d; grep '?' /list; echo end", json!({})), "c\nend\n");
}

//! Images that lie, overflow or break: each is refused in one line that names the thing, by the proper code, and leaves
//! nothing; the daemon goes on.

use serde_json::json;
use slipway_tests::artifact::{self, Artifact, OCI_INDEX, digest, gzip, zstd};
use slipway_tests::scripted::{Answer, blob_path};
use slipway_tests::tarball::{Header, Tarball};
use slipway_tests::{Node, Scripted, tree};

const LIMITS: &str = "[image]\nmax_layer_entries = 50\nmax_layer_bytes = 4194304\n";

/// A node, a registry, and the store as it is before anything hostile came.
struct Harbour {
    node: Node,
    registry: Scripted,
    before: std::collections::BTreeSet<String>,
}

impl Harbour {
    fn open() -> Self {
        let node = Node::with(LIMITS);
        // An answer means that the daemon has made all that it makes at its start.
        let _ = node.crictl(&["version"]).ok();
        let before = tree::tree(&node.path("lib"));
        Self { node, registry: Scripted::start(), before }
    }

    /// Pulls what must be refused in these words, and finds nothing left of it.
    #[track_caller]
    fn refuses(&self, case: &str, words: &[&str]) {
        let name = self.registry.name("fleet/hostile:1");
        let output = self.node.crictl(&["pull", &name]);
        // crictl's own log repeats the error; its last line is what the person reads.
        let error = output.error().lines().last().unwrap_or_default().replace("\\\"", "\"");
        for word in words {
            assert!(error.contains(word), "{case}: {word:?} is not in: {error}");
        }
        let said = error.split("desc = ").nth(1).unwrap_or_default();
        assert!(
            said.starts_with(&format!("image {name}: ")),
            "{case}: the image is not named first: {error}"
        );
        assert!(error.len() < 1000, "{case}: {error}");
        tree::assert_same(&self.node.path("lib"), &self.before, case);
        assert_eq!(self.node.crictl(&["images", "-q"]).ok(), "", "{case}");
    }

    /// The same of an image whose last layer is what is wrong, which is named after the image.
    #[track_caller]
    fn refuses_layer(&self, case: &str, tar: &[u8], words: &[&str]) {
        self.serve_layer(tar);
        let named = format!(":1: layer {} ", digest(tar));
        self.refuses(case, &[&[named.as_str()], words].concat());
    }

    /// Serves an image of a good layer and a hostile one.
    fn serve_layer(&self, tar: &[u8]) {
        let artifact = Artifact::of(&[good(), tar.to_vec()]);
        self.registry.hold(&artifact, "fleet/hostile", "1");
    }

    fn serve(&self, artifact: &Artifact) {
        self.registry.hold(artifact, "fleet/hostile", "1");
    }

    /// After all that, a good image is pulled, and goes without a trace.
    fn goes_on(&self) {
        let artifact = Artifact::of(&[good()]);
        self.registry.hold(&artifact, "fleet/good", "1");
        let name = self.registry.name("fleet/good:1");
        let _ = self.node.crictl(&["pull", &name]).ok();
        let _ = self.node.crictl(&["rmi", &name]).ok();
        tree::assert_same(&self.node.path("lib"), &self.before, "a good image");
    }
}

fn good() -> Vec<u8> {
    Tarball::new().directory("etc/").file("etc/motd", b"ahoy\n").end()
}

#[test]
fn a_tar_that_leaves_its_root_is_refused_by_its_entry() {
    let harbour = Harbour::open();
    let outside = tempfile::tempdir().expect("a directory outside");
    let outside_name = outside.path().to_str().expect("a plain path");
    let cases: Vec<(&str, Tarball, &[&str])> = vec![
        ("..", Tarball::new().file("../escape", b"x"), &["\"../escape\"", "leaves the root"]),
        ("a/../..", Tarball::new().file("a/../../escape", b"x"), &["a/../../escape", "leaves the root"]),
        ("hard link ..", Tarball::new().hard_link("x", "../../etc/passwd"), &["\"x\"", "leaves the root"]),
        ("hard link /", Tarball::new().hard_link("x", "/etc/passwd"), &["\"x\"", "not there"]),
        ("hard link to nothing", Tarball::new().hard_link("x", "nothing"), &["\"x\"", "not there"]),
        (
            "through a link",
            Tarball::new().symlink("l", outside_name).file("l/escape", b"x"),
            &["FailedPrecondition"],
        ),
        ("a loop", Tarball::new().symlink("l", "l").file("l/x", b"x"), &["l/x", "loop"]),
        ("below a file", Tarball::new().file("f", b"x").file("f/x", b"x"), &["f/x", "no directory"]),
        ("a root that is a file", Tarball::new().file("./", b"x"), &["root"]),
    ];
    for (case, tar, words) in cases {
        if case == "through a link" {
            harbour.serve_layer(&tar.end());
            // The link is taken as inside the root: the file is made there, and nothing outside.
            let name = harbour.registry.name("fleet/hostile:1");
            let _ = harbour.node.crictl(&["pull", &name]).ok();
            assert_eq!(std::fs::read_dir(outside.path()).expect("it is read").count(), 0);
            let _ = harbour.node.crictl(&["rmi", &name]).ok();
            tree::assert_same(&harbour.node.path("lib"), &harbour.before, case);
            continue;
        }
        harbour.refuses_layer(case, &tar.end(), words);
    }
    harbour.goes_on();
}

#[test]
fn whiteouts_and_devices_that_would_hide_or_forge_are_refused() {
    let harbour = Harbour::open();
    let cases: Vec<(&str, Tarball, &[&str])> = vec![
        (".wh.", Tarball::new().file(".wh.", b""), &["\".wh.\"", "names no file"]),
        (".wh..", Tarball::new().file(".wh..", b""), &["\".wh..\"", "names no file"]),
        (".wh...", Tarball::new().file(".wh...", b""), &["\".wh...\"", "names no file"]),
        ("device 0:0", Tarball::new().node("dev", b'3', (0, 0)), &["\"dev\"", "0:0"]),
        (
            "a whiteout with data",
            Tarball::new().file(".wh.x", &[1; 10_000]),
            &["\".wh.x\"", "a whiteout has data"],
        ),
        (
            "a device over the range",
            Tarball::new().node("dev", b'3', (0o777_7777, 0o777_7777)),
            &["\"dev\"", "out of range"],
        ),
        ("a device cut to 0:0", Tarball::new().node("dev", b'3', (4096, 0)), &["\"dev\"", "out of range"]),
        ("an unknown type", Tarball::new().entry(Header::new("odd", b'Z'), b""), &["unknown type", "'Z'"]),
    ];
    for (case, tar, words) in cases {
        harbour.refuses_layer(case, &tar.end(), words);
    }
    harbour.goes_on();
}

#[test]
fn a_tar_that_is_broken_is_refused_by_what_is_wrong_with_it() {
    let harbour = Harbour::open();
    for (case, tar, words) in broken_blocks().into_iter().chain(broken_names()) {
        harbour.refuses_layer(case, &tar, words);
    }
    harbour.goes_on();
}

type Case = (&'static str, Vec<u8>, &'static [&'static str]);

fn broken_blocks() -> Vec<Case> {
    let mut wrong_sum = Tarball::new().file("f", b"content").end();
    wrong_sum[0] ^= 1;
    vec![
        ("a wrong checksum", wrong_sum, &["checksum"]),
        (
            "cut within data",
            Tarball::new().file("f", &[7; 4000]).unfinished()[..2000].to_vec(),
            &["ends within"],
        ),
        ("cut within a header", Tarball::new().file("f", b"").unfinished()[..300].to_vec(), &["ends within"]),
        ("noise", vec![0x41; 2048], &["checksum"]),
        (
            "a size beyond all",
            Tarball::new()
                .raw(&Header { size: u64::MAX >> 1, ..Header::new("f", b'0') }.block())
                .raw(&[0; 4096])
                .end(),
            &["FailedPrecondition"],
        ),
        (
            "a huge PAX header",
            Tarball::new()
                .raw(&Header { size: 3 << 20, ..Header::new("pax", b'x') }.block())
                .raw(&vec![b'0'; 3 << 20])
                .file("f", b"")
                .end(),
            &["PAX", "3145728", "1048576"],
        ),
        (
            "malformed PAX",
            Tarball::new().entry(Header::new("pax", b'x'), b"99 path=x\n").file("f", b"").end(),
            &["PAX", "malformed"],
        ),
    ]
}

fn broken_names() -> Vec<Case> {
    let long = "d/".repeat(2100);
    vec![
        ("PAX without an entry", Tarball::new().pax(&[("path", b"x")]).end(), &["PAX", "no entry"]),
        (
            "a path too long",
            Tarball::new().pax(&[("path", long.as_bytes())]).file("f", b"").end(),
            &["4200 bytes", "4095"],
        ),
        (
            "a name too long",
            Tarball::new().pax(&[("path", &[b'n'; 300])]).file("f", b"").end(),
            &["300 bytes", "255"],
        ),
        ("a NUL in a name", Tarball::new().pax(&[("path", b"a\0b")]).file("f", b"").end(), &["NUL"]),
        (
            "an owner out of range",
            Tarball::new().pax(&[("uid", b"99999999999")]).file("f", b"").end(),
            &["99999999999", "out of range"],
        ),
        (
            "a sparse file whose parts overlap",
            Tarball::new()
                .pax(&[("GNU.sparse.size", b"100"), ("GNU.sparse.map", b"0,4,2,4")])
                .file("f", b"12345678")
                .end(),
            &["sparse", "overlap"],
        ),
        (
            "a sparse file of an absurd size",
            Tarball::new()
                .pax(&[("GNU.sparse.size", b"9223372036854775807"), ("GNU.sparse.map", b"0,4")])
                .file("f", b"1234")
                .end(),
            &["4194304 bytes"],
        ),
        (
            "a sparse file without the map that it promises",
            Tarball::new()
                .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")])
                .file("f", b"9999999\n")
                .end(),
            &["sparse", "less data than its map"],
        ),
        (
            "data after the end",
            Tarball::new().file("f", b"").raw(&[0; 512]).file("g", b"").end(),
            &["zero block"],
        ),
    ]
}

#[test]
fn attributes_that_a_file_cannot_have_name_the_entry() {
    let harbour = Harbour::open();
    let large = vec![b'v'; 100_000];
    let cases: Vec<(&str, Tarball)> = vec![
        ("a value too large", Tarball::new().pax(&[("SCHILY.xattr.user.x", &large)]).file("l", b"")),
        (
            "capabilities that are none",
            Tarball::new().pax(&[("SCHILY.xattr.security.capability", b"xx")]).file("l", b""),
        ),
        ("a name of nothing", Tarball::new().pax(&[("SCHILY.xattr.", b"v")]).file("l", b"")),
    ];
    for (case, tar) in cases {
        harbour.serve_layer(&tar.end());
        harbour.refuses(case, &["FailedPrecondition", "entry \"l\"", "attribute"]);
    }
    // Overlayfs' own attributes are dropped, never set; a link has no attributes of users.
    let forged = Tarball::new()
        .pax(&[("SCHILY.xattr.user.x", b"v")])
        .symlink("l", "t")
        .pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")])
        .directory("d/");
    harbour.serve_layer(&forged.end());
    let name = harbour.registry.name("fleet/hostile:1");
    let _ = harbour.node.crictl(&["pull", &name]).ok();
    let output = std::process::Command::new("find")
        .arg(harbour.node.path("lib/layers"))
        .args(["-name", "d", "-type", "d"])
        .output()
        .expect("find runs");
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let mut names = [0_u8; 4096];
    let count = rustix::fs::llistxattr(&path, &mut names).expect("attributes are listed");
    assert!(!String::from_utf8_lossy(&names[..count]).contains("redirect"));
    let _ = harbour.node.crictl(&["rmi", &name]).ok();
    harbour.goes_on();
}

#[test]
fn more_than_the_limits_is_refused_with_the_numbers() {
    let harbour = Harbour::open();
    let many = (0..51).fold(Tarball::new(), |tar, number| tar.file(&format!("f{number}"), b"")).end();
    harbour.serve_layer(&many);
    harbour.refuses("entries", &["FailedPrecondition", "more than 50 entries"]);

    let bomb = Tarball::new().file("zeros", &vec![0; 64 << 20]).end();
    for (form, blob) in [("tar+gzip", gzip(&bomb)), ("tar+zstd", zstd(&bomb))] {
        assert!(blob.len() < 1 << 20);
        harbour.serve(&Artifact::with(&[(&bomb, blob, form)]));
        harbour.refuses(form, &["FailedPrecondition", "more than 4194304 bytes"]);
    }
    // Nothing but what follows the end.
    let trailing = [Tarball::new().end(), vec![0; 64 << 20]].concat();
    harbour.serve(&Artifact::with(&[(&trailing, gzip(&trailing), "tar+gzip")]));
    harbour.refuses("padding", &["FailedPrecondition", "more than 4194304 bytes"]);
    harbour.goes_on();
}

#[test]
fn what_differs_from_its_digest_or_size_is_refused() {
    let harbour = Harbour::open();
    let whole = Artifact::of(&[good(), Tarball::new().file("data", &[7; 100_000]).end()]);
    let reset = || harbour.serve(&whole);
    let layer = whole.layers[1].clone();
    let path = blob_path("fleet/hostile", &layer);

    reset();
    let mut altered = layer.clone();
    altered[5000] ^= 1;
    harbour.registry.answer(&path, vec![Answer::Whole(altered.clone())]);
    harbour.refuses("a layer", &["DataLoss", &digest(&layer), &digest(&altered)]);

    reset();
    harbour.registry.answer(&blob_path("fleet/hostile", &whole.config), vec![Answer::Whole(b"{}".to_vec())]);
    harbour.refuses("a configuration", &["DataLoss", &whole.id(), &digest(b"{}")]);

    reset();
    let mut lying = whole.clone();
    lying.config =
        String::from_utf8_lossy(&whole.config).replace(&digest(&layer), &digest(b"another tar")).into_bytes();
    lying.manifest["config"] =
        artifact::descriptor("application/vnd.oci.image.config.v1+json", &lying.config);
    harbour.serve(&lying);
    harbour.refuses("a diff id", &["DataLoss", "uncompressed", &digest(b"another tar")]);

    reset();
    let manifest = whole.manifest_bytes();
    let index = artifact::index(&manifest).to_string().into_bytes();
    let other = Artifact::of(&[good()]).manifest_bytes();
    harbour.registry.answer("/v2/fleet/hostile/manifests/1", vec![Answer::Document(OCI_INDEX, index)]);
    harbour.registry.answer(
        &format!("/v2/fleet/hostile/manifests/{}", digest(&manifest)),
        vec![Answer::Whole(other.clone())],
    );
    harbour.refuses("a manifest", &["DataLoss", &digest(&manifest), &digest(&other)]);

    for (case, size) in [("a smaller size", 10_000_u64), ("a larger size", 1_000_000)] {
        let mut lying = whole.clone();
        lying.manifest["layers"][1]["size"] = json!(size);
        harbour.serve(&lying);
        harbour.refuses(case, &["FailedPrecondition", &digest(&layer), &size.to_string()]);
    }
    let mut lying = whole.clone();
    lying.manifest["config"]["size"] = json!(7);
    harbour.serve(&lying);
    harbour.refuses("a configuration's size", &["FailedPrecondition", "7 bytes"]);
    reset();
    let name = harbour.registry.name("fleet/hostile:1");
    let _ = harbour.node.crictl(&["pull", &name]).ok();
    let _ = harbour.node.crictl(&["rmi", &name]).ok();
    harbour.goes_on();
}

#[test]
fn documents_that_are_no_manifest_are_refused() {
    let harbour = Harbour::open();
    let whole = Artifact::of(&[good()]);
    let refused = |case: &str, document: &[u8], words: &[&str]| {
        harbour.serve(&whole);
        harbour.registry.answer("/v2/fleet/hostile/manifests/1", vec![Answer::Whole(document.to_vec())]);
        harbour.refuses(case, words);
    };
    let mut both = whole.manifest.clone();
    both["manifests"] = json!([]);
    refused("both", both.to_string().as_bytes(), &["FailedPrecondition", "neither plainly"]);
    let elsewhere = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
        {"mediaType": artifact::OCI_MANIFEST, "digest": digest(b"x"), "size": 1, "platform": {"os": "plan9", "architecture": "mips"}}]});
    refused(
        "no platform",
        elsewhere.to_string().as_bytes(),
        &["FailedPrecondition", &format!("linux/{}", artifact::architecture())],
    );
    refused("noise", b"<html>", &["FailedPrecondition", "no manifest"]);
    refused("nothing", b"", &["FailedPrecondition", "no manifest"]);
    refused("version 1", b"{\"schemaVersion\": 1}", &["FailedPrecondition", "schema version"]);
    let deep = [vec![b'['; 2_000_000], vec![b']'; 2_000_000]].concat();
    refused("deep", &deep, &["FailedPrecondition", "no manifest"]);
    refused("large", &vec![b' '; 5 << 20], &["FailedPrecondition", "4194304 bytes"]);
    let huge = |size: serde_json::Value| {
        let mut manifest = whole.manifest.clone();
        let layer = manifest["layers"][0].clone();
        manifest["layers"] = json!([layer, layer]);
        for at in 0..2 {
            manifest["layers"][at]["size"] = size.clone();
        }
        manifest.to_string().into_bytes()
    };
    refused("a negative size", &huge(json!(-1)), &["FailedPrecondition"]);
    // Two of them are more than a number holds.
    let mut two = Artifact::of(&[good(), Tarball::new().file("f", b"f").end()]);
    for at in 0..2 {
        two.manifest["layers"][at]["size"] = json!(u64::MAX);
    }
    harbour.serve(&two);
    harbour.refuses("an absurd size", &["FailedPrecondition", &u64::MAX.to_string()]);
    let mut config = whole.clone();
    config.manifest["config"]["size"] = json!(1_u64 << 40);
    harbour.serve(&config);
    harbour.refuses("an absurd configuration", &["FailedPrecondition", "1099511627776"]);
    let mut more = whole.clone();
    more.manifest["layers"] = json!([whole.manifest["layers"][0], whole.manifest["layers"][0]]);
    harbour.serve(&more);
    harbour.refuses("more layers than diff ids", &["FailedPrecondition", "2 layers", "names 1"]);
    for (case, bytes) in
        [("no configuration", &b"[]"[..]), ("a deep one", &deep[..]), ("another kind", b"{\"a\": 1}")]
    {
        let mut odd = whole.clone();
        odd.config = bytes.to_vec();
        odd.manifest["config"] = artifact::descriptor("application/vnd.oci.image.config.v1+json", bytes);
        harbour.serve(&odd);
        harbour.refuses(case, &["FailedPrecondition", "configuration"]);
    }
    harbour.goes_on();
}

//! Registries as they are met: with certificates, tokens and mirrors, busy, failing, slow, cut, and gone.

use serde_json::json;
use slipway_tests::artifact::Artifact;
use slipway_tests::registry::{PASSWORD, USER, free_port};
use slipway_tests::scripted::{Answer, blob_path};
use slipway_tests::tarball::Tarball;
use slipway_tests::tokens::SERVICE;
use slipway_tests::{Authority, Node, Registry, Scripted, Tokens, tree, wait};
use std::path::Path;
use std::process::Stdio;

/// An image whose layer takes several reads.
fn image() -> Artifact {
    let data: Vec<u8> = (0..300_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    Artifact::of(&[Tarball::new().directory("etc/").file("etc/chart", &data).end()])
}

/// A registry that serves [`image`] as `fleet/app:1`.
fn serving(artifact: &Artifact) -> Scripted {
    let registry = Scripted::start();
    registry.hold(artifact, "fleet/app", "1");
    registry
}

const MANIFEST: &str = "/v2/fleet/app/manifests/1";

fn hosts(registry: &str, text: &str) -> tempfile::TempDir {
    let hosts = tempfile::tempdir_in("/var/tmp").expect("a directory for hosts");
    let folder = hosts.path().join(registry);
    std::fs::create_dir(&folder).expect("a directory for a registry");
    std::fs::write(folder.join("hosts.toml"), text).expect("hosts.toml is written");
    hosts
}

fn mirrored(hosts: &Path) -> Node {
    Node::with(&format!("[image]\nhosts_dir = {:?}\n", hosts.display().to_string()))
}

#[test]
fn a_registry_over_https_is_trusted_by_the_machines_authorities() {
    let authority = Authority::new();
    let registry = Registry::with_tls(&authority);
    let name = registry.name("fleet/busybox:1");
    let config = "[image]\nplain_http_loopback = false\n";
    let node = Node::with_environment(config, &[("SSL_CERT_FILE", &authority.certificate())]);
    node.build(&name, "");
    let _ = node.slipway(&["push", &name]).ok();
    let id = node.crictl(&["images", "-q"]).ok().to_owned();
    let _ = node.crictl(&["rmi", &name]).ok();
    let _ = node.slipway(&["prune", "-a"]).ok();
    assert!(node.crictl(&["pull", &name]).ok().contains(&id));

    let other = Authority::new();
    let stranger = Node::with_environment(config, &[("SSL_CERT_FILE", &other.certificate())]);
    let refused = stranger.crictl(&["pull", &name]);
    let error = refused.error();
    assert!(error.contains("Unavailable") && error.contains("certificate"), "{error}");
    assert_eq!(stranger.crictl(&["images", "-q"]).ok(), "");
}

#[test]
fn a_token_is_asked_for_by_service_and_scope_and_shown_to_the_registry_alone() {
    let tokens = Tokens::start();
    let registry = Registry::with_tokens(&tokens);
    let node = Node::start();
    let name = registry.name("fleet/busybox:1");
    node.build(&name, "");

    let anonymous = node.slipway(&["push", &name]);
    assert!(anonymous.error().contains("refuses access"), "{anonymous:#?}");
    let wrong = node.slipway(&["push", "--creds", "captain:wrong", &name]);
    assert!(wrong.error().contains("token service answers 401"), "{wrong:#?}");
    assert!(!wrong.error().contains("wrong:"), "{wrong:#?}");
    let asked = tokens.seen().len();
    let credentials = format!("{USER}:{PASSWORD}");
    let _ = node.slipway(&["push", "--creds", &credentials, &name]).ok();
    let seen = tokens.seen();
    let push = &seen[asked];
    assert!(
        push.query.contains("account=ship") && push.query.contains(&format!("service={SERVICE}")),
        "{push:?}"
    );
    assert!(push.query.contains("scope=repository:fleet/busybox:p"), "{push:?}");
    assert!(push.authorization.as_ref().is_some_and(|shown| shown.starts_with("Basic ")), "{push:?}");

    let _ = node.crictl(&["rmi", &name]).ok();
    let _ = node.slipway(&["prune", "-a"]).ok();
    let asked = tokens.seen().len();
    let _ = node.crictl(&["pull", &name]).ok();
    let seen = tokens.seen();
    let pull = &seen[asked];
    assert!(pull.query.contains("scope=repository:fleet/busybox:pull"), "{pull:?}");
    assert_eq!(pull.authorization, None);
    let with = node.crictl(&["pull", "--creds", &credentials, &name]);
    assert!(with.ok().contains("sha256:"));
}

#[test]
fn a_password_is_asked_for_and_a_wrong_one_is_told() {
    let registry = Registry::with_password();
    let node = Node::start();
    let name = registry.name("fleet/busybox:1");
    node.build(&name, "");
    let credentials = format!("{USER}:{PASSWORD}");
    let _ = node.slipway(&["push", "--creds", &credentials, &name]).ok();
    let _ = node.crictl(&["rmi", &name]).ok();
    let _ = node.slipway(&["prune", "-a"]).ok();
    for arguments in [&["pull", &name][..], &["pull", "--creds", "captain:wrong", &name]] {
        let output = node.crictl(arguments);
        assert!(
            output.error().contains("PermissionDenied") && output.error().contains("fleet/busybox"),
            "{output:#?}"
        );
    }
    let _ = node.crictl(&["pull", "--creds", &credentials, &name]).ok();
}

#[test]
fn credentials_are_never_shown_to_another_host() {
    let artifact = image();
    let (registry, elsewhere) = (serving(&artifact), serving(&artifact));
    let blob = blob_path("fleet/app", &artifact.layers[0]);
    let location = format!("http://{}{blob}", elsewhere.address());
    let moved = Answer::Status("307 Temporary Redirect", vec![("location", location)], Vec::new());
    registry.answer(&blob, vec![moved]);
    let challenge = vec![("www-authenticate", "Basic realm=\"harbour\"".to_owned())];
    let manifest = Answer::Whole(artifact.manifest_bytes());
    registry.answer(MANIFEST, vec![Answer::Status("401 Unauthorized", challenge, Vec::new()), manifest]);
    let node = Node::start();
    let _ = node.crictl(&["pull", "--creds", "captain:anchor", &registry.name("fleet/app:1")]).ok();
    assert!(registry.seen_at(&blob).iter().all(|seen| seen.authorization.is_some()));
    let shown = elsewhere.seen();
    assert!(!shown.is_empty() && shown.iter().all(|seen| seen.authorization.is_none()), "{shown:?}");
}

#[test]
fn mirrors_are_asked_in_their_order_and_the_registry_last() {
    let artifact = image();
    let blob = blob_path("fleet/app", &artifact.layers[0]);
    let (empty, resolver, registry) = (Scripted::start(), serving(&artifact), serving(&artifact));
    let text = format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n\
         [host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n\
         [host.\"http://{}\"]\ncapabilities = [\"resolve\"]\n",
        registry.address(),
        free_port(),
        empty.address(),
        resolver.address()
    );
    let hosts = hosts("ships.example", &text);
    let node = mirrored(hosts.path());
    let pulled = node.crictl(&["pull", "--creds", "captain:anchor", "ships.example/fleet/app:1"]);
    assert!(pulled.ok().contains(&artifact.id()));
    // The one that is down is passed over, the one without the image is asked for it, the third only what tags mean.
    assert_eq!(empty.seen_at(MANIFEST).len(), 1);
    assert_eq!((resolver.seen_at(MANIFEST).len(), resolver.seen_at(&blob).len()), (1, 0));
    assert_eq!((registry.seen_at(MANIFEST).len(), registry.seen_at(&blob).len()), (0, 1));
    for seen in empty.seen().into_iter().chain(resolver.seen()) {
        assert_eq!((seen.query.as_str(), seen.authorization), ("ns=ships.example", None));
    }
    assert!(node.crictl(&["images"]).ok().contains("ships.example/fleet/app"));
}

#[test]
fn a_mirror_that_lies_is_passed_over() {
    let artifact = image();
    let blob = blob_path("fleet/app", &artifact.layers[0]);
    let (mirror, registry) = (serving(&artifact), serving(&artifact));
    let mut damaged = artifact.layers[0].clone();
    damaged[9000] ^= 1;
    mirror.answer(&blob, vec![Answer::Whole(damaged)]);
    let text =
        format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", registry.address(), mirror.address());
    let hosts = hosts("ships.example", &text);
    let node = mirrored(hosts.path());
    let _ = node.crictl(&["pull", "ships.example/fleet/app:1"]).ok();
    assert_eq!((mirror.seen_at(&blob).len(), registry.seen_at(&blob).len()), (1, 1));
}

/// A mirror that took the connection and sent nothing held a pull for a minute at each of its layers. One that fell silent
/// in a manifest was still asked for every blob.
#[test]
fn a_mirror_that_falls_silent_is_given_up_for_the_next() {
    let artifact = image();
    let blob = blob_path("fleet/app", &artifact.layers[0]);
    let whole = artifact.layers[0].clone();
    for (manifest, answer, asked_from) in [
        (Answer::Whole(artifact.manifest_bytes()), Answer::Stalled(whole.clone(), 5000), Some(5000)),
        (Answer::Stalled(artifact.manifest_bytes(), 10), Answer::Whole(whole.clone()), None),
    ] {
        let (mirror, registry) = (serving(&artifact), serving(&artifact));
        mirror.answer(MANIFEST, vec![manifest]);
        mirror.answer(&blob, vec![answer]);
        let text =
            format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", registry.address(), mirror.address());
        let hosts = hosts("ships.example", &text);
        let folder = hosts.path().display().to_string();
        let node = Node::with(&format!("[image]\nhosts_dir = {folder:?}\nregistry_silence_seconds = 1\n"));
        let _ = node.crictl(&["pull", "ships.example/fleet/app:1"]).ok();
        let seen = registry.seen_at(&blob);
        if let Some(offset) = asked_from {
            assert_eq!(seen.iter().map(|seen| seen.range).collect::<Vec<_>>(), [Some(offset)]);
            assert_eq!(mirror.seen_at(&blob).len(), 1);
        } else {
            assert_eq!(registry.seen_at(MANIFEST).len(), 1);
            assert_eq!(mirror.seen().len(), 1, "{:?}", mirror.seen());
        }
    }
}

#[test]
fn of_several_folders_of_hosts_the_first_that_has_the_registry_counts() {
    let artifact = image();
    let (first, second) = (serving(&artifact), serving(&artifact));
    let one = hosts("ships.example", &format!("server = \"http://{}\"\n", first.address()));
    let two = hosts("ships.example", &format!("server = \"http://{}\"\n", second.address()));
    std::fs::create_dir(two.path().join("boats.example")).expect("a folder");
    let text = format!("server = \"http://{}\"\n", second.address());
    std::fs::write(two.path().join("boats.example/hosts.toml"), text).expect("a hosts file");
    let folders =
        ["/nonexistent".to_owned(), one.path().display().to_string(), two.path().display().to_string()];
    let node = Node::with(&format!("[image]\nhosts_dir = {folders:?}\n"));
    let _ = node.crictl(&["pull", "ships.example/fleet/app:1"]).ok();
    assert_eq!((first.seen_at(MANIFEST).len(), second.seen_at(MANIFEST).len()), (1, 0));
    let _ = node.crictl(&["pull", "boats.example/fleet/app:1"]).ok();
    assert_eq!((first.seen_at(MANIFEST).len(), second.seen_at(MANIFEST).len()), (1, 1));
}

#[test]
fn a_hosts_file_that_says_nothing_usable_is_named_with_its_line() {
    for (text, words) in [
        ("server = \"https://a\"\n[host\n", "line 2"),
        (
            "[host.\"https://a\"]\ncapabilities = [\"pul\"]\n",
            "line 2: host https://a: a capability is pull, resolve or push",
        ),
        ("\n\nmirrors = []\n", "line 3: the key mirrors is not supported"),
        ("server = \"a://b\"\n", "line 1: a://b is neither http nor https"),
    ] {
        let hosts = hosts("ships.example", text);
        let node = mirrored(hosts.path());
        let output = node.crictl(&["pull", "ships.example/fleet/app:1"]);
        let file = hosts.path().join("ships.example/hosts.toml").display().to_string();
        for word in ["FailedPrecondition", &file, words] {
            assert!(output.error().contains(word), "{word}: {output:#?}");
        }
    }
}

#[test]
fn what_a_registry_answers_has_its_code_and_leaves_nothing() {
    let (node, registry) = (Node::start(), Scripted::start());
    let _ = node.crictl(&["version"]).ok();
    let before = tree::tree(&node.path("lib"));
    let name = registry.name("fleet/app:1");
    let login = vec![("www-authenticate", "Basic realm=\"x\"".to_owned())];
    for (answer, code, words) in [
        (Answer::Status("401 Unauthorized", login, Vec::new()), "PermissionDenied", "give credentials"),
        (Answer::status("401 Unauthorized"), "PermissionDenied", "does not say how to log in"),
        (Answer::status("403 Forbidden"), "PermissionDenied", "403"),
        (Answer::status("404 Not Found"), "NotFound", "check the name and the tag"),
        (Answer::status("429 Too Many Requests"), "Unavailable", "429"),
        (Answer::status("500 Internal Server Error"), "Unavailable", "500"),
        (Answer::status("400 Bad Request"), "Unavailable", "400"),
        (Answer::Cut(vec![b' '; 1000], 10), "Unavailable", "cut"),
        (
            Answer::Status("302 Found", vec![("location", "/v2/fleet/app/manifests/1".into())], Vec::new()),
            "Unavailable",
            "redirects more than",
        ),
    ] {
        registry.answer(MANIFEST, vec![answer]);
        let output = node.crictl(&["pull", &name]);
        for word in [code, words, "fleet/app:1"] {
            assert!(output.error().contains(word), "{word}: {output:#?}");
        }
        tree::assert_same(&node.path("lib"), &before, words);
    }
    let down = node.crictl(&["pull", &format!("{}/fleet/app:1", free_port())]);
    assert!(down.error().contains("Unavailable") && down.error().contains("refused"), "{down:#?}");
    tree::assert_same(&node.path("lib"), &before, "a registry that is down");
}

#[test]
fn a_blob_that_is_not_there_leaves_nothing_of_its_image() {
    let artifact =
        Artifact::of(&[Tarball::new().file("one", b"1").end(), Tarball::new().file("two", b"2").end()]);
    let registry = serving(&artifact);
    let node = Node::start();
    let _ = node.crictl(&["version"]).ok();
    let before = tree::tree(&node.path("lib"));
    for (line, code) in [("404 Not Found", "NotFound"), ("403 Forbidden", "PermissionDenied")] {
        registry.answer(&blob_path("fleet/app", &artifact.layers[1]), vec![Answer::status(line)]);
        let output = node.crictl(&["pull", &registry.name("fleet/app:1")]);
        assert!(output.error().contains(code), "{output:#?}");
        tree::assert_same(&node.path("lib"), &before, line);
    }
}

#[test]
fn a_busy_registry_is_asked_again_when_it_says() {
    let artifact = image();
    let registry = serving(&artifact);
    let busy = Answer::Status("429 Too Many Requests", vec![("retry-after", "2".to_owned())], Vec::new());
    let failing = Answer::status("503 Service Unavailable");
    registry.answer(MANIFEST, vec![busy, failing, Answer::Whole(artifact.manifest_bytes())]);
    let node = Node::start();
    let _ = node.crictl(&["pull", &registry.name("fleet/app:1")]).ok();
    let seen = registry.seen_at(MANIFEST);
    assert_eq!(seen.len(), 3);
    assert!(seen[1].at.duration_since(seen[0].at).as_secs() >= 2, "it was asked before its time");
}

#[test]
fn a_cut_connection_goes_on_from_where_it_was_cut() {
    let artifact = image();
    let registry = serving(&artifact);
    let (layer, path) = (artifact.layers[0].clone(), blob_path("fleet/app", &artifact.layers[0]));
    registry.answer(
        &path,
        vec![Answer::Cut(layer.clone(), 100_000), Answer::Cut(layer.clone(), 200_000), Answer::Whole(layer)],
    );
    let manifest = artifact.manifest_bytes();
    registry.answer(MANIFEST, vec![Answer::Cut(manifest.clone(), 20), Answer::Whole(manifest)]);
    let node = Node::start();
    let _ = node.crictl(&["pull", &registry.name("fleet/app:1")]).ok();
    let ranges: Vec<_> = registry.seen_at(&path).iter().map(|seen| seen.range).collect();
    assert_eq!(ranges, [None, Some(100_000), Some(200_000)]);
    assert_eq!(registry.seen_at(MANIFEST).len(), 2);
}

#[test]
fn a_client_that_goes_ends_its_pull_and_the_next_goes_on_from_there() {
    let artifact = image();
    let registry = serving(&artifact);
    let (layer, path) = (artifact.layers[0].clone(), blob_path("fleet/app", &artifact.layers[0]));
    registry.answer(&path, vec![Answer::Stalled(layer.clone(), 150_000), Answer::Whole(layer)]);
    let mut node = Node::start();
    let name = registry.name("fleet/app:1");
    let mut client = node
        .command()
        .args(["pull", &name])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let partial = node.path("lib/blobs/partial");
    let fetched = || {
        // The daemon makes the directory after its socket.
        let entries = std::fs::read_dir(&partial).into_iter().flatten();
        entries
            .flatten()
            .filter_map(|entry| entry.metadata().ok())
            .map(|metadata| metadata.len())
            .sum::<u64>()
    };
    wait("half of the layer", || fetched() == 150_000);
    client.kill().expect("the client is killed");
    client.wait().expect("the client is reaped");
    wait("the registry to see it go", || registry.gone() == 1);
    let drafts = node.path("lib/drafts");
    wait("the draft to go", || std::fs::read_dir(&drafts).expect("drafts are listed").count() == 0);
    assert_eq!(fetched(), 150_000);
    // Also a new daemon goes on from it.
    node.kill();
    node.launch();
    let _ = node.crictl(&["pull", &name]).ok();
    let ranges: Vec<_> = registry.seen_at(&path).iter().map(|seen| seen.range).collect();
    assert_eq!(ranges, [None, Some(150_000)]);
    assert_eq!(std::fs::read_dir(&partial).expect("the partial blobs are listed").count(), 0);
}

#[test]
fn pulls_of_one_image_are_one_and_one_that_goes_leaves_the_others() {
    let artifact = image();
    let registry = serving(&artifact);
    let (layer, path) = (artifact.layers[0].clone(), blob_path("fleet/app", &artifact.layers[0]));
    // The layer waits until every client has asked for the manifest, so that all are there at once.
    let held = Scripted::start();
    let location = format!("http://{}{path}", held.address());
    registry.answer(
        &path,
        vec![Answer::Status("307 Temporary Redirect", vec![("location", location)], Vec::new())],
    );
    held.answer(&path, vec![Answer::Stalled(layer.clone(), 1000), Answer::Whole(layer)]);
    let node = Node::start();
    let name = registry.name("fleet/app:1");
    let pull = || {
        node.command()
            .args(["pull", "-q", &name])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts")
    };
    let mut first = pull();
    held.wait_for(&path, 1);
    let others: Vec<_> = (0..3).map(|_| pull()).collect();
    registry.wait_for(MANIFEST, 4);
    // The one that began it goes; the stalled connection is the daemon's, who goes on waiting for the others.
    first.kill().expect("the first is killed");
    first.wait().expect("the first is reaped");
    assert_eq!(held.gone(), 0);
    held.release();
    for other in others {
        let output = other.wait_with_output().expect("it ends");
        assert!(output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), artifact.id());
    }
    let fresh = held.seen_at(&path).iter().filter(|seen| seen.range.is_none()).count();
    assert_eq!((fresh, registry.seen_at(&blob_path("fleet/app", &artifact.config)).len()), (1, 1));
}

#[test]
fn one_pull_through_a_pod_file_and_one_by_digest_are_the_same_image() {
    let artifact = image();
    let registry = serving(&artifact);
    let node = Node::start();
    let digest = slipway_tests::artifact::digest(&artifact.manifest_bytes());
    let by_digest = registry.name(&format!("fleet/app@{digest}"));
    assert!(node.crictl(&["pull", &by_digest]).ok().contains(&artifact.id()));
    let pod = node.pod_file("puller", json!({}));
    let by_tag = registry.name("fleet/app:1");
    assert!(node.crictl(&["pull", "--pod-config", &pod, &by_tag]).ok().contains(&artifact.id()));
    let image = node.crictl(&["inspecti", &by_tag]).json()["status"].clone();
    assert_eq!(image["repoDigests"], json!([by_digest]));
    assert_eq!(image["repoTags"], json!([by_tag]));
    assert_eq!(registry.seen_at(&blob_path("fleet/app", &artifact.layers[0])).len(), 1);
}

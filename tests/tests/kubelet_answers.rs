//! The parts of an answer that kubelet reads beyond what the CRI specifies: codes, first words, sizes, digests, names.

use prost::Message as _;
use serde_json::{Value, json};
use slipway_proto::runtime::v1 as cri;
use slipway_proto::runtime::v1::image_service_client::ImageServiceClient;
use slipway_proto::runtime::v1::runtime_service_client::RuntimeServiceClient;
use slipway_tests::artifact::{Artifact, digest};
use slipway_tests::fault::Strace;
use slipway_tests::registry::free_port;
use slipway_tests::scripted::Answer;
use slipway_tests::tarball::Tarball;
use slipway_tests::{Node, Output, Pod, Registry, Scripted, grpc, wait};
use std::process::{Command, Stdio};
use tonic::Code;

/// The longest answer that kubelet and crictl take.
const MESSAGE_MAX: usize = 16 << 20;

/// kubelet publishes `image_ref` as the image's id of a container's status, and scanners look an image up by it: an id that
/// no registry knows is of no use to them.
#[test]
fn a_container_tells_the_digest_that_its_image_was_pulled_by() {
    let registry = Registry::start();
    let node = Node::start();
    let [one, two] = ["fleet/one", "fleet/two"].map(|name| registry.name(name));
    for name in [&one, &two] {
        node.build(&format!("{name}:1"), "");
        let _ = node.slipway(&["push", &format!("{name}:1")]).ok();
    }
    let _ = node.slipway(&["prune", "-a"]).ok();
    for name in [&one, &two] {
        let _ = node.crictl(&["pull", &format!("{name}:1")]).ok();
    }
    node.build("made:1", "ENV made=here\n");
    let image = node.crictl(&["inspecti", &format!("{one}:1")]).json()["status"].clone();
    let id = image["id"].as_str().expect("an id").to_owned();
    let digests: Vec<&str> =
        image["repoDigests"].as_array().expect("digests").iter().filter_map(Value::as_str).collect();
    assert_eq!(digests.len(), 2, "{image:#}");
    let pod = Pod::start(&node, "web", json!({}));
    let told = |name: &str, asked: &Value| {
        let container = pod.run(name, "exec sleep 1000", json!({"image": asked}));
        let status = node.status(&container);
        let listed = node.crictl(&["ps", "-o", "json", "--id", &container]).json()["containers"][0].clone();
        assert_eq!(status["imageId"], listed["imageId"], "{listed:#}");
        assert_eq!(status["imageRef"], listed["imageRef"], "{listed:#}");
        let text = |key: &str| status[key].as_str().expect("a text").to_owned();
        (text("imageRef"), text("imageId"))
    };
    for (number, name) in [&one, &two].into_iter().enumerate() {
        let (by, id) = (format!("{name}:1"), id.clone());
        let expected = digests.iter().find(|digest| digest.starts_with(&format!("{name}@sha256:")));
        let expected = (expected.expect("its digest").to_string(), id.clone());
        // As kubelet asks for it, and as crictl does.
        let asked = json!({"image": id, "user_specified_image": by});
        assert_eq!(told(&format!("kubelet-{number}"), &asked), expected);
        assert_eq!(told(&format!("crictl-{number}"), &json!({"image": by})), expected);
    }
    let (by, id) = told("id", &json!({"image": id}));
    assert!(digests.contains(&by.as_str()) && id == image["id"], "{by}");
    let (by, id) = told("made", &json!({"image": "made:1"}));
    assert_eq!(by, id);
}

/// kubelet's client takes the gRPC code away from an error before kubelet looks for its word at the beginning, but only from
/// one whose code is Unknown (cri-client's remote_image.go): with Unavailable it never saw that the registry was down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubelet_sees_that_a_registry_is_unavailable() {
    let node = Node::start();
    let busy = Scripted::start();
    busy.answer("/v2/fleet/app/manifests/1", vec![Answer::status("400 Bad Request")]);
    let mut client = ImageServiceClient::new(grpc::channel(&node).await);
    for name in [busy.name("fleet/app:1"), format!("{}/fleet/app:1", free_port())] {
        let image = Some(cri::ImageSpec { image: name.clone(), ..Default::default() });
        let request = cri::PullImageRequest { image, ..Default::default() };
        let status = client.pull_image(request).await.expect_err("nothing is there");
        assert_eq!(status.code(), Code::Unknown, "{status:?}");
        assert!(status.message().starts_with("RegistryUnavailable"), "{status:?}");
    }
}

/// An answer of ExecSync that was longer than its message came as an error: the probe failed, and its exit status was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_that_its_answer_can_t_hold_is_cut_and_says_so() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let container = pod.run("main", "exec sleep 1000", json!({}));
    let client = RuntimeServiceClient::new(grpc::channel(&node).await);
    let mut client = client.max_decoding_message_size(MESSAGE_MAX);
    let fill = |letter: char, to: u8, length: usize| {
        format!("head -c {length} /dev/zero | tr '\\0' {letter} >&{to}")
    };
    for (out, err) in
        [(20 << 20, 0), (0, 20 << 20), (20 << 20, 20 << 20), (15 << 20, 15 << 20), (16 << 20, 3)]
    {
        let script = format!("{} & {}; wait; exit 7", fill('o', 1, out), fill('e', 2, err));
        let request = cri::ExecSyncRequest {
            container_id: container.clone(),
            cmd: ["sh", "-c", &script].map(str::to_owned).to_vec(),
            timeout: 0,
        };
        let answer = client.exec_sync(request).await.expect("an answer that fits").into_inner();
        assert_eq!(answer.exit_code, 7);
        let letters = |bytes: &[u8], letter: u8| bytes.iter().take_while(|byte| **byte == letter).count();
        let (kept_out, kept_err) = (letters(&answer.stdout, b'o'), letters(&answer.stderr, b'e'));
        assert_eq!(kept_out, answer.stdout.len());
        let note = String::from_utf8_lossy(&answer.stderr[kept_err..]).into_owned();
        let (lost_out, lost_err) = (out - kept_out, err - kept_err);
        assert!(
            lost_out + lost_err > 0 && kept_out + kept_err > 15 << 20,
            "{out} {err}: {kept_out} {kept_err}"
        );
        for lost in [lost_out, lost_err] {
            assert!(note.contains(&lost.to_string()), "{out} {err}: {note}");
        }
        assert!(note.contains("cut"), "{note}");
    }
    let script = fill('o', 1, 8 << 20);
    let request = cri::ExecSyncRequest {
        container_id: container,
        cmd: ["sh", "-c", &script].map(str::to_owned).to_vec(),
        timeout: 0,
    };
    let answer = client.exec_sync(request).await.expect("an answer that fits").into_inner();
    assert_eq!((answer.stdout.len(), answer.stderr.len()), (8 << 20, 0));
}

/// A deadline of the client's that passed came as CANCELLED, which kubelet takes for a failure of the runtime.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_has_passed_is_told_as_such() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let container = pod.run("main", "exec sleep 1000", json!({}));
    let request = |timeout| cri::ExecSyncRequest {
        container_id: container.clone(),
        cmd: ["sleep", "1000"].map(str::to_owned).to_vec(),
        timeout,
    };
    let mut client = RuntimeServiceClient::new(grpc::channel(&node).await);
    let status = client.exec_sync(request(1)).await.expect_err("its own deadline");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    // The daemon's own words: a client of gRPC keeps the time itself, and may or may not hear them first.
    let message = request(0).encode_to_vec();
    let length = u32::try_from(message.len()).expect("a short message").to_be_bytes();
    let file = node.path("message");
    std::fs::write(&file, [&[0], &length[..], &message].concat()).expect("the message is written");
    let socket = node.socket().display().to_string();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--http2-prior-knowledge", "--unix-socket", &socket, "--include"]);
    curl.args(["--header", "content-type: application/grpc", "--header", "te: trailers"]);
    curl.args(["--header", "grpc-timeout: 300m", "--data-binary", &format!("@{}", file.display())]);
    curl.arg("http://localhost/runtime.v1.RuntimeService/ExecSync");
    let answer = Output::of(&mut curl).ok().to_owned();
    assert!(answer.lines().any(|line| line.trim() == "grpc-status: 4"), "{answer}");
    wait("the end of both processes", || pod.exec(&container, "ps | grep -c '[s]leep 1000'") == "1");
}

/// Credentials that were given for one server were shown to whichever registry the image came from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_go_to_the_server_alone_that_they_are_for() {
    let artifact = Artifact::of(&[Tarball::new().directory("etc/").file("etc/chart", b"x").end()]);
    let node = Node::start();
    let mut client = ImageServiceClient::new(grpc::channel(&node).await);
    let mut pull = async |server: &dyn Fn(&Scripted) -> String| {
        let registry = Scripted::start();
        registry.hold(&artifact, "fleet/app", "1");
        let challenge = vec![("www-authenticate", "Basic realm=\"harbour\"".to_owned())];
        let manifest = format!("/v2/fleet/app/manifests/{}", digest(&artifact.manifest_bytes()));
        for path in ["/v2/fleet/app/manifests/1", &manifest] {
            let refused = Answer::Status("401 Unauthorized", challenge.clone(), Vec::new());
            registry.answer(path, vec![refused, Answer::Whole(artifact.manifest_bytes())]);
        }
        let image = Some(cri::ImageSpec { image: registry.name("fleet/app:1"), ..Default::default() });
        let auth = cri::AuthConfig {
            username: "captain".into(),
            password: "anchor".into(),
            server_address: server(&registry),
            ..Default::default()
        };
        let request = cri::PullImageRequest { image, auth: Some(auth), sandbox_config: None };
        let outcome = client.pull_image(request).await;
        let shown = registry.seen().iter().any(|seen| seen.authorization.is_some());
        (outcome.map(drop), shown)
    };
    let (outcome, shown) = pull(&|_| String::new()).await;
    assert!(shown && outcome.is_ok(), "{outcome:?}");
    for form in ["ADDRESS", "http://ADDRESS", "https://ADDRESS/v1/", "ADDRESS/v2/"] {
        let (outcome, shown) =
            pull(&|registry| form.replace("ADDRESS", &registry.address().to_string())).await;
        assert!(shown && outcome.is_ok(), "{form}: {outcome:?}");
    }
    for other in ["registry.example.com", "https://index.docker.io/v1/", "http://127.0.0.1:1", "127.0.0.1"] {
        let (outcome, shown) = pull(&|_| other.to_owned()).await;
        let status = outcome.expect_err("it asks for a password");
        assert!(!shown && status.code() == Code::PermissionDenied, "{other}: {status:?}");
        assert!(status.message().contains(other), "{status:?}");
    }
    let status = pull(&|_| "http://".to_owned()).await.0.expect_err("no server");
    assert!(
        status.code() == Code::InvalidArgument && status.message().contains("auth.server_address"),
        "{status:?}"
    );
}

/// kubelet with evented PLEG makes a container anew while the removal of the ended one is still under way, and was told for
/// as long as that took that the name was in use.
#[test]
fn a_name_waits_for_the_removal_of_the_ended_container_that_has_it() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let old = pod.run("main", "exit 0", json!({}));
    let _ = node.exited(&old);
    let _ = node.slipway(&["run", "--name", "boat", "busybox:1", "true"]).ok();
    // Each step of a removal takes a while.
    let slow = ["--trace=unlink,unlinkat,rmdir", "--inject=unlink,unlinkat,rmdir:delay_enter=150ms", "-o"];
    let record = node.path("removal").display().to_string();
    let strace = Strace::attach_to_all(node.pid(), &[&slow[..], &[&record]].concat());
    let begun = |what: &str| {
        wait("the beginning of a removal", || {
            std::fs::read_to_string(&record).is_ok_and(|text| text.contains(what))
        });
    };
    let mut removal =
        node.crictl_command(&["rm", &old]).stdout(Stdio::null()).spawn().expect("crictl starts");
    begun(&old);
    let made = pod.create("main", "exit 0", json!({}));
    let fresh = made.ok().to_owned();
    assert_ne!(fresh, old);
    assert!(removal.wait().expect("crictl ends").success());
    assert_eq!(node.status(&fresh)["state"], "CONTAINER_CREATED");

    let boat = node
        .slipway(&["ps", "-a", "-q"])
        .ok()
        .lines()
        .find(|id| !fresh.starts_with(id))
        .expect("it")
        .to_owned();
    let mut removal =
        node.command().args(["rm", "boat"]).stdout(Stdio::null()).spawn().expect("slipway starts");
    begun(&boat);
    let again = node.slipway(&["run", "--name", "boat", "busybox:1", "echo", "afloat"]);
    assert_eq!(again.ok(), "afloat");
    assert!(removal.wait().expect("slipway ends").success());
    drop(strace);
    // A name that nobody gives back is as taken as ever.
    let taken = pod.create("main", "true", json!({}));
    assert!(taken.error().contains("AlreadyExists") && taken.error().contains(&fresh), "{taken:#?}");
}

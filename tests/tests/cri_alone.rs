//! `slipway` on a runtime that serves the CRI and not slipway.v1: the verbs that the CRI has as well use the CRI, the others say
//! what is missing.

use std::convert::Infallible;
use std::pin::Pin;
use std::process::Command;
use std::task::{Context, Poll};

use serde_json::json;
use slipway_tests::{Node, Output, grpc};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tonic::transport::{Channel, Server};
use tower::{Service, ServiceExt as _};

/// One of the CRI's two services, which the daemon of a node answers; every other call is UNIMPLEMENTED at the server.
#[derive(Clone)]
struct Forward<const IMAGES: bool>(Channel);

impl NamedService for Forward<false> {
    const NAME: &'static str = "runtime.v1.RuntimeService";
}

impl NamedService for Forward<true> {
    const NAME: &'static str = "runtime.v1.ImageService";
}

impl<const IMAGES: bool> Service<Request<Body>> for Forward<IMAGES> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let channel = self.0.clone();
        Box::pin(async move {
            let answer = channel.oneshot(request).await;
            Ok(answer.unwrap_or_else(|error| tonic::Status::unavailable(error.to_string()).into_http()))
        })
    }
}

/// `slipway` on a socket where the node's daemon serves the CRI alone.
struct CriAlone {
    node: Node,
    socket: String,
}

impl CriAlone {
    async fn start() -> Self {
        let node = Node::start();
        let path = node.path("cri.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let channel = grpc::channel(&node).await;
        let server = Server::builder()
            .add_service(Forward::<false>(channel.clone()))
            .add_service(Forward::<true>(channel))
            .serve_with_incoming(UnixListenerStream::new(listener));
        tokio::spawn(server);
        Self { node, socket: format!("unix://{}", path.display()) }
    }

    async fn slipway(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(slipway_tests::folder("SLIPWAY_PROGRAMS").join("slipway"));
        command.args(["--address", &self.socket]).args(arguments);
        tokio::task::spawn_blocking(move || Output::of(&mut command)).await.expect("slipway runs")
    }
}

/// Every verb asked for itself whether slipway.v1 answers, and one that forgot to would have failed on containerd's socket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verbs_that_the_cri_has_use_the_cri_where_nothing_else_is_served() {
    let alone = CriAlone::start().await;
    let node = &alone.node;
    node.build("busybox:1", "");
    let pod = node.pod("web", json!({}));
    let script = "echo out; exec sleep 1000";
    let container = node.container_file("main", "busybox:1", script, json!({}));
    let pod_file = node.path("web.pod.json").display().to_string();
    let id = alone.slipway(&["create", &pod, &container, &pod_file]).await.ok().to_owned();
    assert_eq!(alone.slipway(&["start", &id]).await.ok(), id);
    assert!(node.crictl(&["ps", "-q"]).ok().contains(&id));
    slipway_tests::wait("the container's output", || node.crictl(&["logs", &id]).ok() == "out");

    let version = alone.slipway(&["version"]).await;
    assert!(
        version.ok().contains("RuntimeName:  slipway") && !version.ok().contains("Kernel:"),
        "{version:#?}"
    );
    assert_eq!(alone.slipway(&["ps", "-q"]).await.ok(), id);
    let listed = alone.slipway(&["ps"]).await;
    assert!(
        listed.ok().contains("POD ID") && !listed.ok().contains("OWNER"),
        "the CRI's columns: {listed:#?}"
    );
    assert_eq!(alone.slipway(&["inspect", &id]).await.json()["status"]["state"], "CONTAINER_RUNNING");
    assert_eq!(alone.slipway(&["exec", &id, "echo", "hello"]).await.ok(), "hello");
    let _ = alone.slipway(&["logs", "--reopen", &id]).await.ok();
    assert_eq!(alone.slipway(&["images", "-q"]).await.ok(), node.crictl(&["images", "-q"]).ok());
    for kind in ["imageFilesystems", "containerFilesystems"] {
        let usage = alone.slipway(&["imagefsinfo"]).await.json()["status"][kind][0].clone();
        let bytes = usage["usedBytes"]["value"].as_str().and_then(|bytes| bytes.parse::<u64>().ok());
        assert!(bytes.is_some_and(|bytes| bytes > 0), "{kind}: {usage:#}");
    }
    assert!(node.slipway(&["df"]).ok().contains("containers"), "the daemon itself serves slipway.v1");
    assert_eq!(alone.slipway(&["stop", "-t", "0", &id]).await.ok(), id);
    assert_eq!(node.status(&id)["state"], "CONTAINER_EXITED");
    assert_eq!(alone.slipway(&["logs", &id]).await.ok(), "out");
    assert_eq!(alone.slipway(&["rm", &id]).await.ok(), id);
    assert_eq!(node.crictl(&["ps", "-a", "-q"]).ok(), "");

    for verb in
        [&["df"][..], &["prune"], &["run", "busybox:1", "true"], &["exec", "-i", "x", "true"], &["rm", "-a"]]
    {
        let refused = alone.slipway(verb).await;
        assert_ne!(refused.status, 0, "{verb:?}: {refused:#?}");
        assert_eq!(refused.error().lines().count(), 1, "{verb:?}: {refused:#?}");
    }
}

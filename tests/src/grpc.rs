//! The daemon as a program sees it: gRPC on its socket, for what no command line can say.

use crate::Node;
use slipway_proto::runtime::v1 as cri;
use tonic::transport::{Channel, Endpoint, Uri};

/// A connection to a node's daemon.
///
/// # Panics
/// When the daemon does not answer.
pub async fn channel(node: &Node) -> Channel {
    let socket = node.socket();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move {
            let stream = tokio::net::UnixStream::connect(socket).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint.connect_with_connector(connector).await.expect("the daemon answers")
}

/// The least that a pod on the host's network needs.
#[must_use]
pub fn pod_config(name: &str) -> cri::PodSandboxConfig {
    let options = cri::NamespaceOption { network: 2, pid: 1, ..Default::default() };
    let security =
        cri::LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            namespace: "test".to_owned(),
            attempt: 0,
        }),
        linux: Some(cri::LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() }),
        ..Default::default()
    }
}

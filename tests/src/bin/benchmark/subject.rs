//! A runtime under measurement: its two services and its process.

use crate::Failure;
use slipway_proto::runtime::v1::image_service_client::ImageServiceClient;
use slipway_proto::runtime::v1::runtime_service_client::RuntimeServiceClient;
use tonic::transport::{Channel, Endpoint, Uri};

/// A runtime.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) runtime: RuntimeServiceClient<Channel>,
    pub(crate) images: ImageServiceClient<Channel>,
    /// Its daemon.
    pub(crate) pid: i32,
}

impl Subject {
    /// Connects to `NAME=SOCKET=PID`.
    pub(crate) async fn connect(argument: &str) -> Result<Self, Failure> {
        let mut words = argument.split('=');
        let (Some(name), Some(socket), Some(pid)) = (words.next(), words.next(), words.next()) else {
            return Err("each runtime is NAME=SOCKET=PID".into());
        };
        let socket = socket.to_owned();
        let channel = Endpoint::from_static("http://localhost")
            .connect_with_connector(tower::service_fn(move |_: Uri| {
                let socket = socket.clone();
                async move {
                    let stream = tokio::net::UnixStream::connect(socket).await?;
                    Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
                }
            }))
            .await?;
        Ok(Self {
            name: name.to_owned(),
            runtime: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel),
            pid: pid.parse()?,
        })
    }
}

//! Where the daemon is, and the clients that speak to it. The sockets are opened when a verb asks for them.

use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use slipway_proto::http2;
use slipway_proto::runtime::v1::image_service_client::ImageServiceClient;
use slipway_proto::runtime::v1::runtime_service_client::RuntimeServiceClient;
use slipway_proto::slipway::v1::slipway_client::SlipwayClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Uri};
use tower::service_fn;

use crate::args::{Dialect, Global};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::{output, time};

const DEFAULT_ENDPOINT: &str = "unix:///run/slipway/slipway.sock";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
const MESSAGE_LIMIT: usize = 16 << 20;

pub(crate) type RuntimeClient = RuntimeServiceClient<Channel>;
pub(crate) type ImageClient = ImageServiceClient<Channel>;
pub(crate) type OwnClient = SlipwayClient<Channel>;

/// What holds for the whole command line.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) dialect: Dialect,
    runtime_endpoint: String,
    image_endpoint: String,
    timeout: Duration,
    debug: bool,
}

impl Session {
    /// Flags go before the environment, the environment before the configuration file.
    pub(crate) fn new(dialect: Dialect, global: Global) -> Result<Self> {
        let config = Config::load(global.config.as_deref(), dialect)?;
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let own = if dialect == Dialect::Slipway { variable("SLIPWAY_ADDRESS") } else { None };
        let runtime_endpoint = global
            .runtime_endpoint
            .or(own)
            .or_else(|| variable("CONTAINER_RUNTIME_ENDPOINT"))
            .or_else(|| config.value("runtime-endpoint"))
            .unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        let image_endpoint = global
            .image_endpoint
            .or_else(|| variable("IMAGE_SERVICE_ENDPOINT"))
            .or_else(|| config.value("image-endpoint"))
            .unwrap_or_else(|| runtime_endpoint.clone());
        let timeout = match global.timeout.or_else(|| config.value("timeout")) {
            Some(text) => time::parse_duration(&text)
                .ok_or_else(|| Error::Usage(format!("timeout {text} is not a duration such as 2s")))?,
            None => DEFAULT_TIMEOUT,
        };
        let timeout = if timeout.is_zero() { DEFAULT_TIMEOUT } else { timeout };
        Ok(Self { dialect, runtime_endpoint, image_endpoint, timeout, debug: global.debug })
    }

    /// Whether slipway.v1 goes before the CRI.
    pub(crate) fn speaks_own(&self) -> bool {
        self.dialect == Dialect::Slipway
    }

    pub(crate) async fn runtime(&self) -> Result<RuntimeClient> {
        let channel = self.channel(&self.runtime_endpoint).await?;
        Ok(RuntimeServiceClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT))
    }

    pub(crate) async fn images(&self) -> Result<ImageClient> {
        let channel = self.channel(&self.image_endpoint).await?;
        Ok(ImageServiceClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT))
    }

    pub(crate) async fn own(&self) -> Result<OwnClient> {
        let channel = self.channel(&self.runtime_endpoint).await?;
        Ok(SlipwayClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT))
    }

    async fn channel(&self, endpoint: &str) -> Result<Channel> {
        let path = socket_path(endpoint)?;
        if self.debug {
            output::note(format_args!("connect to {}", path.display()));
        }
        let connect = |source| Error::Connect { endpoint: endpoint.to_owned(), source };
        let stream = tokio::time::timeout(self.timeout, UnixStream::connect(&path))
            .await
            .map_err(|_| connect(std::io::ErrorKind::TimedOut.into()))?
            .map_err(connect)?;
        // One command line is one connection: the stream is handed out once.
        let mut stream = Some(stream);
        let connector = service_fn(move |_: Uri| {
            let stream = stream.take();
            async move {
                stream.map(TokioIo::new).ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected))
            }
        });
        http2::endpoint()
            .connect_timeout(self.timeout)
            .connect_with_connector(connector)
            .await
            .map_err(|source| Error::Handshake { endpoint: endpoint.to_owned(), source })
    }
}

fn socket_path(endpoint: &str) -> Result<PathBuf> {
    let path =
        endpoint.strip_prefix("unix://").or_else(|| endpoint.strip_prefix("unix:")).unwrap_or(endpoint);
    if path.starts_with('/') {
        Ok(path.into())
    } else {
        Err(Error::Usage(format!("endpoint {endpoint} is not a unix socket: write unix:///path/to/socket")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_unix_sockets() {
        for endpoint in ["unix:///run/a.sock", "unix:/run/a.sock", "/run/a.sock"] {
            assert_eq!(socket_path(endpoint).unwrap(), PathBuf::from("/run/a.sock"));
        }
        assert!(socket_path("tcp://127.0.0.1:80").is_err());
    }
}

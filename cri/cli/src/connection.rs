//! The sockets of the runtime, and clients of the services on them. A socket is opened when a verb asks for a client.

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

use crate::config::{Config, Place};
use crate::error::{Error, Result};
use crate::style::Style;
use crate::{output, time};

const DEFAULT_ENDPOINT: &str = "unix:///run/slipway/slipway.sock";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) type RuntimeClient = RuntimeServiceClient<Channel>;
pub(crate) type ImageClient = ImageServiceClient<Channel>;

/// The sources of the sockets' addresses when no flag names them.
#[derive(Debug)]
pub(crate) struct Sources {
    /// Variables of the environment with the runtime's address: the first that is set counts.
    pub(crate) runtime_variables: &'static [&'static str],
    /// The same for the image service's.
    pub(crate) image_variables: &'static [&'static str],
    /// The usual place of a configuration file, if the dialect has one.
    pub(crate) config: Option<Place>,
}

/// The flags before the verb.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Flags {
    /// Socket of the daemon (default unix:///run/slipway/slipway.sock)
    #[arg(short = 'r', long, visible_alias = "address", value_name = "ENDPOINT")]
    runtime_endpoint: Option<String>,
    /// Socket of the image service (default: the same)
    #[arg(short = 'i', long, value_name = "ENDPOINT")]
    image_endpoint: Option<String>,
    /// How long to wait for a connection, such as 2s
    #[arg(short = 't', long, value_name = "DURATION")]
    timeout: Option<String>,
    /// crictl's configuration file (default: /etc/crictl.yaml when called crictl)
    #[arg(short = 'c', long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print each connection on standard error
    #[arg(short = 'D', long)]
    debug: bool,
}

/// The sockets that the verbs of one command line use, and the style of their output.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) style: &'static Style,
    runtime_endpoint: String,
    image_endpoint: String,
    timeout: Duration,
    debug: bool,
}

impl Session {
    /// Flags go before the environment, the environment before the configuration file.
    pub(crate) fn new(style: &'static Style, sources: &Sources, flags: Flags) -> Result<Self> {
        let config = Config::load(flags.config.as_deref(), sources.config.as_ref())?;
        let runtime_endpoint = flags
            .runtime_endpoint
            .or_else(|| first_set(sources.runtime_variables))
            .or_else(|| config.value("runtime-endpoint"))
            .unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        let image_endpoint = flags
            .image_endpoint
            .or_else(|| first_set(sources.image_variables))
            .or_else(|| config.value("image-endpoint"))
            .unwrap_or_else(|| runtime_endpoint.clone());
        let timeout = match flags.timeout.or_else(|| config.value("timeout")) {
            Some(text) => time::parse_duration(&text)
                .ok_or_else(|| Error::Usage(format!("timeout {text} is not a duration such as 2s")))?,
            None => DEFAULT_TIMEOUT,
        };
        let timeout = if timeout.is_zero() { DEFAULT_TIMEOUT } else { timeout };
        Ok(Self { style, runtime_endpoint, image_endpoint, timeout, debug: flags.debug })
    }

    /// A client of the CRI's runtime service.
    pub(crate) async fn runtime(&self) -> Result<RuntimeClient> {
        let channel = self.channel(&self.runtime_endpoint).await?;
        Ok(RuntimeServiceClient::new(channel).max_decoding_message_size(http2::MESSAGE_MAX))
    }

    /// A client of the CRI's image service.
    pub(crate) async fn images(&self) -> Result<ImageClient> {
        let channel = self.channel(&self.image_endpoint).await?;
        Ok(ImageServiceClient::new(channel).max_decoding_message_size(http2::MESSAGE_MAX))
    }

    /// A client of slipway.v1.
    pub(crate) async fn slipway(&self) -> Result<SlipwayClient<Channel>> {
        let channel = self.channel(&self.runtime_endpoint).await?;
        Ok(SlipwayClient::new(channel).max_decoding_message_size(http2::MESSAGE_MAX))
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

fn first_set(variables: &[&str]) -> Option<String> {
    variables.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
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

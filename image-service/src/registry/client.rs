//! One HTTP request: plain or over TLS, following redirects without ever carrying the credentials to another host.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

mod body;

pub(crate) use body::Content;
use body::{Payload, Sent};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Longer than a registry takes to verify and store a large upload, which begins when it has all of it.
const VERIFICATION: Duration = Duration::from_secs(300);
const REDIRECTS: usize = 5;

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) headers: Vec<(header::HeaderName, String)>,
    pub(crate) content: Content,
}

impl Call {
    pub(crate) fn new(method: Method, url: String) -> Self {
        Self { method, url, headers: Vec::new(), content: Content::Nothing }
    }

    pub(crate) fn header(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn content(mut self, content: Content) -> Self {
        self.content = content;
        self
    }
}

/// Connections, kept open between requests.
#[derive(Debug)]
pub(crate) struct Transport {
    plain: Client<HttpConnector, Payload>,
    /// Made at the first need: it reads the machine's certificates.
    secure: OnceLock<Result<Client<HttpsConnector<HttpConnector>, Payload>, String>>,
    /// For how long the other side may send nothing, or take nothing of an upload.
    silence: Duration,
    /// For how long it may verify an upload before it answers.
    verification: Duration,
}

/// Why a body ended before its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// Nothing came for this long.
    #[error("no data for {} s", .0.as_secs())]
    Silent(Duration),
    /// The connection ended.
    #[error("the connection was cut: {0}")]
    Cut(String),
    /// The body ended in good order, and too early.
    #[error("it ended after {reached} of {size} bytes")]
    Short {
        /// Bytes that came.
        reached: u64,
        /// Bytes that there should be.
        size: u64,
    },
}

impl Transport {
    pub(crate) fn new(silence: Duration) -> Self {
        let plain = Client::builder(TokioExecutor::new()).build(connector(silence));
        Self { plain, secure: OnceLock::new(), silence, verification: VERIFICATION }
    }

    /// Sends it, and follows where it is sent on to. The error is one line.
    pub(crate) async fn send(
        &self,
        call: &Call,
        authorization: Option<&str>,
    ) -> Result<Response<Incoming>, String> {
        let mut call = call.clone();
        let mut authorization = authorization;
        for _ in 0..=REDIRECTS {
            let response = self.send_once(&call, authorization).await?;
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let follow = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308)
                && matches!(call.method, Method::GET | Method::HEAD);
            let Some(location) = location.filter(|_| follow) else { return Ok(response) };
            let next = resolve(&call.url, location)?;
            if origin(&next) != origin(&call.url) {
                if call.url.starts_with("https:") && !next.starts_with("https:") {
                    return Err("it redirects from https to plain http".into());
                }
                authorization = None;
            }
            call.url = next;
        }
        Err(format!("it redirects more than {REDIRECTS} times"))
    }

    async fn send_once(
        &self,
        call: &Call,
        authorization: Option<&str>,
    ) -> Result<Response<Incoming>, String> {
        let uri: Uri = call.url.parse().map_err(|_| "its address is malformed".to_owned())?;
        let mut request = Request::builder().method(call.method.clone()).uri(uri);
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        request = request.header(header::USER_AGENT, concat!("slipway/", env!("CARGO_PKG_VERSION")));
        if let Some(value) = authorization {
            let mut value =
                HeaderValue::from_str(value).map_err(|_| "the credentials can't be sent".to_owned())?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let (payload, sent) = body::payload(&call.content)?;
        let request = request.body(payload).map_err(|error| error.to_string())?;
        let answer = async {
            if call.url.starts_with("https:") {
                self.secure()?.request(request).await
            } else {
                self.plain.request(request).await
            }
            .map_err(|error| reason(&error))
        };
        self.unless_silent(answer, sent, call.method == Method::PUT).await
    }

    /// Waits for an answer for as long as the request's body moves, and then for the silence that is allowed: a registry
    /// verifies what is PUT before it answers.
    async fn unless_silent<T>(
        &self,
        answer: impl Future<Output = Result<T, String>>,
        mut sent: Sent,
        is_verified: bool,
    ) -> Result<T, String> {
        let mut answer = std::pin::pin!(answer);
        loop {
            let is_whole = sent.is_whole();
            let longest = if is_whole && is_verified { self.verification } else { self.silence };
            tokio::select! {
                answered = &mut answer => return answered,
                () = sent.moved(), if !is_whole => {}
                () = tokio::time::sleep(longest) => {
                    let what = if is_whole { "no answer within" } else { "nothing of the upload was taken for" };
                    return Err(format!("{what} {} s", longest.as_secs()));
                }
            }
        }
    }

    /// The next piece of a body; none at its end.
    pub(crate) async fn piece(&self, body: &mut Incoming) -> Result<Option<Bytes>, Broken> {
        loop {
            let frame = tokio::time::timeout(self.silence, body.frame()).await;
            match frame.map_err(|_| Broken::Silent(self.silence))? {
                None => return Ok(None),
                Some(Err(error)) => return Err(Broken::Cut(reason(&error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    _ => {}
                },
            }
        }
    }

    /// A whole body; none when it has more than so many bytes.
    pub(crate) async fn whole(&self, body: &mut Incoming, most: u64) -> Result<Option<Vec<u8>>, Broken> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece(body).await? {
            if (bytes.len() + piece.len()) as u64 > most {
                return Ok(None);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Some(bytes))
    }

    fn secure(&self) -> Result<&Client<HttpsConnector<HttpConnector>, Payload>, String> {
        let secure = self.secure.get_or_init(|| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder =
                hyper_rustls::HttpsConnectorBuilder::new().with_provider_and_native_roots(provider).map_err(
                    |error| format!("no certificates of authorities ({error}): install ca-certificates"),
                )?;
            let mut tcp = connector(self.silence);
            tcp.enforce_http(false);
            Ok(Client::builder(TokioExecutor::new())
                .build(builder.https_only().enable_http1().wrap_connector(tcp)))
        });
        secure.as_ref().map_err(Clone::clone)
    }
}

fn connector(silence: Duration) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT.min(silence)));
    connector.set_nodelay(true);
    connector
}

/// The innermost cause says what happened; what wraps it says only that something did.
fn reason(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn origin(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    Some((scheme, rest.split(['/', '?']).next().unwrap_or(rest)))
}

/// Where a `Location` leads from a URL.
pub(crate) fn resolve(from: &str, location: &str) -> Result<String, String> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return Ok(location.to_owned());
    }
    let (scheme, authority) = origin(from).ok_or_else(|| "its address is malformed".to_owned())?;
    if let Some(rest) = location.strip_prefix("//") {
        return Ok(format!("{scheme}://{rest}"));
    }
    if location.starts_with('/') {
        return Ok(format!("{scheme}://{authority}{location}"));
    }
    Err("it redirects to a relative path".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_resolved_against_its_request() {
        let from = "http://localhost:5000/v2/a/blobs/uploads/";
        assert_eq!(resolve(from, "/v2/x?y=1").as_deref(), Ok("http://localhost:5000/v2/x?y=1"));
        assert_eq!(resolve(from, "https://cdn/x").as_deref(), Ok("https://cdn/x"));
        assert!(resolve(from, "x").is_err());
        assert_ne!(origin("https://a/x"), origin("https://a.b/x"));
        assert_ne!(origin("https://a/x"), origin("http://a/x"));
    }

    /// Takes a request's body slowly: one piece in a while, with small buffers, then answers.
    fn slow_server(size: u64, piece: u64, pause: Duration) -> u16 {
        use std::io::{BufRead as _, Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 64 << 10).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut input = std::io::BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                input.read_line(&mut line).unwrap();
            }
            let mut left = size;
            while left > 0 {
                std::thread::sleep(pause);
                left -= std::io::copy(&mut input.by_ref().take(piece), &mut std::io::sink()).unwrap();
            }
            stream.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n").unwrap();
        });
        port
    }

    /// An upload was given up after five minutes in all, however well it moved. This one takes far longer than each of
    /// its limits, and its registry never stops taking it.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_upload_goes_on_for_as_long_as_it_moves() {
        let (size, piece) = (24_u64 << 20, 1_u64 << 20);
        let port = slow_server(size, piece, Duration::from_millis(500));
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        let mut transport = Transport::new(Duration::from_secs(4));
        transport.verification = Duration::from_secs(8);
        let call = Call::new(Method::PUT, format!("http://127.0.0.1:{port}/upload"))
            .header(header::CONTENT_LENGTH, size.to_string())
            .content(Content::File { path: file.path().to_owned(), size });
        assert_eq!(transport.send(&call, None).await.map(|response| response.status().as_u16()), Ok(201));
    }
}

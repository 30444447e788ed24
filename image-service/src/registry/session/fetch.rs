//! Manifests and blobs, from whichever host has them.

use hyper::body::Body as _;
use tokio::sync::mpsc;

use super::{
    ACCEPT, Broken, Bytes, Call, DOCUMENT_MAX, Descriptor, Digest, Error, FIRST_DELAY, HeaderName, Host,
    Incoming, Method, Response, Result, Session, header,
};

/// A manifest's or configuration's bytes, verified.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
    pub(crate) content_type: Option<String>,
}

/// A piece of a blob for its reader; a channel that ends without `End` was cancelled.
#[derive(Debug)]
pub(crate) enum Chunk {
    Data(Bytes),
    End(Result<()>),
}

/// How a stream of a blob ended.
enum Ended {
    Complete,
    /// Cut after so many bytes; it can go on from there.
    Cut(u64, Broken),
    /// More came than the manifest says.
    Larger,
}

impl Session {
    /// A manifest by its tag or digest.
    pub(crate) async fn manifest(&self, selector: &str, object: &str) -> Result<Fetched> {
        let expected = selector.parse::<Digest>().ok();
        let hosts = self.fitting(|host| if expected.is_some() { host.pull } else { host.resolve });
        self.first(&hosts, &format!("manifests/{selector}"), expected, object).await
    }

    /// A small blob whole: a configuration.
    pub(crate) async fn small_blob(&self, descriptor: &Descriptor, object: &str) -> Result<Fetched> {
        let rejected = |reason| Err(Error::ManifestRejected { object: object.to_owned(), reason });
        let said = descriptor.size;
        if said > DOCUMENT_MAX {
            return rejected(format!("its manifest says that it has {said} bytes, more than {DOCUMENT_MAX}"));
        }
        let hosts = self.fitting(|host| host.pull);
        let path = format!("blobs/{}", descriptor.digest);
        let fetched = self.first(&hosts, &path, Some(descriptor.digest), object).await?;
        if fetched.bytes.len() as u64 == said {
            return Ok(fetched);
        }
        rejected(format!("its manifest says that it has {said} bytes, it has {}", fetched.bytes.len()))
    }

    /// One answer, whole; the outer error is a connection's, the inner one the registry's.
    async fn document(
        &self,
        (host, path): (&Host, &str),
        expected: Option<Digest>,
        object: &str,
    ) -> Result<Result<Fetched>, Broken> {
        let call = Call::new(Method::GET, self.url(host, path)).header(header::ACCEPT, ACCEPT);
        let mut response = match self.send(host, &call, object).await {
            Ok(response) => response,
            Err(error) => return Ok(Err(error)),
        };
        let text = |name: HeaderName| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let content_type = text(header::CONTENT_TYPE);
        let said = text(HeaderName::from_static("docker-content-digest")).and_then(|text| text.parse().ok());
        let Some(bytes) = self.transport.whole(response.body_mut(), DOCUMENT_MAX).await? else {
            let reason = format!("it has more than {DOCUMENT_MAX} bytes");
            return Ok(Err(Error::ManifestRejected { object: object.to_owned(), reason }));
        };
        let digest = Digest::of(&bytes);
        Ok(match expected.or(said) {
            Some(expected) if expected != digest => {
                Err(Error::DigestMismatch { object: object.to_owned(), expected, actual: digest })
            }
            _ => Ok(Fetched { bytes, digest, content_type }),
        })
    }

    /// The same, asked for again where the connection broke off.
    async fn document_of(
        &self,
        (host, path): (&Host, &str),
        expected: Option<Digest>,
        object: &str,
    ) -> Result<Fetched> {
        let mut tried = 0;
        loop {
            tried += 1;
            match self.document((host, path), expected, object).await {
                Ok(answer) => return answer,
                Err(broken) if !self.asks_again(host, &broken, tried) => {
                    return Err(self.unavailable(host, object, broken.to_string()));
                }
                Err(_) => tokio::time::sleep(FIRST_DELAY * tried).await,
            }
        }
    }

    /// The answer of the first host that has it; the last one's error, which is the registry's own, when none has.
    async fn first(
        &self,
        hosts: &[&Host],
        path: &str,
        expected: Option<Digest>,
        object: &str,
    ) -> Result<Fetched> {
        let mut last = None;
        for host in hosts {
            match self.document_of((host, path), expected, object).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = Some(passed_over(host, error)),
            }
        }
        Err(last.unwrap_or_else(|| Error::RegistryUnavailable {
            host: self.domain.clone(),
            object: object.to_owned(),
            reason: "its configuration names no host that can pull".into(),
        }))
    }

    /// Whether blobs may come from elsewhere than the registry itself.
    pub(crate) fn has_mirrors(&self) -> bool {
        self.hosts.iter().any(|host| host.pull && !host.own)
    }

    /// Streams a blob from an offset to its end, going on where a connection was cut.
    pub(crate) async fn blob(
        &self,
        descriptor: &Descriptor,
        (mut offset, mirrors): (u64, bool),
        give: &mpsc::Sender<Chunk>,
    ) -> Result<()> {
        let object = "its blob".to_owned();
        let mut failure = None;
        let hosts = self.fitting(|host| host.pull && (mirrors || host.own));
        for host in hosts {
            let mut tried = 0;
            loop {
                let (broken, reached) = match self.stream(host, (descriptor, &object), offset, give).await {
                    Ok(Ended::Complete) => return Ok(()),
                    Ok(Ended::Cut(reached, broken)) => (broken, reached),
                    Ok(Ended::Larger) => return Err(larger(descriptor, &object)),
                    Err(error) => {
                        failure = Some(passed_over(host, error));
                        break;
                    }
                };
                tried = if reached > offset { 1 } else { tried + 1 };
                offset = reached;
                failure = Some(self.unavailable(host, &object, broken.to_string()));
                if !self.asks_again(host, &broken, tried) {
                    break;
                }
                tokio::time::sleep(FIRST_DELAY * tried).await;
            }
        }
        Err(failure.unwrap_or(Error::NotFoundInRegistry { host: self.domain.clone(), object }))
    }

    async fn stream(
        &self,
        host: &Host,
        (descriptor, object): (&Descriptor, &str),
        offset: u64,
        give: &mpsc::Sender<Chunk>,
    ) -> Result<Ended> {
        if offset >= descriptor.size {
            return Ok(Ended::Complete);
        }
        let mut call = Call::new(Method::GET, self.url(host, &format!("blobs/{}", descriptor.digest)));
        if offset > 0 {
            call = call.header(header::RANGE, format!("bytes={offset}-"));
        }
        let mut response = self.send(host, &call, object).await?;
        // A server that does not know ranges sends it all; what is here already is skipped then.
        let partial = response.status().as_u16() == 206 && range_start(&response) == Some(offset);
        let mut skip = if partial { 0 } else { offset };
        let promised =
            response.body().size_hint().exact().map(|rest| if partial { offset + rest } else { rest });
        if let Some(promised) = promised.filter(|promised| *promised != descriptor.size) {
            let reason =
                format!("the registry has {promised} bytes of it, its manifest says {}", descriptor.size);
            return Err(Error::ManifestRejected { object: object.to_owned(), reason });
        }
        let mut reached = offset;
        loop {
            let mut piece = match self.transport.piece(response.body_mut()).await {
                Ok(Some(piece)) => piece,
                Ok(None) if reached == descriptor.size => return Ok(Ended::Complete),
                Ok(None) => {
                    return Ok(Ended::Cut(reached, Broken::Short { reached, size: descriptor.size }));
                }
                Err(broken) => return Ok(Ended::Cut(reached, broken)),
            };
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
            drop(piece.split_to(skipped));
            skip -= skipped as u64;
            reached += piece.len() as u64;
            if reached > descriptor.size {
                return Ok(Ended::Larger);
            }
            if !piece.is_empty() && give.send(Chunk::Data(piece)).await.is_err() {
                return Ok(Ended::Complete);
            }
        }
    }
}

/// Tells of a mirror that did not serve: the next host is asked.
fn passed_over(host: &Host, error: Error) -> Error {
    if !host.own {
        tracing::info!(%error, host = host.authority, "a mirror does not serve it; the next host is asked");
    }
    error
}

fn larger(descriptor: &Descriptor, object: &str) -> Error {
    let reason = format!("it is larger than the {} bytes that its manifest says", descriptor.size);
    Error::ManifestRejected { object: object.to_owned(), reason }
}

/// Where a partial answer begins: `bytes 5-9/10`.
fn range_start(response: &Response<Incoming>) -> Option<u64> {
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

//! Manifests and blobs, from whichever host has them.

use tokio::sync::mpsc;

use super::{
    ACCEPT, Bytes, Call, DOCUMENT_MAX, Descriptor, Digest, Error, FIRST_DELAY, HeaderName, Host, Incoming,
    Method, Response, Result, Session, TRIES, client, header,
};

/// A manifest's or configuration's bytes, verified.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
    pub(crate) content_type: Option<String>,
}

/// What a blob's reader gets; a channel that ends without `End` was cancelled.
#[derive(Debug)]
pub(crate) enum Chunk {
    Data(Bytes),
    End(Result<()>),
}

/// How a stream of a blob ended.
enum Ended {
    Complete,
    /// Cut after so many bytes; it can go on from there.
    Cut(u64, String),
}

impl Session {
    /// A manifest by its tag or digest.
    pub(crate) async fn manifest(&self, selector: &str, object: &str) -> Result<Fetched> {
        let expected = selector.parse::<Digest>().ok();
        let fits = |host: &&Host| if expected.is_some() { host.pull } else { host.resolve };
        let hosts: Vec<&Host> = self.hosts.iter().filter(fits).collect();
        self.first(&hosts, &format!("manifests/{selector}"), expected, object).await
    }

    /// A small blob whole: a configuration.
    pub(crate) async fn small_blob(&self, descriptor: &Descriptor, object: &str) -> Result<Fetched> {
        if descriptor.size > DOCUMENT_MAX {
            let reason = format!("its configuration has {} bytes, more than {DOCUMENT_MAX}", descriptor.size);
            return Err(Error::ManifestRejected { object: object.to_owned(), reason });
        }
        let hosts: Vec<&Host> = self.hosts.iter().filter(|host| host.pull).collect();
        self.first(&hosts, &format!("blobs/{}", descriptor.digest), Some(descriptor.digest), object).await
    }

    async fn document(
        &self,
        host: &Host,
        response: &mut Response<Incoming>,
        expected: Option<Digest>,
        object: &str,
    ) -> Result<Fetched> {
        let text = |name: HeaderName| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let content_type = text(header::CONTENT_TYPE);
        let said = text(HeaderName::from_static("docker-content-digest")).and_then(|text| text.parse().ok());
        let read = client::whole(response.body_mut(), DOCUMENT_MAX).await;
        let bytes = read.map_err(|reason| self.unavailable(host, object, reason))?;
        let digest = Digest::of(&bytes);
        match expected.or(said) {
            Some(expected) if expected != digest => {
                Err(Error::DigestMismatch { object: object.to_owned(), expected, actual: digest })
            }
            _ => Ok(Fetched { bytes, digest, content_type }),
        }
    }

    /// What the first host that has it answers; the last one's error, which is the registry's own, when none has.
    async fn first(
        &self,
        hosts: &[&Host],
        path: &str,
        expected: Option<Digest>,
        object: &str,
    ) -> Result<Fetched> {
        let mut last = None;
        for host in hosts {
            let call = Call::new(Method::GET, self.url(host, path)).header(header::ACCEPT, ACCEPT);
            let answer = match self.send(host, &call, object).await {
                Ok(mut response) => self.document(host, &mut response, expected, object).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    if !host.own {
                        tracing::info!(%error, host = host.authority, "a mirror does not have it; the next is asked");
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| Error::RegistryUnavailable {
            host: self.domain.clone(),
            object: object.to_owned(),
            reason: "its configuration names no host that can pull".into(),
        }))
    }

    /// Streams a blob from an offset to its end, going on where a connection was cut.
    pub(crate) async fn blob(
        &self,
        descriptor: &Descriptor,
        mut offset: u64,
        give: &mpsc::Sender<Chunk>,
    ) -> Result<()> {
        let object = format!("blob {} of {}", descriptor.digest, self.repository);
        let mut failure = None;
        let hosts: Vec<&Host> = self.hosts.iter().filter(|host| host.pull).collect();
        for host in hosts {
            let mut tried = 0;
            while tried < TRIES {
                let (reason, reached) = match self.stream(host, (descriptor, &object), offset, give).await {
                    Ok(Ended::Complete) => return Ok(()),
                    Ok(Ended::Cut(reached, reason)) => (self.unavailable(host, &object, reason), reached),
                    Err(error @ Error::ManifestRejected { .. }) => return Err(error),
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                };
                tried = if reached > offset { 1 } else { tried + 1 };
                (offset, failure) = (reached, Some(reason));
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
        let mut reached = offset;
        loop {
            let mut piece = match client::piece(response.body_mut()).await {
                Ok(Some(piece)) => piece,
                Ok(None) if reached == descriptor.size => return Ok(Ended::Complete),
                Ok(None) => {
                    return Ok(Ended::Cut(
                        reached,
                        format!("it ended after {reached} of {} bytes", descriptor.size),
                    ));
                }
                Err(reason) => return Ok(Ended::Cut(reached, reason)),
            };
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
            drop(piece.split_to(skipped));
            skip -= skipped as u64;
            reached += piece.len() as u64;
            if reached > descriptor.size {
                let reason =
                    format!("it is larger than the {} bytes that its manifest says", descriptor.size);
                return Err(Error::ManifestRejected { object: object.to_owned(), reason });
            }
            if !piece.is_empty() && give.send(Chunk::Data(piece)).await.is_err() {
                return Ok(Ended::Complete);
            }
        }
    }
}

/// Where a partial answer begins: `bytes 5-9/10`.
fn range_start(response: &Response<Incoming>) -> Option<u64> {
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

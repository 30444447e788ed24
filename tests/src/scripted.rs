//! A registry that answers as a test tells it, byte by byte: busy, failing, cutting, stalling, lying.

use crate::artifact::{Artifact, digest};
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An answer to a request for a path.
#[derive(Clone, Debug)]
pub enum Answer {
    /// All of it, or the rest from where the client wants to go on.
    Whole(Vec<u8>),
    /// The same as a document of this type.
    Document(&'static str, Vec<u8>),
    /// All of it is promised, this much is sent.
    Cut(Vec<u8>, usize),
    /// This much is sent, then nothing until the client goes or all are released.
    Stalled(Vec<u8>, usize),
    /// A status line, headers, a body.
    Status(&'static str, Vec<(&'static str, String)>, Vec<u8>),
}

impl Answer {
    /// A status without more.
    #[must_use]
    pub fn status(line: &'static str) -> Self {
        Self::Status(line, Vec::new(), Vec::new())
    }
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The path without its query.
    pub path: String,
    /// The query.
    pub query: String,
    /// Where the client wanted to go on.
    pub range: Option<u64>,
    /// The credentials of the request.
    pub authorization: Option<String>,
    /// When.
    pub at: Instant,
}

#[derive(Debug, Default)]
struct Shared {
    script: Mutex<HashMap<String, Vec<Answer>>>,
    seen: Mutex<Vec<Seen>>,
    /// Clients that went while they were kept waiting.
    gone: AtomicUsize,
    released: AtomicBool,
    ended: AtomicBool,
}

/// A running one; dropped, it is over.
#[derive(Debug)]
pub struct Scripted {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Scripted {
    /// Starts one that has nothing: every path is answered 404.
    ///
    /// # Panics
    /// When loopback has no free port.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if own.ended.load(Ordering::SeqCst) {
                    return;
                }
                let own = Arc::clone(&own);
                // A client that goes in the middle is no failure of the registry's.
                std::thread::spawn(move || stream.and_then(|stream| serve(stream, &own)).is_ok());
            }
        });
        Self { address, shared }
    }

    /// A name in this registry.
    #[must_use]
    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the answers to requests for a path, in this order; the last one is repeated.
    pub fn answer(&self, path: &str, answers: Vec<Answer>) {
        let mut script = self.shared.script.lock().unwrap_or_else(PoisonError::into_inner);
        script.insert(path.to_owned(), answers);
    }

    /// Serves an image under a tag and its digest.
    pub fn hold(&self, artifact: &Artifact, repository: &str, tag: &str) {
        let manifest = artifact.manifest_bytes();
        for selector in [tag, &digest(&manifest)] {
            self.answer(
                &format!("/v2/{repository}/manifests/{selector}"),
                vec![Answer::Whole(manifest.clone())],
            );
        }
        for blob in artifact.layers.iter().chain([&artifact.config]) {
            self.answer(&blob_path(repository, blob), vec![Answer::Whole(blob.clone())]);
        }
    }

    /// The requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The requests for a path so far.
    #[must_use]
    pub fn seen_at(&self, path: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.path == path).collect()
    }

    /// Waits until a path was asked for so many times.
    ///
    /// # Panics
    /// When it is not within half a minute.
    pub fn wait_for(&self, path: &str, times: usize) {
        crate::wait(&format!("{times} requests for {path}"), || self.seen_at(path).len() >= times);
    }

    /// Cuts the connections that are kept waiting.
    pub fn release(&self) {
        self.shared.released.store(true, Ordering::SeqCst);
    }

    /// How many clients went while they were kept waiting.
    #[must_use]
    pub fn gone(&self) -> usize {
        self.shared.gone.load(Ordering::SeqCst)
    }
}

/// Where a repository's blob is asked for.
#[must_use]
pub fn blob_path(repository: &str, blob: &[u8]) -> String {
    format!("/v2/{repository}/blobs/{}", digest(blob))
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

pub(crate) fn request(stream: &TcpStream) -> std::io::Result<Seen> {
    let mut seen = Seen {
        method: String::new(),
        path: String::new(),
        query: String::new(),
        range: None,
        authorization: None,
        at: Instant::now(),
    };
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?;
        if seen.method.is_empty() {
            let mut words = line.split(' ').map(str::to_owned);
            seen.method = words.next().unwrap_or_default();
            let target = words.next().unwrap_or_default();
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            (seen.path, seen.query) = (path.to_owned(), query.to_owned());
        } else if let Some((key, value)) = line.split_once(": ") {
            match key.to_ascii_lowercase().as_str() {
                "range" => {
                    seen.range = value
                        .strip_prefix("bytes=")
                        .and_then(|value| value.trim_end_matches('-').parse().ok());
                }
                "authorization" => seen.authorization = Some(value.to_owned()),
                _ => {}
            }
        }
        if line.is_empty() {
            break;
        }
    }
    Ok(seen)
}

fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let seen = request(&stream)?;
    let range = seen.range;
    let next = {
        let mut script = shared.script.lock().unwrap_or_else(PoisonError::into_inner);
        match script.get_mut(&seen.path) {
            Some(answers) if answers.len() > 1 => answers.remove(0),
            Some(answers) => answers[0].clone(),
            None => Answer::status("404 Not Found"),
        }
    };
    shared.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    match next {
        Answer::Whole(body) => send(&mut stream, (&body, body.len()), range, None),
        Answer::Document(kind, body) => send(&mut stream, (&body, body.len()), range, Some(kind)),
        Answer::Cut(body, sent) => send(&mut stream, (&body, sent), range, None),
        Answer::Stalled(body, sent) => {
            send(&mut stream, (&body, sent), range, None)?;
            stream.set_read_timeout(Some(Duration::from_millis(20)))?;
            while !shared.ended.load(Ordering::SeqCst) && !shared.released.load(Ordering::SeqCst) {
                if matches!(stream.read(&mut [0; 1]), Ok(0)) {
                    shared.gone.fetch_add(1, Ordering::SeqCst);
                    return Ok(());
                }
            }
            Ok(())
        }
        Answer::Status(line, headers, body) => {
            write!(stream, "HTTP/1.1 {line}\r\nconnection: close\r\ncontent-length: {}\r\n", body.len())?;
            for (key, value) in headers {
                write!(stream, "{key}: {value}\r\n")?;
            }
            stream.write_all(b"\r\n")?;
            stream.write_all(&body)
        }
    }
}

fn send(
    stream: &mut TcpStream,
    (body, sent): (&[u8], usize),
    range: Option<u64>,
    kind: Option<&str>,
) -> std::io::Result<()> {
    let from = range.map_or(0, |from| usize::try_from(from).unwrap_or(usize::MAX));
    if from > 0 && from >= body.len() {
        return write!(
            stream,
            "HTTP/1.1 416 Range Not Satisfiable\r\ncontent-range: bytes */{}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            body.len()
        );
    }
    let status = match range {
        Some(_) => format!(
            "206 Partial Content\r\ncontent-range: bytes {from}-{}/{}",
            body.len().saturating_sub(1),
            body.len()
        ),
        None => "200 OK".into(),
    };
    let kind = kind.map(|kind| format!("content-type: {kind}\r\n")).unwrap_or_default();
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{kind}content-length: {}\r\nconnection: close\r\n\r\n",
        body.len() - from
    )?;
    stream.write_all(&body[from..sent.max(from)])
}

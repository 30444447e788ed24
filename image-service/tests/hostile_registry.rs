//! A registry that misbehaves: it is busy, fails, cuts connections, and sends what its digests deny. Each answer is
//! scripted, byte by byte, on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use slipway_image::{Credentials, Digest, Error, PullProgress, Reference, Store, StoreConfig};

/// The registry's answers for a path, in this order; the last answer stays.
type Script = HashMap<String, Vec<Answer>>;

#[derive(Clone)]
enum Answer {
    Whole(Vec<u8>),
    /// All of it is promised, this much is sent.
    Cut(Vec<u8>, usize),
    Status(&'static str),
    /// Half of it, and then nothing more.
    Stalled(Vec<u8>),
    /// An upload goes to this path.
    Begun(&'static str),
    /// The request is read up to its body, of which nothing is taken.
    Deaf,
}

/// The requests that came: path and range.
type Seen = Arc<Mutex<Vec<(String, Option<u64>)>>>;

fn serve(script: Script) -> (u16, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, script) = (Seen::default(), Arc::new(Mutex::new(script)));
    let log = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (script, log) = (Arc::clone(&script), Arc::clone(&log));
            std::thread::spawn(move || drop(answer(stream.unwrap(), &script, &log)));
        }
    });
    (port, seen)
}

fn answer(
    mut stream: TcpStream,
    script: &Mutex<Script>,
    seen: &Mutex<Vec<(String, Option<u64>)>>,
) -> std::io::Result<()> {
    let (mut path, mut range) = (String::new(), None);
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?;
        if path.is_empty() {
            let target = line.split(' ').nth(1).unwrap_or_default();
            path = target.split('?').next().unwrap_or_default().to_owned();
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            range = value.trim_end_matches('-').parse::<u64>().ok();
        }
        if line.is_empty() {
            break;
        }
    }
    seen.lock().unwrap().push((path.clone(), range));
    let next = {
        let mut script = script.lock().unwrap();
        match script.get_mut(&path) {
            Some(answers) if answers.len() > 1 => answers.remove(0),
            Some(answers) => answers[0].clone(),
            None => Answer::Status("404 Not Found"),
        }
    };
    let (body, sent) = match next {
        Answer::Whole(body) => (body.clone(), body.len()),
        Answer::Cut(body, sent) => (body, sent),
        Answer::Stalled(body) => {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len())?;
            stream.write_all(&body[..body.len() / 2])?;
            std::thread::sleep(Duration::from_secs(60));
            return Ok(());
        }
        Answer::Begun(location) => {
            let status = "202 Accepted";
            return write!(
                stream,
                "HTTP/1.1 {status}\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
        }
        Answer::Deaf => {
            std::thread::sleep(Duration::from_secs(60));
            return Ok(());
        }
        Answer::Status(status) => {
            return write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    };
    let from = usize::try_from(range.unwrap_or(0)).unwrap();
    let status = if range.is_some() {
        format!("206 Partial Content\r\ncontent-range: bytes {from}-{}/{}", body.len() - 1, body.len())
    } else {
        "200 OK".into()
    };
    let length = body.len() - from;
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")?;
    stream.write_all(&body[from..sent.max(from)])
}

/// An image of one layer: manifest, configuration, layer.
struct Parts {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layer: Vec<u8>,
}

fn parts(diff_id: Option<Digest>) -> Parts {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(300_000);
    header.set_uid(rustix::process::geteuid().as_raw().into());
    header.set_gid(rustix::process::getegid().as_raw().into());
    let data: Vec<u8> = (0..300_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    builder.append_data(&mut header, "data", data.as_slice()).unwrap();
    let layer = builder.into_inner().unwrap();
    let diff_id = diff_id.unwrap_or(Digest::of(&layer));
    let config = serde_json::json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]}});
    let config = config.to_string().into_bytes();
    let descriptor = |kind: &str, bytes: &[u8]| serde_json::json!({"mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len()});
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)]});
    Parts { manifest: manifest.to_string().into_bytes(), config, layer }
}

impl Parts {
    fn layer_path(&self) -> String {
        format!("/v2/a/blobs/{}", Digest::of(&self.layer))
    }

    fn script(&self) -> Script {
        let whole = |bytes: &[u8]| vec![Answer::Whole(bytes.to_vec())];
        HashMap::from([
            ("/v2/a/manifests/t".to_owned(), whole(&self.manifest)),
            (format!("/v2/a/blobs/{}", Digest::of(&self.config)), whole(&self.config)),
            (self.layer_path(), whole(&self.layer)),
        ])
    }
}

async fn pull(script: Script) -> (tempfile::TempDir, Store, Result<Digest, Error>, Seen) {
    let (port, seen) = serve(script);
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(StoreConfig::new(folder.path())).unwrap();
    let reference: Reference = format!("127.0.0.1:{port}/a:t").parse().unwrap();
    let quiet = |_: PullProgress| {};
    let pulled =
        store.pull(&reference, &Credentials::Anonymous, &quiet).await.map(|pulled| pulled.image.id.0);
    (folder, store, pulled, seen)
}

/// Nothing is left but what a next try goes on from.
fn assert_clean(folder: &tempfile::TempDir, store: &Store) {
    assert!(store.images().is_empty());
    for name in ["layers", "images", "refs", "drafts", "trash", "blobs/sha256", "blobs/partial"] {
        assert_eq!(std::fs::read_dir(folder.path().join(name)).unwrap().count(), 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_blob_goes_on_from_where_it_was_cut() {
    let parts = parts(None);
    let mut script = parts.script();
    let (layer, path) = (parts.layer.clone(), parts.layer_path());
    script.insert(
        path.clone(),
        vec![Answer::Cut(layer.clone(), 100_000), Answer::Cut(layer.clone(), 200_000), Answer::Whole(layer)],
    );
    let (_folder, store, pulled, seen) = pull(script).await;
    assert_eq!(pulled.unwrap(), Digest::of(&parts.config));
    let ranges: Vec<Option<u64>> =
        seen.lock().unwrap().iter().filter(|(seen, _)| *seen == path).map(|(_, range)| *range).collect();
    assert_eq!(ranges, [None, Some(100_000), Some(200_000)]);
    assert_eq!(store.check().unwrap().findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_registry_is_asked_again() {
    let parts = parts(None);
    let mut script = parts.script();
    let busy = [Answer::Status("429 Too Many Requests"), Answer::Status("500 Internal Server Error")];
    script.get_mut("/v2/a/manifests/t").unwrap().splice(0..0, busy);
    assert!(pull(script).await.2.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_goes_on_failing_is_given_up() {
    for status in ["500 Internal Server Error", "429 Too Many Requests"] {
        let mut script = parts(None).script();
        script.insert("/v2/a/manifests/t".into(), vec![Answer::Status(status)]);
        let (folder, store, pulled, seen) = pull(script).await;
        let error = pulled.unwrap_err();
        let error = error.cause();
        assert!(matches!(error, Error::RegistryUnavailable { .. }), "{error}");
        assert!(error.to_string().contains(&status[..3]), "{error}");
        assert_eq!(seen.lock().unwrap().len(), 5);
        assert_clean(&folder, &store);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_from_its_digest_is_refused_and_leaves_nothing() {
    let whole = parts(None);
    let mut altered = whole.layer.clone();
    altered[5000] ^= 1;
    let mut script = whole.script();
    script.insert(whole.layer_path(), vec![Answer::Whole(altered)]);
    let (folder, store, pulled, _) = pull(script).await;
    assert!(matches!(pulled.as_ref().map_err(Error::cause), Err(Error::DigestMismatch { .. })), "{pulled:?}");
    assert_clean(&folder, &store);

    let wrong = parts(Some(Digest::of(b"another tar")));
    let (folder, store, pulled, _) = pull(wrong.script()).await;
    assert!(matches!(pulled.as_ref().map_err(Error::cause), Err(Error::DigestMismatch { .. })), "{pulled:?}");
    assert_clean(&folder, &store);

    let mut script = whole.script();
    script.insert(format!("/v2/a/blobs/{}", Digest::of(&whole.config)), vec![Answer::Whole(b"{}".to_vec())]);
    let (folder, store, pulled, _) = pull(script).await;
    assert!(matches!(pulled.as_ref().map_err(Error::cause), Err(Error::DigestMismatch { .. })), "{pulled:?}");
    assert_clean(&folder, &store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_pull_leaves_a_partial_blob_that_the_next_goes_on_from() {
    let parts = parts(None);
    let mut script = parts.script();
    let path = parts.layer_path();
    script
        .insert(path.clone(), vec![Answer::Stalled(parts.layer.clone()), Answer::Whole(parts.layer.clone())]);
    let (port, seen) = serve(script);
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(StoreConfig::new(folder.path())).unwrap();
    let reference: Reference = format!("127.0.0.1:{port}/a:t").parse().unwrap();
    let quiet = |_: PullProgress| {};
    let half = u64::try_from(parts.layer.len() / 2).unwrap();
    let first = store.pull(&reference, &Credentials::Anonymous, &quiet);
    assert!(tokio::time::timeout(Duration::from_millis(1500), first).await.is_err());
    let drafts = folder.path().join("drafts");
    for _ in 0..500 {
        if std::fs::read_dir(&drafts).unwrap().count() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(std::fs::read_dir(&drafts).unwrap().count(), 0);
    store.pull(&reference, &Credentials::Anonymous, &quiet).await.unwrap();
    let ranges: Vec<Option<u64>> =
        seen.lock().unwrap().iter().filter(|(seen, _)| *seen == path).map(|(_, range)| *range).collect();
    assert_eq!(ranges, [None, Some(half)]);
}

/// An upload was given up when it took more than five minutes in all, and one of which a registry took nothing was waited
/// for as long. The layer is larger than the buffers of a connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_takes_nothing_of_an_upload_is_given_up() {
    let script = HashMap::from([
        ("/v2/a/blobs/uploads/".to_owned(), vec![Answer::Begun("/v2/a/upload")]),
        ("/v2/a/upload".to_owned(), vec![Answer::Deaf]),
    ]);
    let (port, seen) = serve(script);
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig { registry_silence: Duration::from_secs(1), ..StoreConfig::new(folder.path()) };
    let store = Store::open(config).unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    // Nothing that a compressor makes smaller (xorshift).
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let noise: Vec<u8> = (0..3 << 20).flat_map(|_| next()).collect();
    header.set_mode(0o644);
    header.set_size(noise.len() as u64);
    header.set_uid(rustix::process::geteuid().as_raw().into());
    header.set_gid(rustix::process::getegid().as_raw().into());
    builder.append_data(&mut header, "noise", noise.as_slice()).unwrap();
    let layer = store.import_layer(builder.into_inner().unwrap().as_slice(), &[]).unwrap();
    let reference: Reference = format!("127.0.0.1:{port}/a:t").parse().unwrap();
    let config = oci_spec::image::ImageConfiguration::default();
    store.commit_image(&config, &[layer.diff_id], std::slice::from_ref(&reference)).unwrap();
    let pushed = store.push(&reference, &Credentials::Anonymous, &|_| {}).await;
    let error = pushed.unwrap_err().cause().to_string();
    assert!(error.contains("nothing of the upload was taken for 1 s"), "{error}");
    assert!(seen.lock().unwrap().iter().filter(|(path, _)| path == "/v2/a/upload").count() > 1);
}

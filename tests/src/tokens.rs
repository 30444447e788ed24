//! A token service as Docker's registry knows it: signed tokens for whoever proves to be [`USER`], and pulls for everyone.

use crate::authority::Authority;
use crate::scripted::{Seen, request};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// The one user of a registry with authentication.
pub const USER: &str = "captain";
/// That user's password.
pub const PASSWORD: &str = "anchor-7";
/// The registry's name in tokens.
pub const SERVICE: &str = "harbour of tests";
/// The name of who signs.
pub const ISSUER: &str = "pilot";

/// A running one; dropped, it is over.
#[derive(Debug)]
pub struct Tokens {
    address: SocketAddr,
    authority: Arc<Authority>,
    seen: Arc<Mutex<Vec<Seen>>>,
    ended: Arc<AtomicBool>,
}

impl Tokens {
    /// Starts one with an authority of its own.
    ///
    /// # Panics
    /// When loopback has no free port.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
        let address = listener.local_addr().expect("its address");
        let tokens = Self { address, authority: Arc::default(), seen: Arc::default(), ended: Arc::default() };
        let (authority, seen, ended) =
            (Arc::clone(&tokens.authority), Arc::clone(&tokens.seen), Arc::clone(&tokens.ended));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (authority, seen) = (Arc::clone(&authority), Arc::clone(&seen));
                // A client that goes in the middle is no failure of the service's.
                std::thread::spawn(move || serve(stream, &authority, &seen).is_ok());
            }
        });
        tokens
    }

    /// Where tokens are asked for.
    #[must_use]
    pub fn realm(&self) -> String {
        format!("http://{}/token?account=ship", self.address)
    }

    /// The authority that signs the tokens.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The requests so far, their queries decoded.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

fn serve(mut stream: TcpStream, authority: &Authority, log: &Mutex<Vec<Seen>>) -> std::io::Result<()> {
    let mut seen = request(&stream)?;
    seen.query = decode(&seen.query);
    let user = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    let known = seen.authorization.as_ref().map(|shown| *shown == user);
    let scope =
        seen.query.split('&').find_map(|part| part.strip_prefix("scope=")).unwrap_or_default().to_owned();
    log.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    let (status, body) = match known {
        Some(false) => ("401 Unauthorized", json!({"details": "who is that"})),
        known => ("200 OK", json!({"token": token(authority, &scope, known.is_some()), "expires_in": 60})),
    };
    let body = body.to_string();
    write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Everyone may pull; who is known may push.
fn token(authority: &Authority, scope: &str, known: bool) -> String {
    let mut parts = scope.rsplitn(2, ':');
    let actions: Vec<&str> =
        parts.next().unwrap_or_default().split(',').filter(|action| known || *action == "pull").collect();
    let name = parts.next().and_then(|rest| rest.strip_prefix("repository:")).unwrap_or_default();
    let pem = std::fs::read_to_string(authority.certificate()).expect("the certificate is read");
    let der: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [der]});
    let claims = json!({"iss": ISSUER, "aud": SERVICE, "sub": "ship", "nbf": now - 60, "iat": now - 60,
        "exp": now + 60, "jti": now.to_string(),
        "access": [{"type": "repository", "name": name, "actions": actions}]});
    let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let signature = URL_SAFE_NO_PAD.encode(authority.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn decode(query: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = query.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

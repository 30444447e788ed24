//! Servers and clients in network namespaces: what a peer sends and from where it seems to come.

use crate::netns::within;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a client waits for what should come.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a server looks whether it is to end, and a client sends again what may have been lost.
const TICK: Duration = Duration::from_millis(100);

/// A server on all addresses of a network namespace, which tells each client a word and the client's address as it sees
/// it: `WORD ADDRESS`. It ends with this.
#[derive(Debug)]
pub struct Server {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// A TCP server.
    ///
    /// # Panics
    /// When the port is taken.
    #[must_use]
    pub fn tcp(netns: &Path, port: u16, word: &str) -> Self {
        let listener = within(netns, || TcpListener::bind(("::", port))).expect("the server's port is free");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let word = word.to_owned();
        Self::run(move || match listener.accept() {
            Ok((mut client, peer)) => {
                let _ = writeln!(client, "{word} {}", peer.ip().to_canonical());
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        })
    }

    /// A UDP server.
    ///
    /// # Panics
    /// When the port is taken.
    #[must_use]
    pub fn udp(netns: &Path, port: u16, word: &str) -> Self {
        let socket = within(netns, || UdpSocket::bind(("::", port))).expect("the server's port is free");
        socket.set_read_timeout(Some(TICK)).expect("a time-out");
        let word = word.to_owned();
        Self::run(move || {
            let mut bytes = [0; 64];
            if let Ok((_, peer)) = socket.recv_from(&mut bytes) {
                let _ = socket.send_to(format!("{word} {}", peer.ip().to_canonical()).as_bytes(), peer);
            }
        })
    }

    fn run(mut serve: impl FnMut() + Send + 'static) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                serve();
            }
        });
        Self { end, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The answer of a TCP server to a client in this network namespace.
///
/// # Errors
/// When there is no connection; one that nobody listens for is refused at once.
pub fn ask_tcp(netns: &Path, to: (&str, u16)) -> io::Result<String> {
    within(netns, || {
        let mut stream = TcpStream::connect_timeout(&address(to), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text.trim().to_owned())
    })
}

/// The answer of a UDP server to a client in this network namespace.
///
/// # Errors
/// When nothing answers.
pub fn ask_udp(netns: &Path, to: (&str, u16)) -> io::Result<String> {
    udp_client(netns, to).and_then(|socket| tell(&socket))
}

/// A UDP client that keeps its port, so that all that it sends is one flow.
///
/// # Errors
/// When there is no way to the address.
pub fn udp_client(netns: &Path, to: (&str, u16)) -> io::Result<UdpSocket> {
    let to = address(to);
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u8; 16].into() };
    within(netns, || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(to)?;
        Ok(socket)
    })
}

/// Sends until something comes back, and returns that.
///
/// # Errors
/// When nothing answers.
pub fn tell(socket: &UdpSocket) -> io::Result<String> {
    socket.set_read_timeout(Some(TICK))?;
    let deadline = Instant::now() + PATIENCE;
    let mut bytes = [0; 64];
    loop {
        let _ = socket.send(b"ahoy");
        match socket.recv(&mut bytes) {
            Ok(length) => return Ok(String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => {}
        }
    }
}

/// An address and a port.
///
/// # Panics
/// When the text is no address.
#[must_use]
pub fn address((ip, port): (&str, u16)) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), port)
}

//! HTTP/2 frame by frame, for what a library never does: a peer that sends each small message in a frame of its own, as
//! many as the other end's window takes.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

/// Types of frames (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The setting of a stream's first window, and what it is when nothing is said.
const INITIAL_WINDOW_SIZE: u16 = 4;
const DEFAULT_WINDOW: u32 = 65_535;

/// The one stream of a connection.
const STREAM: u32 = 1;

/// One end of a connection with one stream.
#[derive(Debug)]
pub struct Http2 {
    socket: UnixStream,
    /// How many bytes the other end takes of the stream before it has read any.
    window: u32,
}

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
}

/// A frame as it is written.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header that no table has.
fn header(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).expect("a short text")], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// Messages of gRPC, each in a DATA frame of its own.
#[must_use]
pub fn frames(messages: &[Vec<u8>]) -> Vec<u8> {
    let framed = |message: &Vec<u8>| {
        let length = u32::try_from(message.len()).expect("a short message").to_be_bytes();
        frame(DATA, 0, STREAM, &[&[0], &length[..], message].concat())
    };
    messages.iter().flat_map(framed).collect()
}

impl Http2 {
    /// Calls a method of a server's.
    ///
    /// # Panics
    /// When the server does not speak HTTP/2.
    #[must_use]
    pub fn call(socket: UnixStream, path: &str) -> Self {
        let mut called = Self { socket, window: DEFAULT_WINDOW };
        let headers = [
            header(":method", "POST"),
            header(":scheme", "http"),
            header(":path", path),
            header(":authority", "localhost"),
            header("content-type", "application/grpc"),
            header("te", "trailers"),
        ];
        called.send(PREFACE);
        called.send(&frame(SETTINGS, 0, 0, &[]));
        called.await_kind(SETTINGS);
        // The connection's window; before that it is smaller than a stream's.
        called.await_kind(WINDOW_UPDATE);
        called.send(&frame(HEADERS, END_HEADERS, STREAM, &headers.concat()));
        called
    }

    /// Answers a client's call, whatever it is.
    ///
    /// # Panics
    /// When the client does not speak HTTP/2.
    #[must_use]
    pub fn answer(socket: UnixStream) -> Self {
        let mut answered = Self { socket, window: DEFAULT_WINDOW };
        let mut preface = [0; PREFACE.len()];
        answered.socket.read_exact(&mut preface).expect("the preface");
        answered.send(&frame(SETTINGS, 0, 0, &[]));
        answered.await_kind(HEADERS);
        let headers = [header(":status", "200"), header("content-type", "application/grpc")];
        answered.send(&frame(HEADERS, END_HEADERS, STREAM, &headers.concat()));
        answered
    }

    /// How many frames of these bytes the other end takes before it has read any.
    ///
    /// # Panics
    /// When the frames are none.
    #[must_use]
    pub fn room(&self, payload: usize) -> usize {
        usize::try_from(self.window).expect("a window") / payload
    }

    /// The end of an answer that went well, as it is written.
    #[must_use]
    pub fn trailers() -> Vec<u8> {
        frame(HEADERS, END_HEADERS | END_STREAM, STREAM, &header("grpc-status", "0"))
    }

    /// The socket, for what is written by hand.
    #[must_use]
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Writes frames.
    ///
    /// # Panics
    /// When the other end has gone.
    pub fn send(&mut self, frames: &[u8]) {
        self.socket.write_all(frames).expect("frames are sent");
    }

    /// Whether the other end still serves the connection, having taken all that was sent.
    ///
    /// # Panics
    /// When the socket can't be read.
    pub fn is_alive(&mut self) -> bool {
        let asked = self.socket.write_all(&frame(PING, 0, 0, b"anybody?"));
        asked.is_ok()
            && std::iter::from_fn(|| self.receive()).any(|frame| frame.kind == PING && frame.flags & ACK != 0)
    }

    fn await_kind(&mut self, kind: u8) {
        while self.receive().expect("a frame").kind != kind {}
    }

    /// The next frame; none at the connection's end.
    fn receive(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head).ok()?;
        let [high, middle, low, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
        self.socket.read_exact(&mut payload).ok()?;
        if kind == SETTINGS && flags & ACK == 0 {
            for setting in payload.as_chunks::<6>().0 {
                let [id_high, id_low, value @ ..] = *setting;
                if u16::from_be_bytes([id_high, id_low]) == INITIAL_WINDOW_SIZE {
                    self.window = u32::from_be_bytes(value);
                }
            }
            self.send(&frame(SETTINGS, ACK, 0, &[]));
        }
        Some(Frame { kind, flags })
    }
}

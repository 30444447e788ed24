//! How much may wait unread on a connection, for both of its ends.
//!
//! Flow control counts bytes, and what waits takes memory by the frame as well: an end that holds too many small ones
//! unread ends the whole connection (`ENHANCE_YOUR_CALM`, `too_many_data_frames`). A frame of n bytes counts 256 - n
//! there, and all of them together half of the connection's window. A message is a frame of its own when its sender has
//! no more at hand, as with lines that come one by one, and no more than its reader's stream window can wait unread: with
//! connection windows of 64 stream windows the limit is out of reach for frames of 8 bytes and more, and no message
//! that repeats is smaller.

use tonic::transport::{Endpoint, Server};

/// The greatest length of a message in either direction, in bytes: that of kubelet.
pub const MESSAGE_MAX: usize = 16 << 20;
/// Bytes of one stream that may wait unread.
const STREAM: u32 = 256 << 10;
/// Bytes of all streams of a connection that may wait unread.
const CONNECTION: u32 = 64 * STREAM;

/// A server's settings.
#[must_use]
pub fn server() -> Server {
    Server::builder().initial_stream_window_size(STREAM).initial_connection_window_size(CONNECTION)
}

/// A client's settings; the address is that of a socket which the caller connects.
#[must_use]
pub fn endpoint() -> Endpoint {
    Endpoint::from_static("http://localhost")
        .initial_stream_window_size(STREAM)
        .initial_connection_window_size(CONNECTION)
}

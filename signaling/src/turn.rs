//! Clients of the TURN relay that come over TCP, in clear or in TLS (RFC 8656 section 3.1): their messages follow each
//! other in a stream.
//!
//! Knows nothing of what they mean. A stream that has no allocation ten seconds after its first bytes is cut, and so is
//! one in which nobody can tell any more where a message begins. Its queue is the same as that of other media over TCP.

use crate::crowd::HalfOpen;
use crate::stream::{self, Queue};
use crate::tls::{HANDSHAKE, Wire};
use asamblea_sfu_io::carrier::Carriage;
use asamblea_sfu_io::turn;
use asamblea_sfu_io::turn::{HEAD_BYTES, MESSAGE_BYTES_MAX, Stranger, TurnClient, TurnServer, message_bytes};
use std::io::{self, Cursor};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};
use tokio::time::{timeout, timeout_at};

/// What a client's first message begins with: a request to allocate (RFC 8656 section 17). As the length of a frame it
/// would be too short for a check.
pub(crate) const ALLOCATE: u16 = 0x0003;

/// Requests before an allocation: one without credentials, one with, and a few for a nonce that grew stale.
const REQUESTS_MAX: usize = 6;

/// Serves a client until it ends or its allocation does. `head` was read of the stream already; it is half-open until it
/// has an allocation.
///
/// # Errors
/// What ended it: `PermissionDenied` without an allocation, `InvalidData` where no message begins, `TimedOut` after
/// silence.
pub(crate) async fn serve(
    wire: Wire,
    head: Vec<u8>,
    remote: SocketAddr,
    server: Arc<TurnServer>,
    half_open: HalfOpen,
) -> io::Result<()> {
    stream::hold_little(wire.tcp());
    // As the client would name itself: behind a socket of both families it is seen as a mapped IPv6 address.
    let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
    let (queue, waiting) = stream::queue();
    let (read, write) = tokio::io::split(wire);
    let messages = BufReader::new(Cursor::new(head).chain(read));
    tokio::select! {
        ended = take_in(messages, queue, remote, server, half_open) => ended,
        ended = stream::put_out(write, waiting) => ended,
    }
}

async fn take_in(
    mut messages: impl AsyncRead + Unpin,
    queue: Queue,
    remote: SocketAddr,
    server: Arc<TurnServer>,
    mut half_open: HalfOpen,
) -> io::Result<()> {
    let mut room = [0; MESSAGE_BYTES_MAX];
    let mut client = tokio::select! {
        client = timeout(HANDSHAKE, admit(&mut messages, &mut room, queue, remote, server)) => client??,
        () = half_open.crowded_out() => return Ok(()),
    };
    drop(half_open);
    loop {
        let message = timeout_at(client.expires_at().into(), read(&mut messages, &mut room)).await??;
        if !client.handle(message) {
            return Ok(());
        }
    }
}

/// Waits for the request that gets an allocation.
async fn admit(
    messages: &mut (impl AsyncRead + Unpin),
    room: &mut [u8; MESSAGE_BYTES_MAX],
    queue: Queue,
    remote: SocketAddr,
    server: Arc<TurnServer>,
) -> io::Result<TurnClient<Out>> {
    for _ in 0..REQUESTS_MAX {
        let message = read(messages, room).await?;
        let answer = match server.greet(remote, message) {
            Stranger::Admit => match server.admit(remote, message, Out(queue.clone())) {
                Ok(client) => return Ok(client),
                Err(answer) => answer,
            },
            Stranger::Answer(answer) => Some(answer),
            Stranger::Drop(_) => None,
        };
        // Without an answer the client would wait in vain.
        let answer = answer.ok_or(io::ErrorKind::InvalidData)?;
        queue.put_answer(answer.to_vec());
    }
    Err(io::ErrorKind::PermissionDenied.into())
}

/// Reads one message.
///
/// # Errors
/// What the stream says, or `InvalidData` where no message begins.
async fn read<'a>(
    stream: &mut (impl AsyncRead + Unpin),
    room: &'a mut [u8; MESSAGE_BYTES_MAX],
) -> io::Result<&'a [u8]> {
    let (head, _) = room.split_first_chunk_mut::<HEAD_BYTES>().expect("a message is longer");
    stream.read_exact(head).await?;
    let whole = message_bytes(*head).map_err(|lie| io::Error::new(io::ErrorKind::InvalidData, lie))?;
    stream.read_exact(&mut room[HEAD_BYTES..whole]).await?;
    Ok(&room[..whole])
}

/// The way back to a client.
#[derive(Clone)]
struct Out(Queue);

impl turn::Wire for Out {
    const IS_STREAM: bool = true;

    fn answer(&self, message: &[u8]) -> Carriage {
        self.0.put_answer(message.to_vec())
    }

    fn send(&self, message: &[u8]) -> Carriage {
        self.0.put(message.to_vec())
    }

    fn take_late(&self) -> u64 {
        self.0.take_late()
    }
}

//! ICE over TCP (RFC 6544): a stream of framed datagrams (RFC 4571) between a browser and the media plane.
//!
//! Looks at no datagram. The first has to be one that the media plane takes as authentic, before anything is kept
//! beyond the connection. A reader that is slow loses datagrams instead of getting them late: loss is what
//! congestion control understands.

use crate::media::MediaPlane;
use asamblea_sfu_io::carrier::{Carriage, Carrier, Inlet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Longest frame taken: browsers keep to an Ethernet frame over TCP too. A longer one is a lie and ends the stream.
pub const FRAME_BYTES_MAX: usize = 1_500;

/// Datagrams that wait to be written, a burst of key frames to a screen full of slots.
const QUEUE_DATAGRAMS_MAX: usize = 512;

/// Bytes that wait to be written: a fifth of a second of 10 Mbit/s.
const QUEUE_BYTES_MAX: usize = 256 << 10;

/// A datagram that waited this long is worth nothing any more.
const LATE: Duration = Duration::from_millis(200);

/// Bytes that the kernel may hold unsent, so that what waits does so in our queue, where it can be dropped.
const UNSENT_BYTES: u32 = 16 << 10;

/// A stream that takes or gives nothing for this long has ended: checks come every few seconds, and a path without
/// them ends after as long (RFC 7675 section 5.1).
const SILENT: Duration = Duration::from_secs(30);

/// Whether a connection that begins with this byte carries frames: the high byte of a length up to
/// [`FRAME_BYTES_MAX`]. No TLS record and no HTTP method begins so.
pub fn is_framed(first: u8) -> bool {
    usize::from(first) <= FRAME_BYTES_MAX >> 8
}

/// Reads one frame.
///
/// # Errors
/// What the stream says, or `InvalidData` for an empty frame or one that is too long.
pub async fn read_frame<'a>(
    stream: &mut (impl AsyncRead + Unpin),
    room: &'a mut [u8; FRAME_BYTES_MAX],
) -> io::Result<&'a [u8]> {
    let length = usize::from(stream.read_u16().await?);
    if length == 0 || length > FRAME_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    stream.read_exact(&mut room[..length]).await?;
    Ok(&room[..length])
}

/// Carries the datagrams of a stream whose first frame was read, until either side ends it.
pub async fn carry(tcp: TcpStream, first: &[u8], remote: SocketAddr, plane: Arc<dyn MediaPlane>) {
    let _ = socket2::SockRef::from(&tcp).set_tcp_notsent_lowat(UNSENT_BYTES); // without it, only later losses
    let (queue, waiting) = mpsc::channel(QUEUE_DATAGRAMS_MAX);
    let shared = Arc::new(Queued::default());
    let outlet = Outlet { queue, queued: Arc::clone(&shared) };
    // As the peer would name itself: behind a socket of both families it is seen as a mapped IPv6 address.
    let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
    let Some(inlet) = plane.carry(remote, first, Box::new(outlet)) else { return };
    let (read, write) = tcp.into_split();
    tokio::select! {
        _ = take_in(BufReader::new(read), inlet) => {}
        _ = put_out(write, waiting, &shared) => {}
    }
}

async fn take_in(mut stream: impl AsyncRead + Unpin, inlet: Inlet) -> io::Result<()> {
    let mut room = [0; FRAME_BYTES_MAX];
    loop {
        inlet.send(timeout(SILENT, read_frame(&mut stream, &mut room)).await??);
    }
}

async fn put_out(
    mut stream: OwnedWriteHalf,
    mut waiting: mpsc::Receiver<(Instant, Vec<u8>)>,
    queued: &Queued,
) -> io::Result<()> {
    while let Some((since, frame)) = waiting.recv().await {
        queued.bytes.fetch_sub(frame.len(), Relaxed);
        if since.elapsed() > LATE {
            queued.late.fetch_add(1, Relaxed);
            continue;
        }
        timeout(SILENT, stream.write_all(&frame)).await??;
    }
    Ok(())
}

#[derive(Default)]
struct Queued {
    bytes: AtomicUsize,
    late: AtomicU64,
}

struct Outlet {
    queue: mpsc::Sender<(Instant, Vec<u8>)>,
    queued: Arc<Queued>,
}

impl Carrier for Outlet {
    fn send(&mut self, datagram: &[u8]) -> Carriage {
        let Ok(length) = u16::try_from(datagram.len()) else { return Carriage::Full };
        let frame = [&length.to_be_bytes(), datagram].concat();
        let bytes = frame.len();
        if self.queued.bytes.load(Relaxed) + bytes > QUEUE_BYTES_MAX {
            return Carriage::Full;
        }
        // Before it can be taken out.
        self.queued.bytes.fetch_add(bytes, Relaxed);
        match self.queue.try_send((Instant::now(), frame)) {
            Ok(()) => Carriage::Taken,
            Err(error) => {
                self.queued.bytes.fetch_sub(bytes, Relaxed);
                match error {
                    mpsc::error::TrySendError::Full(_) => Carriage::Full,
                    mpsc::error::TrySendError::Closed(_) => Carriage::Gone,
                }
            }
        }
    }

    fn take_late(&mut self) -> u64 {
        self.queued.late.swap(0, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn frame_of(mut bytes: &[u8]) -> io::Result<Vec<u8>> {
        read_frame(&mut bytes, &mut [0; FRAME_BYTES_MAX]).await.map(<[u8]>::to_vec)
    }

    #[tokio::test]
    async fn a_frame_is_as_long_as_it_says_or_no_frame() {
        assert_eq!(frame_of(&[0, 3, 1, 2, 3, 4]).await.expect("whole"), [1, 2, 3]);
        for lie in [&[0, 0][..], &[0, 3, 1, 2], &[0], &[0xff, 0xff, 1], &[5, 0xdd]] {
            assert!(frame_of(lie).await.is_err(), "{lie:?}");
        }
        let longest = [&1_500_u16.to_be_bytes()[..], &[7; 1_500]].concat();
        assert_eq!(frame_of(&longest).await.expect("the longest").len(), FRAME_BYTES_MAX);
    }

    #[test]
    fn frames_begin_unlike_tls_and_http() {
        assert!(is_framed(0) && is_framed(5));
        for first in [6, 0x16].into_iter().chain(b'A'..=b'Z') {
            assert!(!is_framed(first), "{first}");
        }
    }

    #[test]
    fn a_queue_that_nobody_empties_stays_within_its_bytes() {
        let (queue, _waiting) = mpsc::channel(QUEUE_DATAGRAMS_MAX);
        let mut outlet = Outlet { queue, queued: Arc::default() };
        let taken = (0..1_000).filter(|_| outlet.send(&[0; 1_200]) == Carriage::Taken).count();
        assert_eq!(taken, QUEUE_BYTES_MAX / 1_202);
        assert_eq!(outlet.queued.bytes.load(Relaxed), taken * 1_202);
    }
}

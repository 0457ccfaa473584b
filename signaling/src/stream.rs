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
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
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
    let length = stream.read_u16().await?;
    read_rest(stream, length, room).await
}

/// Reads what follows a frame's length.
///
/// # Errors
/// As [`read_frame`].
pub async fn read_rest<'a>(
    stream: &mut (impl AsyncRead + Unpin),
    length: u16,
    room: &'a mut [u8; FRAME_BYTES_MAX],
) -> io::Result<&'a [u8]> {
    let length = usize::from(length);
    if length == 0 || length > FRAME_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    stream.read_exact(&mut room[..length]).await?;
    Ok(&room[..length])
}

/// Carries the datagrams of a stream whose first frame was read, until either side ends it.
///
/// # Errors
/// What ended it: `PermissionDenied` for a first frame that is not authentic, `InvalidData` where no frame begins,
/// `TimedOut` after silence.
pub async fn carry(
    tcp: TcpStream,
    first: &[u8],
    remote: SocketAddr,
    plane: Arc<dyn MediaPlane>,
) -> io::Result<()> {
    hold_little(&tcp);
    let (queue, waiting) = queue();
    // As the peer would name itself: behind a socket of both families it is seen as a mapped IPv6 address.
    let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
    let inlet = plane
        .carry(remote, first, Box::new(Outlet { queue }))
        .ok_or_else(|| io::Error::from(io::ErrorKind::PermissionDenied))?;
    let (read, write) = tcp.into_split();
    tokio::select! {
        ended = take_in(BufReader::new(read), inlet) => ended,
        ended = put_out(write, waiting) => ended,
    }
}

async fn take_in(mut stream: impl AsyncRead + Unpin, inlet: Inlet) -> io::Result<()> {
    let mut room = [0; FRAME_BYTES_MAX];
    loop {
        inlet.send(timeout(SILENT, read_frame(&mut stream, &mut room)).await??);
    }
}

/// Has the kernel hold little of what is written, so that what waits can be dropped.
pub(crate) fn hold_little(tcp: &TcpStream) {
    let _ = socket2::SockRef::from(tcp).set_tcp_notsent_lowat(UNSENT_BYTES); // without it, only later losses
}

/// What waits to be written to a stream.
pub(crate) struct Waiting {
    queue: mpsc::Receiver<(Option<Instant>, Vec<u8>)>,
    queued: Arc<Queued>,
}

/// Where it is put; bounded in number and in bytes.
#[derive(Clone)]
pub(crate) struct Queue {
    queue: mpsc::Sender<(Option<Instant>, Vec<u8>)>,
    queued: Arc<Queued>,
}

#[derive(Default)]
struct Queued {
    bytes: AtomicUsize,
    late: AtomicU64,
}

pub(crate) fn queue() -> (Queue, Waiting) {
    let (sender, receiver) = mpsc::channel(QUEUE_DATAGRAMS_MAX);
    let queued = Arc::new(Queued::default());
    (Queue { queue: sender, queued: Arc::clone(&queued) }, Waiting { queue: receiver, queued })
}

impl Queue {
    /// Puts media in, which grows late.
    pub(crate) fn put(&self, bytes: Vec<u8>) -> Carriage {
        if self.queued.bytes.load(Relaxed) + bytes.len() > QUEUE_BYTES_MAX {
            return Carriage::Full;
        }
        self.put_any(Some(Instant::now()), bytes)
    }

    /// Puts an answer in, which is awaited however late it is.
    pub(crate) fn put_answer(&self, bytes: Vec<u8>) -> Carriage {
        self.put_any(None, bytes)
    }

    fn put_any(&self, since: Option<Instant>, bytes: Vec<u8>) -> Carriage {
        let length = bytes.len();
        // Before it can be taken out.
        self.queued.bytes.fetch_add(length, Relaxed);
        match self.queue.try_send((since, bytes)) {
            Ok(()) => Carriage::Taken,
            Err(error) => {
                self.queued.bytes.fetch_sub(length, Relaxed);
                match error {
                    mpsc::error::TrySendError::Full(_) => Carriage::Full,
                    mpsc::error::TrySendError::Closed(_) => Carriage::Gone,
                }
            }
        }
    }

    pub(crate) fn take_late(&self) -> u64 {
        self.queued.late.swap(0, Relaxed)
    }
}

/// Writes what waits until nobody puts anything in any more, or the stream takes nothing.
pub(crate) async fn put_out(
    mut stream: impl AsyncWrite + Unpin,
    Waiting { mut queue, queued }: Waiting,
) -> io::Result<()> {
    while let Some((since, bytes)) = queue.recv().await {
        queued.bytes.fetch_sub(bytes.len(), Relaxed);
        if since.is_some_and(|since| since.elapsed() > LATE) {
            queued.late.fetch_add(1, Relaxed);
            continue;
        }
        timeout(SILENT, async {
            stream.write_all(&bytes).await?;
            stream.flush().await
        })
        .await??;
    }
    Ok(())
}

struct Outlet {
    queue: Queue,
}

impl Carrier for Outlet {
    fn send(&mut self, datagram: &[u8]) -> Carriage {
        let Ok(length) = u16::try_from(datagram.len()) else { return Carriage::Full };
        self.queue.put([&length.to_be_bytes(), datagram].concat())
    }

    fn take_late(&mut self) -> u64 {
        self.queue.take_late()
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
        let (queue, _waiting) = queue();
        let mut outlet = Outlet { queue };
        let taken = (0..1_000).filter(|_| outlet.send(&[0; 1_200]) == Carriage::Taken).count();
        assert_eq!(taken, QUEUE_BYTES_MAX / 1_202);
        assert_eq!(outlet.queue.queued.bytes.load(Relaxed), taken * 1_202);
    }
}

//! Paths of which the heart says that what comes on them may wait some milliseconds: it is taken in together.
//!
//! Most of a large meeting only listens, and says so and so often that all has arrived. Each word of theirs would wake the
//! thread. So their sockets are in a poll of their own, which is watched through the thread's own while it is empty, and
//! after something came is looked at by the clock until nothing comes any more.

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

/// How long what comes on quiet paths is gathered at most. Of people whose lines are calm it is news that can wait so long,
/// beside the 50 to 100 ms between two of their reports.
pub(super) const GATHER: Duration = Duration::from_millis(20);

/// How long it is gathered at least, once something has come: a thread that is awake anyway looks before it sleeps again.
const GATHER_MIN: Duration = Duration::from_millis(10);

/// The poll's readiness in the thread's own poll.
pub(super) const QUIET: Token = Token(usize::MAX - 1);

/// The poll of the quiet paths.
#[derive(Debug)]
pub(super) struct Quiet {
    poll: Poll,
    /// When it is looked at; `None` while the thread's poll watches it.
    look_at: Option<Instant>,
}

impl Quiet {
    /// An empty one, which is watched.
    ///
    /// # Errors
    /// When the system gives no poll descriptor.
    pub(super) fn new(outer: &Registry) -> io::Result<Self> {
        let quiet = Self { poll: Poll::new()?, look_at: None };
        quiet.watch(outer)?;
        Ok(quiet)
    }

    /// Where quiet paths are registered.
    pub(super) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// When [`Self::look`] has something to do.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// Takes in that the thread's poll has named [`QUIET`].
    ///
    /// # Errors
    /// What epoll_ctl(2) says.
    pub(super) fn handle_ready(&mut self, now: Instant, outer: &Registry) -> io::Result<()> {
        if self.look_at.is_none() {
            self.look_at = Some(now);
            SourceFd(&self.poll.as_raw_fd()).deregister(outer)?;
        }
        Ok(())
    }

    /// Whether a thread that is awake is to look before it sleeps.
    pub(super) fn is_nearly_due(&self, now: Instant) -> bool {
        self.look_at.is_some_and(|at| at <= now + (GATHER - GATHER_MIN))
    }

    /// If it is time, puts what is ready into `readiness`. Whether it was time.
    ///
    /// # Errors
    /// What epoll_wait(2) and epoll_ctl(2) say.
    pub(super) fn look(
        &mut self,
        now: Instant,
        outer: &Registry,
        readiness: &mut Events,
    ) -> io::Result<bool> {
        if self.look_at.is_none_or(|at| at > now) {
            return Ok(false);
        }
        self.look_early(now, outer, readiness)?;
        Ok(true)
    }

    /// Puts what is ready into `readiness`, whether it is time or not.
    ///
    /// # Errors
    /// What epoll_wait(2) and epoll_ctl(2) say.
    pub(super) fn look_early(
        &mut self,
        now: Instant,
        outer: &Registry,
        readiness: &mut Events,
    ) -> io::Result<()> {
        match self.poll.poll(readiness, Some(Duration::ZERO)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => readiness.clear(),
            result => result?,
        }
        let count = readiness.iter().count();
        self.look_at = match count {
            0 => None,
            _ if count == readiness.capacity() => Some(now), // there may be more
            _ => Some(now + GATHER),
        };
        if self.look_at.is_none() {
            self.watch(outer)?;
        }
        Ok(())
    }

    fn watch(&self, outer: &Registry) -> io::Result<()> {
        outer.register(&mut SourceFd(&self.poll.as_raw_fd()), QUIET, Interest::READABLE)
    }
}

/// Has a socket watched by one poll instead of another.
///
/// # Errors
/// What epoll_ctl(2) says.
pub(super) fn change(socket: RawFd, token: Token, from: &Registry, to: &Registry) -> io::Result<()> {
    from.deregister(&mut SourceFd(&socket))?;
    to.register(&mut SourceFd(&socket), token, Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    fn ready(poll: &mut Poll, events: &mut Events) -> Vec<Token> {
        poll.poll(events, Some(Duration::ZERO)).unwrap();
        events.iter().map(mio::event::Event::token).collect()
    }

    #[test]
    fn what_comes_on_quiet_paths_wakes_once_and_is_looked_at_by_the_clock_until_nothing_comes() {
        let (mut outer, mut events) = (Poll::new().unwrap(), Events::with_capacity(8));
        let mut quiet = Quiet::new(outer.registry()).unwrap();
        let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
        let send = || listener.send_to(b"x", listener.local_addr().unwrap()).map(|_| ()).unwrap();
        let token = Token(7);
        outer.registry().register(&mut SourceFd(&listener.as_raw_fd()), token, Interest::READABLE).unwrap();
        change(listener.as_raw_fd(), token, outer.registry(), quiet.registry()).unwrap();
        let mut now = Instant::now();
        send();
        assert_eq!(ready(&mut outer, &mut events), [QUIET]);
        quiet.handle_ready(now, outer.registry()).unwrap();
        assert!(quiet.look(now, outer.registry(), &mut events).unwrap());
        assert_eq!(events.iter().map(|event| event.token()).collect::<Vec<_>>(), [token]);
        for _ in 0..3 {
            send();
            assert_eq!(ready(&mut outer, &mut events), [], "it is gathered");
            assert!(!quiet.look(now, outer.registry(), &mut events).unwrap(), "too early");
            let is_nearly_due = |after| quiet.is_nearly_due(now + after);
            assert_eq!([GATHER_MIN - Duration::from_millis(1), GATHER_MIN].map(is_nearly_due), [false, true]);
            now += GATHER;
            assert_eq!(quiet.look_at(), Some(now));
            assert!(quiet.look(now, outer.registry(), &mut events).unwrap());
            assert_eq!(events.iter().count(), 1);
        }
        now += GATHER;
        assert!(quiet.look(now, outer.registry(), &mut events).unwrap());
        assert_eq!((events.iter().count(), quiet.look_at()), (0, None));
        assert!(!quiet.is_nearly_due(now), "nothing has come");
        send();
        assert_eq!(ready(&mut outer, &mut events), [QUIET], "it is watched again");
    }

    #[test]
    fn what_came_between_the_last_look_and_the_watch_wakes_all_the_same() {
        let (mut outer, mut events) = (Poll::new().unwrap(), Events::with_capacity(8));
        let quiet = Quiet::new(outer.registry()).unwrap();
        let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
        listener.send_to(b"x", listener.local_addr().unwrap()).unwrap();
        outer.registry().deregister(&mut SourceFd(&quiet.poll.as_raw_fd())).unwrap();
        quiet
            .registry()
            .register(&mut SourceFd(&listener.as_raw_fd()), Token(7), Interest::READABLE)
            .unwrap();
        quiet.watch(outer.registry()).unwrap();
        assert_eq!(ready(&mut outer, &mut events), [QUIET]);
    }
}

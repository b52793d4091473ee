//! Waiting that ends: for a descriptor, a point in time, or the caller's wish to stop.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::image::registry) enum Waited {
    /// The descriptor is ready.
    Ready,
    /// The time has come.
    Late,
    /// Somebody wants it to end.
    Interrupted,
}

/// Who may end a wait: the caller, and we ourselves when one of several at work has failed.
#[derive(Clone, Debug)]
pub(in crate::image::registry) struct Halt<'a> {
    caller: Option<BorrowedFd<'a>>,
    own: Arc<OwnedFd>,
}

impl<'a> Halt<'a> {
    /// Makes one that nobody has used; `caller` is readable when the caller wants to stop.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(in crate::image::registry) fn new(caller: Option<BorrowedFd<'a>>) -> io::Result<Self> {
        let own = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { caller, own: Arc::new(own) })
    }

    /// Ends all waits, now and from now on.
    pub(in crate::image::registry) fn stop(&self) {
        // A counter at its limit is as readable as any.
        let _ = rustix::io::write(&self.own, &1_u64.to_ne_bytes());
    }
}

impl Halt<'_> {
    /// Tells whether somebody wants it to end.
    pub(in crate::image::registry) fn is_over(&self) -> bool {
        matches!(wait(None, Some(self), Instant::now()), Ok(Waited::Interrupted))
    }
}

/// Waits until a descriptor is ready, `until`, or until somebody ends it.
///
/// # Errors
/// When the system refuses.
pub(in crate::image::registry) fn wait(
    ready: Option<(BorrowedFd<'_>, PollFlags)>,
    halt: Option<&Halt<'_>>,
    until: Instant,
) -> io::Result<Waited> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut fds = Vec::with_capacity(3);
        if let Some(halt) = halt {
            fds.push(PollFd::from_borrowed_fd(halt.own.as_fd(), PollFlags::IN));
            fds.extend(halt.caller.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        }
        let halts = fds.len();
        fds.extend(ready.map(|(fd, events)| PollFd::from_borrowed_fd(fd, events)));
        let time = Timespec { tv_sec: left.as_secs().min(86_400) as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut fds, Some(&time)) {
            Err(rustix::io::Errno::INTR) => continue,
            other => drop(other?),
        }
        let is_ready = |fds: &[PollFd<'_>]| fds.iter().any(|fd| !fd.revents().is_empty());
        if is_ready(&fds[..halts]) {
            return Ok(Waited::Interrupted);
        }
        if is_ready(&fds[halts..]) {
            return Ok(Waited::Ready);
        }
        if left.is_zero() {
            return Ok(Waited::Late);
        }
    }
}

/// Rests for a while; returns false when somebody ends it.
///
/// # Errors
/// When the system refuses.
pub(in crate::image::registry) fn rest(time: Duration, halt: &Halt<'_>) -> io::Result<bool> {
    Ok(wait(None, Some(halt), Instant::now() + time)? != Waited::Interrupted)
}

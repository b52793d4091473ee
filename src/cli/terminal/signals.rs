//! Signals of the command line, read from a descriptor.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::fd::{AsFd, BorrowedFd};
use std::io;

/// Signals that are passed on to the container.
const FORWARDED: [Signal; 9] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGCONT,
    Signal::SIGTSTP,
];

/// Signals taken over from the moment this exists, so that none is lost between a container's start and the copying.
pub(in crate::cli) struct Signals {
    pub(super) descriptor: SignalFd,
    before: SigSet,
}

impl Signals {
    /// Blocks the signals we forward and opens a descriptor for them.
    ///
    /// # Errors
    /// When the system refuses.
    pub(in crate::cli) fn take() -> io::Result<Self> {
        Self::of(FORWARDED.into_iter().chain([Signal::SIGWINCH]))
    }

    /// Blocks the signals that ask a command to end, so that it can take down what it made.
    ///
    /// # Errors
    /// When the system refuses.
    pub(in crate::cli) fn take_endings() -> io::Result<Self> {
        Self::of([Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM].into_iter())
    }

    fn of(signals: impl Iterator<Item = Signal>) -> io::Result<Self> {
        let mut set = SigSet::empty();
        signals.for_each(|signal| set.add(signal));
        let before = set.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { descriptor, before })
    }

    /// Returns the number of a signal that has come.
    pub(in crate::cli) fn number(&self) -> Option<i32> {
        self.descriptor.read_signal().ok().flatten().map(|info| info.ssi_signo as i32)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}

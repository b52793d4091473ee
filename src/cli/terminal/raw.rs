//! Raw mode of the user's terminal, taken back however this process ends by itself.

use rustix::fd::OwnedFd;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io;
use std::sync::{Mutex, Once, PoisonError};

/// A terminal and how it was before.
struct Changed {
    terminal: OwnedFd,
    before: Termios,
}

/// The terminal in raw mode, kept where a panic finds it: the shipped program aborts on a panic, and nothing is dropped.
static CHANGED: Mutex<Option<Changed>> = Mutex::new(None);

/// Gives the terminal back, if one was taken.
fn restore() {
    // A panic can come while this very thread holds the lock; then the terminal stays as it is.
    let changed = match CHANGED.try_lock() {
        Ok(mut changed) => changed.take(),
        Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner().take(),
        Err(std::sync::TryLockError::WouldBlock) => None,
    };
    if let Some(Changed { terminal, before }) = changed {
        let _ = tcsetattr(&terminal, OptionalActions::Now, &before);
    }
}

/// Makes every panic give the terminal back before its message is printed.
fn restore_on_panic() {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            report(panic);
        }));
    });
}

/// Raw mode of a terminal, undone when dropped and by a panic.
pub(super) struct RawMode(());

impl RawMode {
    /// Puts the terminal of stdin into raw mode.
    ///
    /// # Errors
    /// When stdin is no terminal or cannot be set.
    pub(super) fn enter() -> io::Result<Self> {
        Self::of(rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3)?)
    }

    fn of(terminal: OwnedFd) -> io::Result<Self> {
        restore_on_panic();
        let before = tcgetattr(&terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        let mut changed = CHANGED.lock().unwrap_or_else(PoisonError::into_inner);
        tcsetattr(&terminal, OptionalActions::Now, &raw)?;
        *changed = Some(Changed { terminal, before });
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::termios::LocalModes;

    #[test]
    fn a_panic_gives_the_terminal_back_though_nothing_is_dropped() {
        let pair = nix::pty::openpty(None, None).unwrap();
        let is_raw = || !tcgetattr(&pair.slave).unwrap().local_modes.contains(LocalModes::ECHO | LocalModes::ICANON);
        let take = || RawMode::of(pair.slave.try_clone().unwrap()).unwrap();
        assert!(!is_raw());
        let raw = take();
        assert!(is_raw());
        drop(raw);
        assert!(!is_raw(), "dropped");
        let panicked = std::panic::catch_unwind(|| {
            // As where a panic aborts: no destructor runs.
            std::mem::forget(take());
            assert!(is_raw());
            panic!("with the terminal in raw mode");
        });
        assert!(panicked.is_err() && !is_raw());
    }
}

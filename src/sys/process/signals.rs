//! Signals: sent, blocked, waited for, put back to their defaults.
#![allow(unsafe_code)]

use super::super::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sets every signal to its default action and unblocks all, as a program expects to be started.
pub fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL installs no code of ours; refusals (KILL, STOP, libc's own) are of no interest.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    set_signal_mask(0);
}

/// Blocks exactly the signals whose bit (number - 1) is set.
pub fn set_signal_mask(mask: u64) {
    // SAFETY: the kernel reads eight bytes from a live u64; the old mask is not asked for.
    let _ = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, std::ptr::null::<u64>(), 8usize)
    };
}

/// Waits for one of the signals whose bit (number - 1) is set and takes it; returns its number.
///
/// # Errors
/// `EINTR` when another signal was handled meanwhile.
pub fn wait_signal(mask: u64) -> Result<i32> {
    // SAFETY: the kernel reads eight bytes from a live u64; no information block and no timeout are asked for.
    let signal = unsafe {
        libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const mask,
            std::ptr::null::<libc::siginfo_t>(),
            std::ptr::null::<libc::timespec>(),
            8usize,
        )
    };
    check(signal).map(|number| number as i32)
}

/// Sends a signal to a pid of this process's own pid namespace.
///
/// # Errors
/// As kill(2).
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// Sends a signal by process descriptor: never to a successor of the same number.
///
/// # Errors
/// `ESRCH` when it has ended; otherwise as pidfd_send_signal(2).
pub fn pidfd_kill(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: the descriptor is borrowed, hence open; no information block is passed.
    let value = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    check(value).map(drop)
}

//! Descriptors of a fork that is about to execute a program: closed, doubled, moved to a number.
#![allow(unsafe_code)]

use super::super::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Closes every descriptor from `first` on, except the ones in `keep`.
///
/// # Errors
/// As close_range(2).
pub fn close_all_from(first: u32, keep: &[BorrowedFd<'_>]) -> Result<()> {
    let mut kept: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd() as u32).filter(|fd| *fd >= first).collect();
    kept.sort_unstable();
    let mut low = first;
    for fd in kept {
        if fd > low {
            close_range(low, fd - 1)?;
        }
        low = fd + 1;
    }
    close_range(low, u32::MAX)
}

fn close_range(low: u32, high: u32) -> Result<()> {
    // SAFETY: takes integers only. Owners of the closed descriptors belong to the copied memory of a fork whose code
    // uses nothing but what it kept; it ends by execve or _exit, so no destructor closes a number twice.
    check(unsafe { libc::syscall(libc::SYS_close_range, low, high, 0) }).map(drop)
}

/// Returns the standard streams, which a process of ours never closes.
pub fn standard_streams() -> [BorrowedFd<'static>; 3] {
    // SAFETY: 0, 1 and 2 are no owner's numbers and stay open for the life of the process (they may be replaced).
    [0, 1, 2].map(|number| unsafe { BorrowedFd::borrow_raw(number) })
}

/// Closes, in a fork, its copy of a descriptor whose owner is the parent's.
///
/// For bodies of [`clone_process`](super::clone_process), whose copied owners never run their destructors.
pub fn close_inherited(descriptor: BorrowedFd<'_>) {
    // SAFETY: the number is open here; its owner in this copy of memory is never dropped, because the body's process
    // ends by execve or _exit.
    unsafe { libc::close(descriptor.as_raw_fd()) };
}

/// Makes `target` another name of `source`, open across execve.
///
/// # Errors
/// As dup2(2).
pub fn dup_onto(source: BorrowedFd<'_>, target: RawFd) -> Result<()> {
    if source.as_raw_fd() == target {
        return rustix::io::fcntl_setfd(source, rustix::io::FdFlags::empty());
    }
    // SAFETY: the source is borrowed, hence open; the target number is one of the three standard ones in a fork that
    // is about to execve, which no OwnedFd of it stands for.
    check(unsafe { libc::dup2(source.as_raw_fd(), target) }.into()).map(drop)
}

/// Moves a descriptor to exactly this number, close-on-exec.
///
/// # Errors
/// As dup3(2).
pub fn move_onto(source: OwnedFd, target: RawFd) -> Result<OwnedFd> {
    if source.as_raw_fd() == target {
        return Ok(source);
    }
    // SAFETY: the source is open; whatever had the target number in this fork is given up on purpose (see close_range).
    check(unsafe { libc::dup3(source.as_raw_fd(), target, libc::O_CLOEXEC) }.into())?;
    // SAFETY: dup3 succeeded, so the number is open and the result is its only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(target) })
}

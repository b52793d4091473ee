//! Forking, and what only a forked process needs.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// A child of ours that was forked and not yet reaped; dropping it leaves it alone.
#[derive(Debug)]
pub struct Child {
    pid: rustix::process::Pid,
}

impl Child {
    /// Returns its pid.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Kills it and reaps it.
    pub fn kill(&self) {
        // Neither call can fail for a child that nobody else reaps; if one did, there is nothing left to kill.
        let _ = rustix::process::kill_process(self.pid, rustix::process::Signal::KILL);
        let _ = rustix::process::waitpid(Some(self.pid), rustix::process::WaitOptions::empty());
    }
}

/// Forks a child that runs a function and exits with what it returns, without running any clean-up of the parent's
/// (buffers, destructors, exit handlers). A panic of the function ends the child with 101.
///
/// # Errors
/// When no process can be made.
pub fn fork(run: impl FnOnce() -> i32) -> io::Result<Child> {
    // SAFETY: fork(2) has no memory precondition. Our callers have one thread (the shim's seed is forked before any
    // other exists); in a threaded caller the child may use the allocator, because musl's fork() holds its locks.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or(101);
            // SAFETY: _exit(2) does not return and touches no memory of ours.
            unsafe { libc::_exit(code) }
        }
        pid => match rustix::process::Pid::from_raw(pid) {
            Some(pid) => Ok(Child { pid }),
            None => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        },
    }
}

/// Moves a descriptor to number 3 and closes every other above standard error.
///
/// Meant for a process that was just forked and owns none of its parent's descriptors: every `OwnedFd` that the parent
/// had open is dead afterwards and must not be dropped (the child of [`fork`] never returns to its parent's frames).
///
/// # Errors
/// When the descriptor cannot be duplicated.
pub fn keep_only(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    use std::os::fd::{AsRawFd, IntoRawFd};
    const KEPT: RawFd = 3;
    let raw = descriptor.as_raw_fd();
    if raw != KEPT {
        // SAFETY: dup3(2) takes numbers only; `raw` is open because `descriptor` owns it.
        if unsafe { libc::dup3(raw, KEPT, libc::O_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // Closed by close_range below, or number 3 itself.
    let _ = descriptor.into_raw_fd();
    // SAFETY: close_range(2) takes numbers only; see above for who may still own the descriptors it closes.
    unsafe { libc::syscall(libc::SYS_close_range, KEPT + 1, libc::c_uint::MAX, 0) };
    // SAFETY: number 3 is open (it is `descriptor` or its duplicate) and nothing else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(KEPT) })
}

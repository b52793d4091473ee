//! Forking, and what only a forked process needs.
#![allow(unsafe_code)]

use std::io;

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

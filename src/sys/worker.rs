//! Forked workers: a copy of this process that runs one function with a few descriptors and ends.
#![allow(unsafe_code)]

use super::process::{Parent, end_with};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A worker process that has not been waited for.
#[derive(Debug)]
pub struct Worker {
    pid: libc::pid_t,
    waited: bool,
}

impl Worker {
    /// Forks; the child closes every descriptor but `keep`, runs `work` and exits with what it returns.
    ///
    /// The child ends with the thread that made it; a child that changes its user or group says so again ([`end_with`]).
    /// The child may allocate even when the parent has other threads (see [`super::heap`]); `work` must take no other lock (no printing, no environment) and may change its namespaces, being alone in its process.
    ///
    /// # Errors
    /// When the system has no room for another process.
    pub fn fork(keep: &[BorrowedFd<'_>], work: impl FnOnce() -> i32) -> io::Result<Self> {
        let mut kept: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
        kept.sort_unstable();
        let parent = Parent::Here(rustix::process::getpid());
        // The child runs only `work` (see the contract above) and then _exit, so no destructor or exit handler of the parent
        // runs twice.
        match super::heap::fork() {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                close_all_but(&kept);
                let work = std::panic::AssertUnwindSafe(|| end_with(parent).map_or(101, |()| work()));
                let code = std::panic::catch_unwind(work).unwrap_or(101);
                // SAFETY: _exit ends the process and never returns; it takes no pointers.
                unsafe { libc::_exit(code) }
            }
            pid => Ok(Self { pid, waited: false }),
        }
    }

    /// Returns the process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for the end: the exit code, or the negative number of the signal that ended it.
    ///
    /// # Errors
    /// When somebody else has waited for it.
    pub fn wait(mut self) -> io::Result<i32> {
        self.reap()
    }

    fn reap(&mut self) -> io::Result<i32> {
        self.waited = true;
        loop {
            let mut status = 0;
            // SAFETY: `status` is a valid place for one int during the call.
            let result = unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
            if result == self.pid {
                let ended = libc::WIFEXITED(status);
                return Ok(if ended { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) });
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

impl Drop for Worker {
    /// Ends a worker nobody waited for.
    fn drop(&mut self) {
        if !self.waited {
            // SAFETY: kill takes no pointers; the pid is our child and not reaped yet, so it cannot name another process.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
            let _ = self.reap();
        }
    }
}

/// Closes all descriptors but the given ones, which are sorted.
fn close_all_but(kept: &[RawFd]) {
    let mut first: libc::c_uint = 0;
    for fd in kept {
        let fd = *fd as libc::c_uint;
        if fd > first {
            close_range(first, fd - 1);
        }
        first = fd + 1;
    }
    close_range(first, libc::c_uint::MAX);
}

fn close_range(first: libc::c_uint, last: libc::c_uint) {
    // SAFETY: close_range takes no pointers; the only caller is a fresh child whose remaining code uses none of these
    // descriptors, and whose copies of owners are never dropped (it ends by _exit).
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

/// Gives a detached copy of a directory's mount whose ids are mapped by a user namespace, with further mount flags.
///
/// `attributes` are `MOUNT_ATTR_*` bits to set besides the map (*mount_setattr(2)*).
///
/// # Errors
/// When the file system cannot be idmapped (EINVAL) or the caller may not.
pub fn idmapped_clone(directory: BorrowedFd<'_>, userns: BorrowedFd<'_>, attributes: u64) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as libc::c_uint;
    // SAFETY: the path is a NUL-terminated constant; the descriptor is borrowed for the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, directory.as_raw_fd(), c"".as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned this descriptor to us alone.
    let tree = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP | attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: userns.as_raw_fd() as u64,
    };
    // SAFETY: the path is a NUL-terminated constant and `attr` is a whole mount_attr of the length given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(tree) }
}

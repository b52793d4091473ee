//! The lock a shim holds for its life.
//!
//! It is a record lock (*fcntl_locking(2)*), which belongs to the process: it is gone with the shim even when a process
//! forked from it still has the file open, and asking whether it is held takes nothing. Whoever opens and closes the
//! file inside the shim would release it, so only [`Lock::take`] opens it there. The shim holds the file's *flock(2)*
//! besides, for those who ask through `store`.

use super::error::{ShimError, io_error};
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::path::Path;
use std::time::Duration;

/// Name of the lock file in a shim's directory.
pub(super) const LOCK: &str = "lock";

/// A held lock; released when dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: OwnedFd,
}

impl Lock {
    /// Takes the lock of a shim's directory.
    ///
    /// # Errors
    /// When another shim holds it, or the file cannot be made.
    pub(super) fn take(run_dir: &Path) -> Result<Self, ShimError> {
        let path = run_dir.join(LOCK);
        let what = format!("lock {}", path.display());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(io_error(what.clone()))?;
        match fcntl(&file, FcntlArg::F_SETLK(&whole_file())) {
            Ok(_) => {
                flock(&file);
                Ok(Self { _file: file })
            }
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => {
                Err(ShimError::Refused(format!("container is running: another shim holds {}", path.display())))
            }
            Err(errno) => Err(ShimError::Io { what, source: errno.into() }),
        }
    }
}

/// Takes the flock too; somebody who asks for it holds it for a moment, hence the second tries.
fn flock(file: &OwnedFd) {
    for _ in 0..100 {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(1)),
            _ => return,
        }
    }
}

/// Tells whether a shim lives in a directory (`$RUN/<id>`). A state file that says running while none does means dead.
pub fn is_alive(run_dir: &Path) -> bool {
    shim_pid(run_dir).is_some()
}

/// Returns the pid of the shim that lives in a directory, as the kernel knows it from the lock.
pub fn shim_pid(run_dir: &Path) -> Option<i32> {
    let file = rustix::fs::open(run_dir.join(LOCK), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut lock = whole_file();
    fcntl(&file, FcntlArg::F_GETLK(&mut lock)).ok()?;
    (i32::from(lock.l_type) != libc::F_UNLCK).then_some(lock.l_pid)
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::sys::fork;

    /// A process that holds a lock; killed when dropped.
    pub(in crate::shim) struct Holder(fork::Child);

    impl Drop for Holder {
        fn drop(&mut self) {
            self.0.kill();
        }
    }

    /// Holds a directory's lock in a process of its own.
    pub(in crate::shim) fn lock_in_child(dir: &Path) -> Holder {
        let child = fork::fork(|| match Lock::take(dir) {
            Ok(_lock) => loop {
                std::thread::sleep(std::time::Duration::from_secs(1));
            },
            Err(_) => 1,
        });
        let holder = Holder(child.unwrap());
        while !is_alive(dir) {
            std::thread::yield_now();
        }
        holder
    }

    #[test]
    fn the_lock_ends_with_its_process() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_alive(dir.path()));
        let holder = lock_in_child(dir.path());
        assert_eq!(shim_pid(dir.path()), Some(holder.0.pid()));
        assert!(matches!(Lock::take(dir.path()), Err(ShimError::Refused(_))));
        drop(holder);
        assert!(!is_alive(dir.path()), "killed without a chance to clean up");
    }
}

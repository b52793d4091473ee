//! Namespaces made before anybody knows what for.
//!
//! Most containers want the same new namespaces, and making them takes the kernel longer than a command line needs to
//! say what it wants. So they are made beforehand, held by a process that only waits, and entered by the mounter.

use super::outside::end;
use crate::sys::process::*;
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};

/// Namespaces in waiting; dropping this lets those go that nobody has entered.
#[derive(Debug)]
pub struct Nest {
    holder: Child,
}

impl Nest {
    /// The namespaces in it.
    pub(super) const FLAGS: CloneFlags = CloneFlags::NEWUSER
        .with(CloneFlags::NEWNS)
        .with(CloneFlags::NEWNET)
        .with(CloneFlags::NEWIPC)
        .with(CloneFlags::NEWUTS)
        .with(CloneFlags::NEWTIME);

    /// Makes them; `None` where they cannot be had, which the launch will find out by itself and say.
    pub fn make() -> Option<Self> {
        hold(Self::FLAGS).ok().map(|holder| Self { holder })
    }

    /// Pid of the process inside, for the files of its namespaces and its id maps.
    pub(super) fn pid(&self) -> i32 {
        self.holder.pid
    }

    /// Lets the process inside go; the namespaces stay as long as somebody else is in them.
    pub(super) fn release(&self) {
        // Refused only to one that has ended.
        let _ = pidfd_kill(self.holder.pidfd.as_fd(), libc::SIGKILL);
    }

    /// What the mounter enters all of them by.
    pub(super) fn door(&self) -> BorrowedFd<'_> {
        self.holder.pidfd.as_fd()
    }
}

/// Makes a process that holds new namespaces and does nothing else, until it is killed or we die.
pub(super) fn hold(flags: CloneFlags) -> Result<Child, Errno> {
    let parent = rustix::process::getpid();
    let wait = move || {
        let bound = end_with(Parent::Here(parent));
        let _ = set_undumpable();
        if bound.is_err() || close_all_from(0, &[]).is_err() {
            return 1;
        }
        let _ = set_name(c"bulkhead-nest");
        set_signal_mask(0);
        loop {
            // Interrupted where somebody stops it and lets it go on.
            let _ = wait_signal(0);
        }
    };
    clone_process(flags, None, wait)
}

impl Drop for Nest {
    fn drop(&mut self) {
        end(&self.holder);
    }
}

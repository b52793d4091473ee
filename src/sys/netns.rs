//! Acting for a moment inside another network namespace.
//!
//! The network namespace is a property of the thread (*setns(2)*), so that this alone among the namespace calls also
//! works, and harms nobody, in a process with several threads.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Brings the thread home when dropped.
struct Home(OwnedFd);

impl Drop for Home {
    fn drop(&mut self) {
        if move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
            // Whatever came next would act on the wrong namespace's links and rules.
            std::process::abort();
        }
    }
}

/// Opens the network namespace of the calling thread.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn current_network_namespace() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Runs `act` with the calling thread inside the network namespace `namespace`, and returns to the former one.
///
/// # Errors
/// When the namespace cannot be entered: no CAP_SYS_ADMIN over it, or the descriptor is no network namespace.
pub fn in_network_namespace<T>(namespace: BorrowedFd<'_>, act: impl FnOnce() -> T) -> io::Result<T> {
    let home = Home(current_network_namespace()?);
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
    let result = act();
    drop(home);
    Ok(result)
}

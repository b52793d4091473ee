//! System calls: thin safe wrappers over what `nix` and `rustix` lack, and all `unsafe` of the program.
//!
//! Knows no noun of ours. Each file is one family of calls and allows `unsafe_code` for itself.

pub mod bpf;
pub mod credentials;
pub mod fault;
pub mod fork;
pub mod heap;
mod landlock;
pub mod mount;
pub mod net;
pub mod netlink;
pub mod netns;
pub mod open;
pub mod probe;
pub mod process;
pub mod seccomp;
pub mod socket;
pub mod worker;
pub mod writeback;

pub use landlock::landlock_abi;
pub use process::require_single_thread;

/// Result of a system call.
pub type Result<T> = std::result::Result<T, rustix::io::Errno>;

/// Turns a libc return value into a result.
pub(crate) fn check(value: libc::c_long) -> Result<libc::c_long> {
    if value < 0 {
        let code = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        Err(rustix::io::Errno::from_raw_os_error(code))
    } else {
        Ok(value)
    }
}

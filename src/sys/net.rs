//! Network interfaces: the one ioctl a launch needs.
#![allow(unsafe_code)]

use super::{Result, check};
use std::ffi::CStr;
use std::os::fd::AsRawFd;

/// Brings an interface of this process's network namespace up.
///
/// # Errors
/// `ENODEV` when there is none of this name; otherwise as netdevice(7).
pub fn interface_up(name: &CStr) -> Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is plain data for which all-zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.to_bytes().iter().take(libc::IFNAMSIZ - 1)) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the socket is open and `request` is a live ifreq with a NUL-terminated name (the last byte stays 0).
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) }.into()).map(drop)
}

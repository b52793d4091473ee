//! Frames and descriptors over unix stream sockets.
//!
//! A frame is a little-endian `u32` length and that many bytes; descriptors ride on its first byte.

use super::Result;
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Most descriptors the kernel passes at once (`SCM_MAX_FD`).
pub const MAX_DESCRIPTORS: usize = 253;

/// Makes two connected stream sockets, close-on-exec.
///
/// # Errors
/// As socketpair(2).
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

/// Sends one frame whole.
///
/// # Errors
/// `E2BIG` with more than [`MAX_DESCRIPTORS`]; `EPIPE` when the other side is gone (no signal is raised).
pub fn send_frame(socket: BorrowedFd<'_>, payload: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<()> {
    let length = u32::try_from(payload.len()).map_err(|_| Errno::TOOBIG)?.to_le_bytes();
    let mut space = Vec::new();
    let mut control = SendAncillaryBuffer::default();
    if !descriptors.is_empty() {
        if descriptors.len() > MAX_DESCRIPTORS {
            return Err(Errno::TOOBIG);
        }
        space.resize(SendAncillaryMessage::ScmRights(descriptors).size(), MaybeUninit::uninit());
        control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(Errno::TOOBIG);
        }
    }
    let total = length.len() + payload.len();
    let mut sent = 0;
    while sent < total {
        let head = &length[sent.min(length.len())..];
        let body = &payload[sent.saturating_sub(length.len())..];
        let parts = [IoSlice::new(head), IoSlice::new(body)];
        match rustix::net::sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL) {
            Ok(n) => {
                sent += n;
                control.clear();
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Receives one frame of at most `limit` bytes; `None` when the other side closed before it.
///
/// # Errors
/// `EMSGSIZE` for a longer frame or descriptors that did not fit, `EPIPE` when the frame is cut short.
pub fn recv_frame(socket: BorrowedFd<'_>, limit: usize) -> Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut length = [0u8; 4];
    let mut descriptors = Vec::new();
    if recv_part(socket, &mut length, &mut descriptors)? == 0 {
        return Ok(None);
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > limit {
        return Err(Errno::MSGSIZE);
    }
    let mut payload = vec![0u8; length];
    if length > 0 && recv_part(socket, &mut payload, &mut descriptors)? == 0 {
        return Err(Errno::PIPE);
    }
    Ok(Some((payload, descriptors)))
}

/// Fills `buffer`; returns 0 when the stream ended before its first byte.
fn recv_part(socket: BorrowedFd<'_>, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut filled = 0;
    while filled < buffer.len() {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut buffer[filled..])];
        let received = match rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => received,
            Err(Errno::INTR) => continue,
            // Closed with our bytes unread: the same as an end for whoever waits.
            Err(Errno::CONNRESET) => return if filled == 0 { Ok(0) } else { Err(Errno::PIPE) },
            Err(error) => return Err(error),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                descriptors.extend(passed);
            }
        }
        if received.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
            return Err(Errno::MSGSIZE);
        }
        if received.bytes == 0 {
            return if filled == 0 { Ok(0) } else { Err(Errno::PIPE) };
        }
        filled += received.bytes;
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn frames_carry_bytes_and_descriptors() {
        let (a, b) = pair().unwrap();
        send_frame(a.as_fd(), b"hello", &[a.as_fd(), b.as_fd()]).unwrap();
        send_frame(a.as_fd(), b"", &[]).unwrap();
        drop(a);
        let (bytes, descriptors) = recv_frame(b.as_fd(), 10).unwrap().unwrap();
        assert_eq!((bytes.as_slice(), descriptors.len()), (b"hello".as_slice(), 2));
        drop(descriptors);
        assert!(recv_frame(b.as_fd(), 10).unwrap().unwrap().0.is_empty());
        assert!(recv_frame(b.as_fd(), 10).unwrap().is_none());
    }

    #[test]
    fn a_frame_beyond_the_limit_is_refused() {
        let (a, b) = pair().unwrap();
        send_frame(a.as_fd(), &[0; 100], &[]).unwrap();
        assert_eq!(recv_frame(b.as_fd(), 99).unwrap_err(), Errno::MSGSIZE);
    }
}

//! Frames with descriptors over unix stream sockets.
//!
//! A frame is a little-endian `u32` length and that many bytes of JSON; its descriptors ride on its first byte. The
//! header is read by itself, so that descriptors always belong to the frame whose header they came with
//! (*unix(7)*: a read does not pass a byte that carries descriptors together with later ones).

use super::error::CodecError;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

/// Longest frame accepted, in bytes of JSON.
pub(super) const MAX_FRAME: usize = 4 << 20;
/// Most descriptors in one frame (the kernel's own limit is 253).
pub(super) const MAX_DESCRIPTORS: usize = 128;
/// How much of a frame's announced length is set aside before its bytes arrive.
const STEP: usize = 16 << 10;

/// Spells a message as a frame.
pub(super) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - 4;
    if length > MAX_FRAME {
        return Err(CodecError::TooLong { length, limit: MAX_FRAME });
    }
    bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(bytes)
}

/// Sends as much as the socket takes without waiting; descriptors go with the first byte.
pub(super) fn send_some(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOBIG);
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Sends a whole frame, waiting for the socket until the deadline.
pub(super) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
    deadline: Option<Instant>,
) -> Result<(), CodecError> {
    let bytes = encode(message)?;
    let fail = |errno: Errno| CodecError::Io { what: "send", source: errno.into() };
    let mut sent = 0;
    while sent < bytes.len() {
        match send_some(socket, &bytes[sent..], if sent == 0 { descriptors } else { &[] }) {
            Ok(n) => sent += n,
            Err(Errno::AGAIN) if wait(socket, PollFlags::OUT, deadline).map_err(fail)? => {}
            Err(Errno::AGAIN) => return Err(fail(Errno::TIMEDOUT)),
            Err(errno) => return Err(fail(errno)),
        }
    }
    Ok(())
}

/// Waits until a descriptor is ready; false when the deadline passed first.
pub(super) fn wait(descriptor: BorrowedFd<'_>, flags: PollFlags, deadline: Option<Instant>) -> Result<bool, Errno> {
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = left.map(timespec);
        match poll(&mut [PollFd::from_borrowed_fd(descriptor, flags)], timeout.as_ref()) {
            Ok(0) if left.is_none_or(|left| !left.is_zero()) => {}
            Ok(n) => return Ok(n > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Turns a duration into the kernel's form, rounded up to a whole microsecond.
pub(super) fn timespec(duration: Duration) -> rustix::event::Timespec {
    let duration = duration + Duration::from_nanos(999);
    rustix::event::Timespec {
        tv_sec: duration.as_secs().min(1 << 40) as i64,
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// Refuses a peer of another user (`SO_PEERCRED`).
pub(super) fn check_peer(socket: BorrowedFd<'_>) -> Result<(), CodecError> {
    let peer = rustix::net::sockopt::socket_peercred(socket)
        .map_err(|errno| CodecError::Io { what: "receive", source: errno.into() })?;
    if peer.uid == rustix::process::geteuid() { Ok(()) } else { Err(CodecError::Peer { uid: peer.uid.as_raw() }) }
}

/// What a [`Receiver`] has.
#[derive(Debug)]
pub(super) enum Received<T> {
    /// A whole message and its descriptors.
    Message(T, Vec<OwnedFd>),
    /// Nothing whole yet; wait until the socket is readable.
    Pending,
    /// The other end closed.
    Closed,
}

/// Puts frames together from what a socket has to offer, without waiting.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    header: [u8; 4],
    header_filled: usize,
    body: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Receiver {
    /// Reads on until a message is whole or the socket is empty.
    ///
    /// # Errors
    /// For frames that are too long, no JSON of the kind expected, or with misplaced descriptors; the connection is of
    /// no use afterwards.
    pub(super) fn receive<T: DeserializeOwned>(&mut self, socket: BorrowedFd<'_>) -> Result<Received<T>, CodecError> {
        while self.header_filled < 4 {
            let filled = self.header_filled;
            match receive_some(socket, &mut self.header[filled..], &mut self.descriptors)? {
                None => return Ok(Received::Pending),
                Some(0) => return Ok(Received::Closed),
                Some(n) => self.header_filled += n,
            }
        }
        let length = u32::from_le_bytes(self.header) as usize;
        if length > MAX_FRAME {
            return Err(CodecError::TooLong { length, limit: MAX_FRAME });
        }
        let owned = self.descriptors.len();
        while self.body.len() < length {
            let filled = self.body.len();
            self.body.resize(length.min(filled + STEP), 0);
            let got = receive_some(socket, &mut self.body[filled..], &mut self.descriptors);
            self.body.truncate(filled + if let Ok(Some(n)) = got { n } else { 0 });
            match got? {
                None => return Ok(Received::Pending),
                Some(0) => return Ok(Received::Closed),
                Some(_) if self.descriptors.len() > owned => return Err(CodecError::Descriptors),
                Some(_) => {}
            }
        }
        self.header_filled = 0;
        let body = std::mem::take(&mut self.body);
        Ok(Received::Message(serde_json::from_slice(&body)?, std::mem::take(&mut self.descriptors)))
    }

    /// Reads one message, waiting until the deadline; `None` when the other end closed.
    pub(super) fn wait<T: DeserializeOwned>(
        &mut self,
        socket: BorrowedFd<'_>,
        deadline: Option<Instant>,
    ) -> Result<Option<(T, Vec<OwnedFd>)>, CodecError> {
        let fail = |errno: Errno| CodecError::Io { what: "receive", source: errno.into() };
        loop {
            match self.receive(socket)? {
                Received::Message(message, descriptors) => return Ok(Some((message, descriptors))),
                Received::Closed => return Ok(None),
                Received::Pending if wait(socket, PollFlags::IN, deadline).map_err(fail)? => {}
                Received::Pending => return Err(fail(Errno::TIMEDOUT)),
            }
        }
    }
}

/// Receives bytes and descriptors; `None` when there is nothing now.
fn receive_some(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> Result<Option<usize>, CodecError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let result = loop {
        match recvmsg(
            socket,
            &mut [IoSliceMut::new(bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
        ) {
            Err(Errno::INTR) => {}
            other => break other,
        }
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    match result {
        Ok(got) if got.flags.contains(ReturnFlags::CTRUNC) || descriptors.len() > MAX_DESCRIPTORS => {
            Err(CodecError::Descriptors)
        }
        Ok(got) => Ok(Some(got.bytes)),
        Err(Errno::AGAIN) => Ok(None),
        Err(Errno::CONNRESET) => Ok(Some(0)),
        Err(errno) => Err(CodecError::Io { what: "receive", source: errno.into() }),
    }
}

/// Makes a connected pair of stream sockets, close-on-exec.
pub(super) fn socket_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

/// Borrows many descriptors at once.
pub(super) fn borrow(descriptors: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    descriptors.iter().map(AsFd::as_fd).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::protocol::Request;
    use proptest::prelude::*;

    #[test]
    fn a_message_and_its_descriptors_arrive_together() {
        let (a, b) = socket_pair().unwrap();
        let (give, _keep) = socket_pair().unwrap();
        send(a.as_fd(), &"first", &[], None).unwrap();
        send(a.as_fd(), &"second", &[give.as_fd(), give.as_fd()], None).unwrap();
        send(a.as_fd(), &"third", &[], None).unwrap();
        drop(a);
        let mut receiver = Receiver::default();
        for (text, count) in [("first", 0), ("second", 2), ("third", 0)] {
            let (message, descriptors): (String, _) = receiver.wait(b.as_fd(), None).unwrap().unwrap();
            assert_eq!((message.as_str(), descriptors.len()), (text, count));
            for descriptor in descriptors {
                assert!(rustix::io::fcntl_getfd(&descriptor).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
            }
        }
        assert!(receiver.wait::<String>(b.as_fd(), None).unwrap().is_none());
    }

    #[test]
    fn a_frame_longer_than_the_limit_is_refused_before_memory_is_set_aside() {
        let (a, b) = socket_pair().unwrap();
        rustix::io::write(&a, &u32::MAX.to_le_bytes()).unwrap();
        let mut receiver = Receiver::default();
        assert!(matches!(receiver.receive::<Request>(b.as_fd()), Err(CodecError::TooLong { .. })));
        assert_eq!(receiver.body.capacity(), 0);
    }

    #[test]
    fn waiting_ends_at_the_deadline() {
        let (_a, b) = socket_pair().unwrap();
        let deadline = Some(Instant::now() + Duration::from_millis(5));
        assert!(matches!(Receiver::default().wait::<Request>(b.as_fd(), deadline), Err(CodecError::Io { .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_receiver_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (a, b) = socket_pair().unwrap();
            rustix::io::write(&a, &bytes).unwrap();
            drop(a);
            let mut receiver = Receiver::default();
            while let Ok(Some(_)) = receiver.wait::<Request>(b.as_fd(), None) {}
        }
    }
}

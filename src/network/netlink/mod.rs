//! Our own small netlink: messages with computed lengths, answers read within bounds, everything synchronous.

pub(super) mod message;
pub(super) mod parse;

use crate::sys::netlink::{Family, NetlinkSocket};
use message::{ACK, DUMP, Message};
use parse::{Replies, Reply, u32_at};
use rustix::io::Errno;
use std::io;

/// Type of an acknowledgement or error (`NLMSG_ERROR`).
const ERROR: u16 = 2;
/// Type of the last part of a dump (`NLMSG_DONE`).
const DONE: u16 = 3;
/// Size above which the socket's buffers are widened before a transaction.
const COMFORTABLE: usize = 64 << 10;

/// The kernel could not be asked, or said no.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket failed.
    #[error("talk to the kernel over netlink")]
    Socket(#[source] io::Error),
    /// A value does not fit into a message.
    #[error("a value is too long for a netlink message")]
    TooLong,
    /// The answer is not netlink.
    #[error("the kernel's netlink answer is malformed")]
    Malformed,
    /// The kernel refused the request.
    #[error("{}", io::Error::from(*.0))]
    Refused(Errno),
}

impl NetlinkError {
    /// Tells whether the kernel refused with this number.
    pub(super) fn is(&self, errno: Errno) -> bool {
        matches!(self, Self::Refused(refused) if *refused == errno)
    }

    /// Tells whether what was to be changed is not there.
    pub(super) fn is_absent(&self) -> bool {
        self.is(Errno::NOENT) || self.is(Errno::NODEV) || self.is(Errno::SRCH) || self.is(Errno::NXIO)
    }
}

/// A netlink socket with its numbering of requests.
#[derive(Debug)]
pub(super) struct Connection {
    socket: NetlinkSocket,
    sequence: u32,
}

impl Connection {
    /// Opens a connection in the thread's present network namespace.
    pub(super) fn open(family: Family) -> Result<Self, NetlinkError> {
        Ok(Self { socket: NetlinkSocket::open(family).map_err(NetlinkError::Socket)?, sequence: 0 })
    }

    /// Closes the connection without waiting for the kernel's clean-up of what was deleted over it.
    pub(super) fn close_elsewhere(self) {
        self.socket.close_elsewhere();
    }

    fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends a request and waits for its acknowledgement.
    pub(super) fn request(&mut self, mut message: Message) -> Result<(), NetlinkError> {
        message.acknowledge();
        self.exchange(message, |_| {})
    }

    /// Sends a request and gives each message of the answer to `each`; with [`DUMP`] until the end of the dump, else
    /// until the acknowledgement.
    pub(super) fn query(
        &mut self,
        mut message: Message,
        dump: bool,
        each: impl FnMut(Reply<'_>),
    ) -> Result<(), NetlinkError> {
        if !dump {
            message.acknowledge();
        }
        self.exchange(message, each)
    }

    fn exchange(&mut self, message: Message, mut each: impl FnMut(Reply<'_>)) -> Result<(), NetlinkError> {
        let sequence = self.next();
        self.socket.send(&message.finish(sequence)?).map_err(NetlinkError::Socket)?;
        loop {
            let Some(datagram) = self.socket.receive(true).map_err(NetlinkError::Socket)? else {
                return Err(NetlinkError::Malformed);
            };
            for reply in Replies::new(datagram) {
                let reply = reply?;
                if reply.sequence != sequence {
                    continue;
                }
                match reply.kind {
                    ERROR => return verdict(reply),
                    DONE => return Ok(()),
                    _ => each(reply),
                }
            }
        }
    }

    /// Sends several messages as one nftables transaction: all of them hold afterwards, or none.
    pub(super) fn transaction(&mut self, messages: Vec<Message>) -> Result<(), NetlinkError> {
        let first = self.next();
        let mut datagram = batch_mark(BATCH_BEGIN).finish(first)?;
        let count = messages.len();
        for (index, mut message) in messages.into_iter().enumerate() {
            if index + 1 == count {
                message.acknowledge();
            }
            let sequence = self.next();
            datagram.extend_from_slice(&message.finish(sequence)?);
        }
        let last = self.next();
        datagram.extend_from_slice(&batch_mark(BATCH_END).finish(last)?);
        if datagram.len() > COMFORTABLE {
            self.socket.reserve(datagram.len() * 2).map_err(NetlinkError::Socket)?;
        }
        self.socket.send(&datagram).map_err(NetlinkError::Socket)?;
        // Everything the kernel has to say lies in the queue when the send returns.
        let mut result = Ok(());
        while let Some(datagram) = self.socket.receive(false).map_err(NetlinkError::Socket)? {
            for reply in Replies::new(datagram) {
                let reply = reply?;
                let ours = reply.sequence.wrapping_sub(first) <= last.wrapping_sub(first);
                if ours && reply.kind == ERROR && result.is_ok() {
                    result = verdict(reply);
                }
            }
        }
        result
    }
}

/// Type of the message that opens a transaction (`NFNL_MSG_BATCH_BEGIN`).
const BATCH_BEGIN: u16 = 16;
/// Type of the message that closes it (`NFNL_MSG_BATCH_END`).
const BATCH_END: u16 = 17;

fn batch_mark(kind: u16) -> Message {
    // struct nfgenmsg: any family, version 0, subsystem nftables (10) in network order.
    Message::new(kind, message::REQUEST, &[0, 0, 0, 10])
}

fn verdict(reply: Reply<'_>) -> Result<(), NetlinkError> {
    match u32_at(reply.body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(negative) => {
            Err(NetlinkError::Refused(Errno::from_raw_os_error(negative.checked_neg().unwrap_or(libc::EIO))))
        }
        None => Err(NetlinkError::Malformed),
    }
}

/// Flags of a request that is answered with a dump.
pub(super) const DUMP_REQUEST: u16 = message::REQUEST | DUMP;
/// Flags of a request that changes something.
pub(super) const CHANGE: u16 = message::REQUEST | ACK;

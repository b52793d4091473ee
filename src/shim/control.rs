//! Control connections: requests in, answers out, without ever waiting for a caller.

use super::codec::{self, Received, Receiver, send_some};
use super::error::CodecError;
use super::poller::{Poller, Token};
use super::protocol::{Reply, Request};
use rustix::event::epoll::EventFlags;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::collections::VecDeque;

/// Answers kept for a caller that does not read; beyond it is dropped.
const MOST_ANSWERS: usize = 64;

/// One caller.
#[derive(Debug)]
pub(super) struct Control {
    socket: OwnedFd,
    receiver: Receiver,
    /// Answers not yet sent: bytes, how many of them are sent, descriptors.
    outbox: VecDeque<(Vec<u8>, usize, Vec<OwnedFd>)>,
    /// Whether it waits for the container's end.
    pub(super) waits: bool,
    /// Whether it waits for a stop to end.
    pub(super) stops: bool,
    writing: bool,
}

impl Control {
    /// Takes over a connection.
    pub(super) fn new(poller: &Poller, number: u32, socket: OwnedFd) -> Result<Self, Errno> {
        poller.watch(&socket, Token::Control(number), EventFlags::IN)?;
        Ok(Self {
            socket,
            receiver: Receiver::default(),
            outbox: VecDeque::new(),
            waits: false,
            stops: false,
            writing: false,
        })
    }

    /// Returns the pid of who connected, in our pid namespace.
    pub(super) fn pid(&self) -> Option<i32> {
        let peer = rustix::net::sockopt::socket_peercred(&self.socket).ok()?;
        Some(peer.pid.as_raw_nonzero().get())
    }

    /// Returns the next whole request.
    pub(super) fn receive(&mut self) -> Result<Received<Request>, CodecError> {
        self.receiver.receive(self.socket.as_fd())
    }

    /// Answers; false when the caller is gone or hopelessly slow.
    pub(super) fn answer(&mut self, poller: &Poller, number: u32, reply: &Reply, descriptors: Vec<OwnedFd>) -> bool {
        match codec::encode(reply) {
            Ok(bytes) if self.outbox.len() < MOST_ANSWERS => self.outbox.push_back((bytes, 0, descriptors)),
            _ => return false,
        }
        self.flush(poller, number)
    }

    /// Sends what the caller takes; false when it is gone.
    pub(super) fn flush(&mut self, poller: &Poller, number: u32) -> bool {
        while let Some((bytes, sent, descriptors)) = self.outbox.front_mut() {
            let borrowed = if *sent == 0 { codec::borrow(descriptors) } else { Vec::new() };
            match send_some(self.socket.as_fd(), &bytes[*sent..], &borrowed) {
                Ok(n) => *sent += n,
                Err(Errno::AGAIN) => break,
                Err(_) => return false,
            }
            if *sent == bytes.len() {
                self.outbox.pop_front();
            }
        }
        if self.writing == self.unsent() {
            return true;
        }
        self.writing = self.unsent();
        let flags = if self.writing { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        poller.change(&self.socket, Token::Control(number), flags).is_ok()
    }

    /// Tells whether answers are still on their way.
    pub(super) fn unsent(&self) -> bool {
        !self.outbox.is_empty()
    }
}

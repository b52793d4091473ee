//! One forwarded TCP connection: a caller's socket joined to a target's by two pipes, one for each direction.

use super::super::poller::{Poller, Token};
use super::TURN;
use rustix::event::epoll::EventFlags;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType};
use rustix::pipe::SpliceFlags;
use std::net::SocketAddr;

/// Bytes moved at once.
const CHUNK: usize = 64 << 10;

/// One direction of a connection.
#[derive(Debug, Default)]
struct Direction {
    pipe: Option<(OwnedFd, OwnedFd)>,
    filled: usize,
    ended: bool,
    shut: bool,
}

#[derive(Debug)]
pub(super) struct Connection {
    /// The caller's socket and the target's.
    sockets: [OwnedFd; 2],
    /// From the caller to the target, and back.
    directions: [Direction; 2],
    /// Targets to try when this one does not take the connection, last first.
    others: Vec<SocketAddr>,
    pub(super) connected: bool,
}

/// What became of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing can be moved until an event comes.
    Waiting,
    /// Its turn is over and there is more to move.
    Busy,
    /// Both directions ended, or it broke.
    Over,
}

impl Connection {
    /// Begins to connect a caller; `None` when no target can be tried.
    pub(super) fn open(poller: &Poller, token: u32, caller: OwnedFd, mut others: Vec<SocketAddr>) -> Option<Self> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        poller.watch(&caller, Token::Forward(token), flags).ok()?;
        let target = dial(poller, token + 1, &mut others)?;
        Some(Self { sockets: [caller, target], directions: Default::default(), others, connected: false })
    }

    /// Takes in an event of a socket that is being connected; false when all targets have failed.
    pub(super) fn finish_connect(&mut self, poller: &Poller, token: u32, flags: EventFlags) -> bool {
        let failed = !matches!(rustix::net::sockopt::socket_error(&self.sockets[1]), Ok(Ok(())));
        if failed {
            let Some(target) = dial(poller, token, &mut self.others) else { return false };
            self.sockets[1] = target;
        } else {
            self.connected = flags.contains(EventFlags::OUT);
        }
        true
    }

    /// Moves what can be moved in both directions.
    pub(super) fn turn(&mut self) -> Outcome {
        if !self.connected {
            return Outcome::Waiting;
        }
        let mut busy = false;
        for side in 0..2 {
            let (from, to) = (&self.sockets[side], &self.sockets[1 - side]);
            match self.directions[side].turn(from, to) {
                Ok(more) => busy |= more,
                Err(_) => return Outcome::Over,
            }
        }
        match (self.directions.iter().all(|direction| direction.shut), busy) {
            (true, _) => Outcome::Over,
            (false, true) => Outcome::Busy,
            (false, false) => Outcome::Waiting,
        }
    }
}

impl Direction {
    /// Moves bytes until one side has to be waited for; true when only its turn is over.
    fn turn(&mut self, from: &OwnedFd, to: &OwnedFd) -> Result<bool, Errno> {
        for _ in 0..TURN {
            let mut moved = false;
            if self.filled == 0 && !self.ended {
                match splice(from, &self.pipe()?.1) {
                    Ok(0) => self.ended = true,
                    Ok(n) => (self.filled, moved) = (n, true),
                    Err(Errno::AGAIN) => {}
                    Err(errno) => return Err(errno),
                }
            }
            if self.filled > 0 {
                match splice(&self.pipe()?.0, to) {
                    Ok(n) => {
                        self.filled -= n;
                        moved = true;
                    }
                    Err(Errno::AGAIN) => return Ok(false),
                    Err(errno) => return Err(errno),
                }
            }
            if self.filled == 0 && self.ended && !self.shut {
                self.shut = true;
                self.pipe = None;
                // The other side may have closed already.
                let _ = rustix::net::shutdown(to, Shutdown::Write);
            }
            if !moved {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the pipe's read and write end, made when first needed.
    fn pipe(&mut self) -> Result<&(OwnedFd, OwnedFd), Errno> {
        if self.pipe.is_none() {
            self.pipe =
                Some(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK)?);
        }
        self.pipe.as_ref().ok_or(Errno::IO)
    }
}

fn splice(from: impl AsFd, to: impl AsFd) -> Result<usize, Errno> {
    loop {
        match rustix::pipe::splice(&from, None, &to, None, CHUNK, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Begins to connect to the next target that can be tried.
fn dial(poller: &Poller, token: u32, targets: &mut Vec<SocketAddr>) -> Option<OwnedFd> {
    while let Some(target) = targets.pop() {
        let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(socket) = rustix::net::socket_with(family, SocketType::STREAM, flags, None) else { continue };
        let begun = matches!(rustix::net::connect(&socket, &target), Ok(()) | Err(Errno::INPROGRESS | Errno::INTR));
        // Idle connections that died without a word are noticed in the end.
        let _ = rustix::net::sockopt::set_socket_keepalive(&socket, true);
        let watched = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        if begun && poller.watch(&socket, Token::Forward(token), watched).is_ok() {
            return Some(socket);
        }
    }
    None
}

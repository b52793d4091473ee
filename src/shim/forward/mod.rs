//! Published loopback ports and questions for names by TCP: sockets of one side joined to sockets of the other.
//!
//! Decides who is served: how many connections and senders at a time, and whose turn it is. TCP is moved by `splice(2)`
//! ([`connection`]), never through our memory, each direction with its own end; UDP through a small table of senders.
//! TCP sockets are watched edge-triggered, and a busy connection has to let others have their turn.

mod connection;

use self::connection::{Connection, Outcome};
use super::dns::connect as udp_connect;
use super::poller::{Poller, Token, set_nonblocking};
use super::protocol::Forward;
use rustix::event::epoll::EventFlags;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Connections at one time, at most; the limit of open files may allow fewer.
const MOST_CONNECTIONS: usize = 4096;
/// Descriptors of one connection: two sockets, two pipes.
const PER_CONNECTION: u64 = 6;
/// Descriptors left for everything else.
const RESERVE: u64 = 400;
/// Senders of one UDP port that are remembered.
const MOST_SENDERS: usize = 256;
/// Silence after which a UDP sender is forgotten, as in docker's proxy.
const SENDER_IDLE: Duration = Duration::from_secs(90);
/// Moves in a row before others get their turn.
const TURN: usize = 16;

#[derive(Debug)]
enum Entry {
    Listener { socket: OwnedFd, targets: Vec<SocketAddr>, waiting: bool },
    Connection(Box<Connection>),
    Port { socket: UdpSocket, target: SocketAddr },
    Sender { port: u32, address: SocketAddr, socket: UdpSocket, used: Instant },
}

/// All forwarded ports of a container.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    entries: BTreeMap<u32, Entry>,
    next: u32,
    busy: BTreeSet<u32>,
    connections: usize,
    most: usize,
    /// The limit of open files before we raised it.
    soft_limit: Option<u64>,
    buffer: Vec<u8>,
}

impl Forwards {
    /// Begins to forward from each socket.
    pub(super) fn new(poller: &Poller, forwards: Vec<(Forward, OwnedFd)>) -> Result<Self, Errno> {
        let mut all = Self::default();
        for (forward, socket) in forwards {
            match forward.protocol.as_str() {
                "tcp" => all.listen(poller, socket, vec![forward.target])?,
                "udp" => {
                    set_nonblocking(&socket)?;
                    let number = all.number();
                    poller.watch(&socket, Token::Forward(number * 2), EventFlags::IN)?;
                    all.entries.insert(number, Entry::Port { socket: socket.into(), target: forward.target });
                }
                _ => return Err(Errno::PROTONOSUPPORT),
            }
        }
        all.raise_limit();
        Ok(all)
    }

    /// Takes callers from a TCP listener to the first target that answers.
    pub(super) fn listen(&mut self, poller: &Poller, socket: OwnedFd, targets: Vec<SocketAddr>) -> Result<(), Errno> {
        set_nonblocking(&socket)?;
        let number = self.number();
        poller.watch(&socket, Token::Forward(number * 2), EventFlags::IN | EventFlags::ET)?;
        self.entries.insert(number, Entry::Listener { socket, targets, waiting: false });
        self.most = MOST_CONNECTIONS.min(64);
        Ok(())
    }

    /// Raises our limit of open files to what is allowed, for many connections at a time.
    pub(super) fn raise_limit(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        let limit = getrlimit(Resource::Nofile);
        if setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).is_ok() {
            self.soft_limit = limit.current;
        }
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        self.most =
            MOST_CONNECTIONS.min(usize::try_from(files.saturating_sub(RESERVE) / PER_CONNECTION).unwrap_or(0)).max(16);
    }

    /// Puts the limit back, before a container that inherits it is started.
    pub(super) fn lower_limit(&mut self) {
        if let Some(current) = self.soft_limit.take() {
            let maximum = getrlimit(Resource::Nofile).maximum;
            // Lowering one's own soft limit is always allowed.
            let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum });
        }
    }

    fn number(&mut self) -> u32 {
        // Half of the numbers, because each entry has two tokens; after two thousand million the free ones come again.
        loop {
            let number = self.next;
            self.next = (self.next + 1) & (u32::MAX >> 1);
            if !self.entries.contains_key(&number) {
                return number;
            }
        }
    }

    /// Handles an event of one of the sockets.
    pub(super) fn handle(&mut self, poller: &Poller, token: u32, flags: EventFlags, now: Instant) {
        let number = token / 2;
        match self.entries.get_mut(&number) {
            Some(Entry::Listener { waiting, .. }) => {
                *waiting = true;
                self.accept(poller, number);
            }
            Some(Entry::Connection(connection)) => {
                if !connection.connected && token % 2 == 1 && !connection.finish_connect(poller, token, flags) {
                    self.close(poller, number);
                    return;
                }
                self.turn(poller, number);
            }
            Some(Entry::Port { .. }) => self.datagrams_in(poller, number, now),
            Some(Entry::Sender { .. }) => self.datagrams_back(number, now),
            None => {}
        }
    }

    /// Gives busy connections another turn; true when there are any left.
    pub(super) fn pump(&mut self, poller: &Poller) -> bool {
        for number in std::mem::take(&mut self.busy) {
            self.turn(poller, number);
        }
        !self.busy.is_empty()
    }

    fn turn(&mut self, poller: &Poller, number: u32) {
        let Some(Entry::Connection(connection)) = self.entries.get_mut(&number) else { return };
        match connection.turn() {
            Outcome::Waiting => {}
            Outcome::Busy => drop(self.busy.insert(number)),
            Outcome::Over => self.close(poller, number),
        }
    }

    fn close(&mut self, poller: &Poller, number: u32) {
        if let Some(Entry::Connection(_)) = self.entries.remove(&number) {
            self.connections -= 1;
            self.accept_waiting(poller);
        }
    }

    /// Goes back to listeners that had to be left alone for want of room.
    fn accept_waiting(&mut self, poller: &Poller) {
        let waiting = |entry: &Entry| matches!(entry, Entry::Listener { waiting: true, .. });
        let numbers: Vec<u32> =
            self.entries.iter().filter(|(_, entry)| waiting(entry)).map(|(number, _)| *number).collect();
        for number in numbers {
            self.accept(poller, number);
        }
    }

    fn accept(&mut self, poller: &Poller, number: u32) {
        while self.connections < self.most {
            let Some(Entry::Listener { socket, targets, waiting }) = self.entries.get_mut(&number) else { return };
            let caller = match rustix::net::accept_with(&*socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(caller) => caller,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(errno) => {
                    *waiting = errno != Errno::AGAIN;
                    return;
                }
            };
            let others = targets.iter().rev().copied().collect();
            let new = self.number();
            if let Some(connection) = Connection::open(poller, new * 2, caller, others) {
                self.entries.insert(new, Entry::Connection(Box::new(connection)));
                self.connections += 1;
            }
        }
    }

    /// Carries datagrams from senders to the container.
    fn datagrams_in(&mut self, poller: &Poller, number: u32, now: Instant) {
        self.buffer.resize(1 << 16, 0);
        for _ in 0..TURN {
            let Some(Entry::Port { socket, target }) = self.entries.get(&number) else { break };
            let target = *target;
            let Ok((length, address)) = socket.recv_from(&mut self.buffer) else { break };
            let Some(sender) = self.sender(poller, number, address, target, now) else { continue };
            if let Some(Entry::Sender { socket, used, .. }) = self.entries.get_mut(&sender) {
                *used = now;
                // Lost like any datagram: the container may not listen.
                let _ = socket.send(&self.buffer[..length]);
            }
        }
        self.buffer = Vec::new();
    }

    /// Finds the socket of a sender or makes one, in place of the longest silent one when there are too many.
    fn sender(
        &mut self,
        poller: &Poller,
        port: u32,
        address: SocketAddr,
        target: SocketAddr,
        now: Instant,
    ) -> Option<u32> {
        let mut known: Vec<(Instant, u32)> = Vec::new();
        for (number, entry) in &self.entries {
            if let Entry::Sender { port: its_port, address: its_address, used, .. } = entry
                && *its_port == port
            {
                if *its_address == address {
                    return Some(*number);
                }
                known.push((*used, *number));
            }
        }
        if known.len() >= MOST_SENDERS {
            let (_, oldest) = known.into_iter().min()?;
            self.entries.remove(&oldest);
        }
        let socket = udp_connect(target).ok()?;
        let number = self.number();
        poller.watch(&socket, Token::Forward(number * 2), EventFlags::IN).ok()?;
        self.entries.insert(number, Entry::Sender { port, address, socket, used: now });
        Some(number)
    }

    /// Carries the container's datagrams back to a sender.
    fn datagrams_back(&mut self, number: u32, now: Instant) {
        self.buffer.resize(1 << 16, 0);
        for _ in 0..TURN {
            let Some(Entry::Sender { port, address, socket, used }) = self.entries.get_mut(&number) else { break };
            let (port, address) = (*port, *address);
            // An error is the container's "nobody listens", told to this socket; reading it clears it.
            let Ok(length) = socket.recv(&mut self.buffer) else { break };
            *used = now;
            if let Some(Entry::Port { socket, .. }) = self.entries.get(&port) {
                let _ = socket.send_to(&self.buffer[..length], address);
            }
        }
        self.buffer = Vec::new();
    }

    /// Returns when the next UDP sender is forgotten.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let idle =
            |entry: &Entry| if let Entry::Sender { used, .. } = entry { Some(*used + SENDER_IDLE) } else { None };
        self.entries.values().filter_map(idle).min()
    }

    /// Forgets silent UDP senders.
    pub(super) fn expire(&mut self, now: Instant) {
        self.entries.retain(|_, entry| !matches!(entry, Entry::Sender { used, .. } if *used + SENDER_IDLE <= now));
    }
}

#[cfg(test)]
mod tests;

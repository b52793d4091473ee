//! Published loopback ports and questions for names by TCP: sockets of one side joined to sockets of the other.
//!
//! TCP is moved by `splice(2)`, never through our memory, each direction with its own end; UDP through a small table of
//! senders. All sockets are watched edge-triggered, and a busy connection has to let others have their turn.

use super::dns::connect as udp_connect;
use super::poller::{Poller, Token, set_nonblocking};
use super::protocol::Forward;
use rustix::event::epoll::EventFlags;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType};
use rustix::pipe::SpliceFlags;
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
/// Bytes moved at once.
const CHUNK: usize = 64 << 10;
/// Moves in a row before others get their turn.
const TURN: usize = 16;

#[derive(Debug)]
enum Entry {
    Listener { socket: OwnedFd, targets: Vec<SocketAddr>, waiting: bool },
    Connection(Box<Connection>),
    Port { socket: UdpSocket, target: SocketAddr },
    Sender { port: u32, address: SocketAddr, socket: UdpSocket, used: Instant },
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Direction {
    pipe: Option<(OwnedFd, OwnedFd)>,
    filled: usize,
    ended: bool,
    shut: bool,
}

#[derive(Debug)]
struct Connection {
    /// The caller's socket and the target's.
    sockets: [OwnedFd; 2],
    /// From the caller to the target, and back.
    directions: [Direction; 2],
    /// Targets to try when this one does not take the connection, last first.
    others: Vec<SocketAddr>,
    connected: bool,
}

/// What became of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing can be moved until an event comes.
    Waiting,
    /// Its turn is over and there is more to move.
    Busy,
    /// Both directions ended, or it broke.
    Over,
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

impl Connection {
    /// Begins to connect a caller; `None` when no target can be tried.
    fn open(poller: &Poller, token: u32, caller: OwnedFd, mut others: Vec<SocketAddr>) -> Option<Self> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        poller.watch(&caller, Token::Forward(token), flags).ok()?;
        let target = dial(poller, token + 1, &mut others)?;
        Some(Self { sockets: [caller, target], directions: Default::default(), others, connected: false })
    }

    /// Takes in an event of a socket that is being connected; false when all targets have failed.
    fn finish_connect(&mut self, poller: &Poller, token: u32, flags: EventFlags) -> bool {
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
    fn turn(&mut self) -> Outcome {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    fn forward(protocol: &str, target: SocketAddr, socket: impl Into<OwnedFd>) -> (Poller, Forwards) {
        let poller = Poller::new().unwrap();
        let forwards =
            Forwards::new(&poller, vec![(Forward { protocol: protocol.to_owned(), target }, socket.into())]).unwrap();
        (poller, forwards)
    }

    fn spin(poller: &Poller, forwards: &mut Forwards, until: &std::sync::atomic::AtomicBool) {
        let mut more = false;
        while !until.load(std::sync::atomic::Ordering::Acquire) {
            let wait = if more { Duration::ZERO } else { Duration::from_millis(20) };
            for (token, flags) in poller.wait(Some(Instant::now() + wait)).unwrap() {
                if let Token::Forward(number) = token {
                    forwards.handle(poller, number, flags, Instant::now());
                }
            }
            more = forwards.pump(poller);
        }
    }

    /// Runs a forwarder while a test talks through it; returns what is left of its connections.
    fn with_forward(
        protocol: &str,
        target: SocketAddr,
        socket: impl Into<OwnedFd>,
        test: impl FnOnce() + Send,
    ) -> usize {
        let (poller, mut forwards) = forward(protocol, target, socket);
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
                done.store(true, std::sync::atomic::Ordering::Release);
                if let Err(panic) = result {
                    std::panic::resume_unwind(panic);
                }
            });
            spin(&poller, &mut forwards, &done);
        });
        forwards.connections
    }

    #[test]
    fn each_direction_of_a_connection_ends_by_itself() {
        let (server, listener) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let (target, published) = (server.local_addr().unwrap(), listener.local_addr().unwrap());
        with_forward("tcp", target, listener, move || {
            let mut caller = TcpStream::connect(published).unwrap();
            let (mut inside, _) = server.accept().unwrap();
            caller.write_all(b"question").unwrap();
            caller.shutdown(std::net::Shutdown::Write).unwrap();
            let mut text = String::new();
            inside.read_to_string(&mut text).unwrap();
            assert_eq!(text, "question", "the caller's end of file arrived");
            inside.write_all(b"answer").unwrap();
            drop(inside);
            text.clear();
            caller.read_to_string(&mut text).unwrap();
            assert_eq!(text, "answer");
        });
    }

    #[test]
    fn a_lot_of_data_arrives_whole_past_slow_ends() {
        let (server, listener) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let (target, published) = (server.local_addr().unwrap(), listener.local_addr().unwrap());
        with_forward("tcp", target, listener, move || {
            let data: Vec<u8> = (0..20_000_000u32).map(|n| (n % 251) as u8).collect();
            std::thread::scope(|scope| {
                let mut caller = TcpStream::connect(published).unwrap();
                let (mut inside, _) = server.accept().unwrap();
                let sent = &data;
                scope.spawn(move || caller.write_all(sent).unwrap());
                let mut got = Vec::new();
                inside.read_to_end(&mut got).unwrap();
                assert!(got == data);
            });
        });
    }

    #[test]
    fn a_caller_is_dropped_when_nobody_listens_inside() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let published = listener.local_addr().unwrap();
        let left = with_forward("tcp", target, listener, move || {
            let mut caller = TcpStream::connect(published).unwrap();
            assert!(!matches!(caller.read(&mut [0; 1]), Ok(1..)));
        });
        assert_eq!(left, 0);
    }

    #[test]
    fn datagrams_find_their_way_back_to_each_sender() {
        let (server, port) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let (target, published) = (server.local_addr().unwrap(), port.local_addr().unwrap());
        with_forward("udp", target, port, move || {
            let senders: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
            for (n, sender) in senders.iter().enumerate() {
                sender.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                sender.send_to(&[n as u8], published).unwrap();
                let mut buffer = [0; 8];
                let (length, from) = server.recv_from(&mut buffer).unwrap();
                server.send_to(&[buffer[0] + 100], from).unwrap();
                let (answered, source) = sender.recv_from(&mut buffer).unwrap();
                assert_eq!((length, answered, buffer[0], source), (1, 1, n as u8 + 100, published));
            }
        });
    }
}

//! Carries the container's questions for names (UDP) to the host's servers.
//!
//! The shim lives in the host's network namespace, so every question goes out on a socket of its own, connected to one
//! server: the kernel drops answers from elsewhere, and each question has its own random source port. A server that does
//! not answer in two seconds, or refuses, is followed by the next. Questions by TCP are ordinary forwarded connections
//! (see [`super::forward`]).

use super::poller::{Poller, Token};
use rustix::event::epoll::EventFlags;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// How long one server may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Questions under way at one time; more are dropped, and asked again by whoever wants to know.
const MOST_QUESTIONS: usize = 128;
/// Times the whole list of servers is gone through.
const ROUNDS: usize = 2;
/// Number of the token of the container's socket; questions count from 2 on (1 is free).
const CONTAINER: u32 = 0;
/// Length of a DNS header in bytes (*RFC 1035, 4.1.1*).
const HEADER: usize = 12;

#[derive(Debug)]
struct Question {
    asker: SocketAddr,
    bytes: Vec<u8>,
    socket: UdpSocket,
    attempt: usize,
    deadline: Instant,
}

/// The relay of one container.
#[derive(Debug)]
pub(super) struct DnsRelay {
    container: UdpSocket,
    servers: Vec<SocketAddr>,
    questions: BTreeMap<u32, Question>,
    next: u32,
    /// Room for one datagram; given back when no question is under way.
    buffer: Vec<u8>,
}

impl DnsRelay {
    /// Begins to relay from a UDP socket of the container's namespace.
    pub(super) fn new(poller: &Poller, container: OwnedFd, servers: Vec<SocketAddr>) -> Result<Self, Errno> {
        super::poller::set_nonblocking(&container)?;
        poller.watch(&container, Token::Dns(CONTAINER), EventFlags::IN)?;
        Ok(Self { container: container.into(), servers, questions: BTreeMap::new(), next: 2, buffer: Vec::new() })
    }

    /// Handles an event of one of the sockets.
    pub(super) fn handle(&mut self, poller: &Poller, number: u32, now: Instant) {
        if self.buffer.is_empty() {
            self.buffer.resize(1 << 16, 0);
        }
        if number == CONTAINER {
            self.take_questions(poller, now)
        } else {
            self.take_answer(poller, number, now)
        }
        self.trim();
    }

    fn trim(&mut self) {
        if self.questions.is_empty() {
            self.buffer = Vec::new();
        }
    }

    fn take_questions(&mut self, poller: &Poller, now: Instant) {
        for _ in 0..MOST_QUESTIONS {
            let Ok((length, asker)) = self.container.recv_from(&mut self.buffer) else { return };
            let bytes = &self.buffer[..length];
            // Shorter than a header, or an answer itself: not a question.
            if length < HEADER || bytes[2] & 0x80 != 0 || self.questions.len() >= MOST_QUESTIONS {
                continue;
            }
            self.ask(poller, asker, bytes.to_vec(), 0, now);
        }
    }

    /// Sends a question to the server whose turn it is, or to the first after it that can be sent to.
    fn ask(&mut self, poller: &Poller, asker: SocketAddr, bytes: Vec<u8>, first: usize, now: Instant) {
        for attempt in first..self.servers.len() * ROUNDS {
            let server = self.servers[attempt % self.servers.len()];
            let number = self.next;
            if let Ok(socket) = connect(server)
                && socket.send(&bytes).is_ok()
                && poller.watch(&socket, Token::Dns(number), EventFlags::IN).is_ok()
            {
                self.next = self.next.checked_add(1).unwrap_or(2);
                self.questions.insert(number, Question { asker, bytes, socket, attempt, deadline: now + PATIENCE });
                return;
            }
        }
        if let Some(answer) = server_failure(&bytes) {
            // The asker may be gone; it asks again otherwise.
            let _ = self.container.send_to(&answer, asker);
        }
    }

    fn take_answer(&mut self, poller: &Poller, number: u32, now: Instant) {
        let Some(question) = self.questions.get(&number) else { return };
        match question.socket.recv(&mut self.buffer) {
            Ok(length) if length >= HEADER && self.buffer[..2] == question.bytes[..2] && self.buffer[2] & 0x80 != 0 => {
                let _ = self.container.send_to(&self.buffer[..length], question.asker);
                self.questions.remove(&number);
            }
            // A stray datagram: the true answer may still come.
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => self.ask_next(poller, number, now),
        }
    }

    fn ask_next(&mut self, poller: &Poller, number: u32, now: Instant) {
        if let Some(question) = self.questions.remove(&number) {
            self.ask(poller, question.asker, question.bytes, question.attempt + 1, now);
        }
    }

    /// Returns when a server's time is up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.questions.values().map(|question| question.deadline).min()
    }

    /// Gives questions whose server's time is up to the next one.
    pub(super) fn expire(&mut self, poller: &Poller, now: Instant) {
        let late: Vec<u32> =
            self.questions.iter().filter(|(_, question)| question.deadline <= now).map(|(number, _)| *number).collect();
        for number in late {
            self.ask_next(poller, number, now);
        }
        self.trim();
    }
}

/// Makes a UDP socket that talks to one address only.
pub(super) fn connect(to: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: SocketAddr =
        if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(to)?;
    Ok(socket)
}

/// Turns a question into the answer "server failure", keeping its first question record.
pub(super) fn server_failure(question: &[u8]) -> Option<Vec<u8>> {
    let mut answer = question.get(..HEADER)?.to_vec();
    let mut end = HEADER;
    let has_question = question[4..6] != [0, 0];
    if has_question {
        while *question.get(end)? != 0 {
            end += 1 + usize::from(question[end]);
        }
        answer.extend_from_slice(question.get(HEADER..end + 5)?);
    }
    answer[2] = 0x80 | question[2] & 0x79;
    answer[3] = 0x82;
    answer[4..HEADER].copy_from_slice(&[0, u8::from(has_question), 0, 0, 0, 0, 0, 0]);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QUESTION: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x00\x00\x01\x00\x01";

    /// A relay before some servers, and a socket that asks it.
    fn relay(servers: Vec<SocketAddr>) -> (Poller, DnsRelay, UdpSocket) {
        let poller = Poller::new().unwrap();
        let container = UdpSocket::bind("127.0.0.1:0").unwrap();
        let asker = connect(container.local_addr().unwrap()).unwrap();
        asker.set_nonblocking(false).unwrap();
        asker.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let relay = DnsRelay::new(&poller, container.into(), servers).unwrap();
        (poller, relay, asker)
    }

    fn turn(poller: &Poller, relay: &mut DnsRelay) {
        for (token, _) in poller.wait(Some(Instant::now() + Duration::from_secs(5))).unwrap() {
            if let Token::Dns(number) = token {
                relay.handle(poller, number, Instant::now());
            }
        }
    }

    #[test]
    fn an_answer_comes_back_and_everything_is_given_up_again() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (poller, mut relay, asker) = relay(vec![server.local_addr().unwrap()]);
        asker.send(QUESTION).unwrap();
        turn(&poller, &mut relay);
        let mut buffer = [0; 512];
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], QUESTION);
        server.send_to(b"\x99\x99\x80 wrong number!", from).unwrap();
        turn(&poller, &mut relay);
        server.send_to(b"\x12\x34\x80 the right answer", from).unwrap();
        turn(&poller, &mut relay);
        let length = asker.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"\x12\x34\x80 the right answer");
        assert!(relay.questions.is_empty() && relay.buffer.capacity() == 0);
    }

    #[test]
    fn a_silent_server_is_followed_by_the_next_and_in_the_end_by_a_failure() {
        let (silent, second) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let (poller, mut relay, asker) = relay(vec![silent.local_addr().unwrap(), second.local_addr().unwrap()]);
        asker.send(QUESTION).unwrap();
        turn(&poller, &mut relay);
        let mut buffer = [0; 512];
        for server in [&silent, &second, &silent, &second] {
            assert_eq!(server.recv(&mut buffer).unwrap(), QUESTION.len());
            relay.expire(&poller, relay.deadline().unwrap());
        }
        let length = asker.recv(&mut buffer).unwrap();
        assert_eq!((&buffer[..2], buffer[2], buffer[3] & 15, length), (&QUESTION[..2], 0x81, 2, QUESTION.len()));
        assert!(relay.deadline().is_none());
    }

    #[test]
    fn a_flood_of_questions_stays_bounded() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (poller, mut relay, asker) = relay(vec![silent.local_addr().unwrap()]);
        for _ in 0..3 {
            for _ in 0..MOST_QUESTIONS {
                asker.send(QUESTION).unwrap();
            }
            turn(&poller, &mut relay);
        }
        assert_eq!(relay.questions.len(), MOST_QUESTIONS);
    }

    proptest! {
        #[test]
        fn no_question_makes_the_failure_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = server_failure(&bytes);
        }
    }
}

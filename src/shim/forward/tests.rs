use super::super::poller::{Poller, Token};
use super::super::protocol::Forward;
use super::Forwards;
use rustix::fd::OwnedFd;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

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
fn with_forward(protocol: &str, target: SocketAddr, socket: impl Into<OwnedFd>, test: impl FnOnce() + Send) -> usize {
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

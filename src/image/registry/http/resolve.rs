//! Addresses of names, asked for in a process of its own: the C library's resolver knows neither deadline nor interruption.

use super::wait::{Halt, Waited, wait};
use crate::image::registry::error::{RegistryError, Result};
use crate::sys::worker::Worker;
use rustix::event::PollFlags;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// How long name servers that cannot be reached are given to say so.
const HEARD: Duration = Duration::from_millis(150);
/// Most addresses of a name that are tried.
const MOST: usize = 8;

/// Returns the addresses of a host, in the resolver's order.
///
/// # Errors
/// When there are none, the time is over or the caller wants to stop.
pub(super) fn resolve(host: &str, until: Instant, halt: &Halt<'_>) -> Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let io = |action| move |source| RegistryError::Io { action, source };
    let refused = |reason: &str| RegistryError::Resolve { host: host.to_owned(), reason: reason.to_owned() };
    let (read, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|errno| io("make a pipe")(errno.into()))?;
    let worker = Worker::fork(&[write.as_fd()], || i32::from(answer(host, write.as_fd()).is_err()))
        .map_err(io("start the resolving process"))?;
    drop(write);
    let mut pipe = File::from(read);
    let mut text = String::new();
    let mut servers = Some(Servers::ask(host));
    loop {
        // The C library waits for name servers even when the system says that there is no way to any.
        let soon = if servers.is_some() { until.min(Instant::now() + HEARD) } else { until };
        match wait(Some((pipe.as_fd(), PollFlags::IN)), Some(halt), soon).map_err(io("wait for the resolver"))? {
            // Dropped, the worker is killed.
            Waited::Interrupted => return Err(RegistryError::Interrupted),
            Waited::Late => match servers.take() {
                Some(servers) if servers.are_out_of_reach() => {
                    return Err(refused("no name server can be reached; see /etc/resolv.conf"));
                }
                Some(_) => continue,
                None => return Err(refused("no answer came in time")),
            },
            Waited::Ready => {}
        }
        let mut bytes = [0; 512];
        match pipe.read(&mut bytes).map_err(io("read the resolver's answer"))? {
            0 => break,
            count => text.push_str(&String::from_utf8_lossy(&bytes[..count])),
        }
    }
    drop(worker.wait());
    match text.strip_prefix('!') {
        Some(reason) => Err(refused(reason)),
        None => match text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<_>>() {
            addresses if addresses.is_empty() => Err(refused("it has none")),
            addresses => Ok(addresses),
        },
    }
}

/// The system's name servers, asked beside the C library to hear what it does not: that there is no way to them, or that
/// nobody listens there (*resolv.conf(5)*, *udp(7)* on connected sockets).
struct Servers {
    /// Those that could be asked.
    asked: Vec<UdpSocket>,
}

impl Servers {
    fn ask(host: &str) -> Self {
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let question = question(host);
        let ask = |server: IpAddr| {
            let own: IpAddr =
                if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((own, 0))?;
            socket.connect((server, 53))?;
            socket.set_nonblocking(true)?;
            socket.send(&question)?;
            Ok::<_, std::io::Error>(socket)
        };
        Self { asked: servers(&text).into_iter().filter_map(|server| ask(server).ok()).collect() }
    }

    /// Tells whether every one refused; one that has said nothing yet may still answer.
    fn are_out_of_reach(&self) -> bool {
        let silent = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        !self.asked.iter().any(|socket| socket.recv(&mut [0; 512]).map_or_else(silent, |_| true))
    }
}

/// The name servers that a resolver's file names; without one it is this machine.
fn servers(text: &str) -> Vec<IpAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.split('%').next()?.parse().ok())?
    });
    let named: Vec<IpAddr> = named.collect();
    if named.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { named }
}

/// A question for a name's addresses (*RFC 1035 "Messages"*). What is no name of the DNS makes one for the root.
fn question(host: &str) -> Vec<u8> {
    let mut message = vec![0x62, 0x68, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let labels: Vec<&str> = host.trim_end_matches('.').split('.').collect();
    if labels.iter().all(|label| (1..64).contains(&label.len())) {
        for label in labels {
            message.push(label.len() as u8);
            message.extend_from_slice(label.as_bytes());
        }
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}

/// Resolves and writes one address after the other, or `!` and why there are none.
fn answer(host: &str, to: BorrowedFd<'_>) -> std::io::Result<()> {
    let text = match (host, 0).to_socket_addrs() {
        Ok(addresses) => addresses.take(MOST).map(|address| format!("{}\n", address.ip())).collect(),
        Err(error) => format!("!{}", error.to_string().trim_start_matches("failed to lookup address information: ")),
    };
    File::from(to.try_clone_to_owned()?).write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_no_resolver_and_names_get_one() {
        let (until, halt) = (Instant::now() + Duration::from_secs(20), Halt::new(None).unwrap());
        assert_eq!(resolve("127.0.0.9", until, &halt).unwrap(), ["127.0.0.9".parse::<IpAddr>().unwrap()]);
        assert!(resolve("localhost", until, &halt).unwrap().iter().any(|address| address.is_loopback()));
        let error = resolve("no-such-name.invalid", until, &halt).unwrap_err();
        assert!(error.to_string().starts_with("find the address of no-such-name.invalid: "), "{error}");
    }

    #[test]
    fn name_servers_are_read_and_asked() {
        let shown = |text: &str| servers(text).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(
            shown("# x\nsearch a\nnameserver 10.0.0.1\n nameserver fe80::1%eth0 \nnameserver x\n"),
            "10.0.0.1 fe80::1"
        );
        assert_eq!(shown("options x\n"), "127.0.0.1");
        assert_eq!(question("ab.c")[12..], *b"\x02ab\x01c\0\0\x01\0\x01");
        assert_eq!(question(&"a".repeat(64))[12..], *b"\0\0\x01\0\x01");
    }

    #[test]
    fn an_interrupt_ends_the_wait_for_a_name() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&write, b"x").unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        let error = resolve("no-such-name.invalid", until, &Halt::new(Some(read.as_fd())).unwrap()).unwrap_err();
        assert!(matches!(error, RegistryError::Interrupted), "{error}");
    }
}

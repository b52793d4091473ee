//! Addresses of names, asked for in a process of its own: the C library's resolver knows neither deadline nor interruption.

use super::wait::{Halt, Waited, wait};
use crate::image::registry::error::{RegistryError, Result};
use crate::sys::worker::Worker;
use rustix::event::PollFlags;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

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
    loop {
        match wait(Some((pipe.as_fd(), PollFlags::IN)), Some(halt), until).map_err(io("wait for the resolver"))? {
            // Dropped, the worker is killed.
            Waited::Interrupted => return Err(RegistryError::Interrupted),
            Waited::Late => return Err(refused("no answer came in time")),
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
    use std::time::Duration;

    #[test]
    fn addresses_need_no_resolver_and_names_get_one() {
        let (until, halt) = (Instant::now() + Duration::from_secs(20), Halt::new(None).unwrap());
        assert_eq!(resolve("127.0.0.9", until, &halt).unwrap(), ["127.0.0.9".parse::<IpAddr>().unwrap()]);
        assert!(resolve("localhost", until, &halt).unwrap().iter().any(|address| address.is_loopback()));
        let error = resolve("no-such-name.invalid", until, &halt).unwrap_err();
        assert!(error.to_string().starts_with("find the address of no-such-name.invalid: "), "{error}");
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

//! One connection, plain or through TLS: every wait has a deadline and hears the caller's wish to stop.

use super::resolve::resolve;
use super::wait::{Halt, Waited, wait};
use crate::image::registry::error::{RegistryError, Result};
use crate::image::registry::url::{Origin, is_own};
use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why a read or a write ended without success; the caller knows what was asked and makes an error of it.
#[derive(Debug)]
pub(super) enum Broken {
    /// The caller wants to stop.
    Interrupted,
    /// The deadline has passed.
    Late,
    /// The connection broke.
    Io(io::Error),
    /// What is to be sent could not be made.
    Source(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A connection.
pub(super) struct Stream<'a> {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    halt: Halt<'a>,
}

impl<'a> Stream<'a> {
    /// Connects to a host, trying its addresses in turn; each gets an equal share of the time. Those of this machine are left
    /// out with `fenced`.
    pub(super) fn connect(origin: &Origin, limit: Duration, fenced: bool, halt: &Halt<'a>) -> Result<Self> {
        let until = Instant::now() + limit;
        let mut addresses = resolve(&origin.host, until, halt)?;
        addresses.retain(|address| !fenced || !is_own(*address));
        if addresses.is_empty() {
            return Err(RegistryError::Own { host: origin.host.clone() });
        }
        let mut last = None;
        for (at, address) in addresses.iter().enumerate() {
            let left = until.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - at).unwrap_or(1);
            match connect(SocketAddr::new(*address, origin.port), Instant::now() + share, halt) {
                Ok(socket) => {
                    // Without it the last piece of a request waits for the answer to the one before.
                    let _ = socket.set_nodelay(true);
                    return Ok(Self { socket, tls: None, halt: halt.clone() });
                }
                Err(Broken::Interrupted) => return Err(RegistryError::Interrupted),
                Err(Broken::Late) => last = Some((*address, io::Error::from(io::ErrorKind::TimedOut))),
                Err(Broken::Io(error) | Broken::Source(error)) => last = Some((*address, error)),
            }
        }
        let (address, source) = last.unwrap_or((IpAddr::V4(Ipv4Addr::UNSPECIFIED), io::ErrorKind::NotFound.into()));
        let shown = SocketAddr::new(address, origin.port).to_string();
        let authority = format!("{}:{}", origin.host, origin.port);
        let address = if shown == authority { shown } else { format!("{authority} ({shown})") };
        Err(RegistryError::Connect { address, source })
    }

    /// Begins TLS and waits for the other side's proof of who it is.
    pub(super) fn secure(
        mut self,
        origin: &Origin,
        config: Arc<rustls::ClientConfig>,
        limit: Duration,
    ) -> Result<Self> {
        let refused = |reason: String| RegistryError::Tls { host: origin.authority(), reason };
        let name = ServerName::try_from(origin.host.clone()).map_err(|error| refused(error.to_string()))?;
        let mut tls = ClientConnection::new(config, name).map_err(|error| refused(error.to_string()))?;
        let until = Instant::now() + limit;
        while tls.is_handshaking() {
            let step = if tls.wants_write() {
                tls.write_tls(&mut self.socket).map(drop)
            } else {
                match tls.read_tls(&mut self.socket) {
                    Ok(0) => return Err(refused("the other side closed the connection".to_owned())),
                    Ok(_) => {
                        tls.process_new_packets().map_err(|error| refused(error.to_string()))?;
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            };
            match step.map_err(Broken::Io).or_else(|broken| self.settle(broken, tls.wants_write(), until)) {
                Ok(()) => {}
                Err(Broken::Interrupted) => return Err(RegistryError::Interrupted),
                Err(Broken::Late) => return Err(refused("no answer came in time".to_owned())),
                Err(Broken::Io(error) | Broken::Source(error)) => return Err(refused(error.to_string())),
            }
        }
        self.tls = Some(Box::new(tls));
        Ok(self)
    }

    /// Waits where a call would have blocked; everything else is a failure.
    fn settle(&self, broken: Broken, writing: bool, until: Instant) -> Result<(), Broken> {
        let Broken::Io(error) = broken else { return Err(broken) };
        match error.kind() {
            io::ErrorKind::WouldBlock => {}
            io::ErrorKind::Interrupted => return Ok(()),
            _ => return Err(Broken::Io(error)),
        }
        let events = if writing { PollFlags::OUT } else { PollFlags::IN };
        match wait(Some((self.socket.as_fd(), events)), Some(&self.halt), until)? {
            Waited::Ready => Ok(()),
            Waited::Late => Err(Broken::Late),
            Waited::Interrupted => Err(Broken::Interrupted),
        }
    }

    /// Reads some bytes; 0 at the end of the connection.
    pub(super) fn read(&mut self, buffer: &mut [u8], until: Instant) -> Result<usize, Broken> {
        loop {
            let step = match &mut self.tls {
                None => self.socket.read(buffer),
                Some(tls) => match tls.reader().read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        while tls.wants_write() && tls.write_tls(&mut self.socket).is_ok() {}
                        match tls.read_tls(&mut self.socket) {
                            Ok(_) => {
                                tls.process_new_packets().map_err(io::Error::other)?;
                                continue;
                            }
                            Err(error) => Err(error),
                        }
                    }
                    other => other,
                },
            };
            match step {
                Ok(count) => return Ok(count),
                Err(error) => self.settle(Broken::Io(error), false, until)?,
            }
        }
    }

    /// Writes all bytes; each piece that goes out renews the time.
    pub(super) fn write_all(&mut self, mut bytes: &[u8], idle: Duration) -> Result<(), Broken> {
        let mut until = Instant::now() + idle;
        loop {
            let step = match &mut self.tls {
                None if bytes.is_empty() => return Ok(()),
                None => self.socket.write(bytes),
                Some(tls) if tls.wants_write() => tls.write_tls(&mut self.socket).map(|_| 0),
                Some(_) if bytes.is_empty() => return Ok(()),
                Some(tls) => tls.writer().write(bytes),
            };
            match step {
                Ok(count) => {
                    bytes = &bytes[count..];
                    until = Instant::now() + idle;
                }
                Err(error) => self.settle(Broken::Io(error), true, until)?,
            }
        }
    }

    /// Tells whether somebody wants it to end.
    pub(super) fn is_over(&self) -> bool {
        self.halt.is_over()
    }

    /// Tells whether the other side has closed the connection, or said something nobody asked for.
    pub(super) fn is_stale(&self) -> bool {
        let now = Instant::now();
        !matches!(wait(Some((self.socket.as_fd(), PollFlags::IN)), None, now), Ok(Waited::Late))
    }
}

/// Connects to one address.
fn connect(address: SocketAddr, until: Instant, halt: &Halt<'_>) -> Result<TcpStream, Broken> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None).map_err(io::Error::from)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => return Ok(socket.into()),
        Err(rustix::io::Errno::INPROGRESS) => {}
        Err(errno) => return Err(Broken::Io(errno.into())),
    }
    match wait(Some((socket.as_fd(), PollFlags::OUT)), Some(halt), until)? {
        Waited::Interrupted => return Err(Broken::Interrupted),
        Waited::Late => return Err(Broken::Late),
        Waited::Ready => {}
    }
    match rustix::net::sockopt::socket_error(&socket).map_err(io::Error::from)? {
        Ok(()) => Ok(socket.into()),
        Err(errno) => Err(Broken::Io(errno.into())),
    }
}

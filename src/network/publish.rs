//! Published ports: reserved by listening on them, so that the kernel decides between two who want the same.
//!
//! Each published port is a socket in the host's namespace which the shim holds. It reserves the port, it serves the
//! host's loopback (where translating would need `route_localnet`) and IPv6, and it carries traffic should our
//! tables be gone. What comes from outside over IPv4 is translated by nftables before it reaches the socket and keeps
//! its source address.

use super::draft::{Operation, Owner};
use super::endpoint::{PortRequest, Protocol, PublishedPort};
use super::error::NetworkError;
use super::journal::Journal;
use crate::store::Paths;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

/// Connections that may wait for the shim.
const BACKLOG: i32 = 4096;

/// A published port that is ours now.
#[derive(Debug)]
pub(super) struct Listener {
    pub socket: OwnedFd,
    pub protocol: Protocol,
    pub container_port: u16,
    /// Where it was asked to listen.
    address: Option<IpAddr>,
    port: u16,
    /// Whether it serves IPv6 beside IPv4.
    dual: bool,
}

impl Listener {
    /// Reserves a port; of a range the first that is free.
    ///
    /// # Errors
    /// When containers or processes have it, or all of the range, or the address is none of this host.
    pub(super) fn open(paths: &Paths, request: &PortRequest) -> Result<Self, NetworkError> {
        for host_port in request.host_port..request.host_last {
            match Self::open_one(paths, &PortRequest { host_port, ..*request }) {
                Err(NetworkError::PortTaken { .. } | NetworkError::PortInUse { .. }) => {}
                other => return other,
            }
        }
        if request.host_last == 0 {
            return Self::open_one(paths, request);
        }
        let last = Self::open_one(paths, &PortRequest { host_port: request.host_last, ..*request });
        last.map_err(|error| match error {
            NetworkError::PortTaken { address, protocol, .. } | NetworkError::PortInUse { address, protocol, .. } => {
                NetworkError::RangeInUse { address, first: request.host_port, last: request.host_last, protocol }
            }
            other => other,
        })
    }

    fn open_one(paths: &Paths, request: &PortRequest) -> Result<Self, NetworkError> {
        let PortRequest { address, host_port, container_port, protocol, .. } = *request;
        let wanted = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let attempt = match address {
            None => match listen(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), host_port), protocol, false) {
                // Without IPv6 on this host.
                Err(error) if is_without_ipv6(&error) => {
                    listen(SocketAddr::new(wanted, host_port), protocol, true).map(|socket| (socket, false))
                }
                other => other.map(|socket| (socket, true)),
            },
            Some(address) => listen(SocketAddr::new(address, host_port), protocol, true).map(|socket| (socket, false)),
        };
        let (socket, dual) = attempt.map_err(|source| refusal(paths, wanted, request, source))?;
        let port = local_port(&socket).map_err(|source| refusal(paths, wanted, request, source))?;
        Ok(Self { socket, protocol, container_port, address, port, dual })
    }

    /// Returns the host's port, chosen by the kernel if 0 was asked for.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the address to translate at, `None` inside meaning all; `None` when the listener alone serves it.
    pub(super) fn translated(&self) -> Option<Option<Ipv4Addr>> {
        match self.address {
            None => Some(None),
            Some(IpAddr::V4(address)) if address.is_unspecified() => Some(None),
            Some(IpAddr::V4(address)) if !address.is_loopback() => Some(Some(address)),
            Some(_) => None,
        }
    }

    /// Returns where it listens.
    pub(super) fn place(&self) -> (IpAddr, Protocol, u16) {
        (self.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), self.protocol, self.port)
    }

    /// Returns what `inspect` shows.
    pub(super) fn published(&self) -> impl Iterator<Item = PublishedPort> {
        let all = |address: IpAddr| PublishedPort {
            address,
            host_port: self.port,
            container_port: self.container_port,
            protocol: self.protocol,
        };
        let first = all(self.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        let second = self.dual.then(|| all(IpAddr::V6(Ipv6Addr::UNSPECIFIED)));
        [Some(first), second].into_iter().flatten()
    }
}

fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// Opens a listening TCP or a bound UDP socket.
fn listen(address: SocketAddr, protocol: Protocol, only_v6: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, only_v6)?;
    }
    if protocol == Protocol::Tcp {
        // Connections of a predecessor that linger must not keep the port; another listener still does.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    if protocol == Protocol::Tcp {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}

fn local_port(socket: &OwnedFd) -> io::Result<u16> {
    let address = SocketAddr::try_from(rustix::net::getsockname(socket)?)?;
    Ok(address.port())
}

/// Says who has the port.
fn refusal(paths: &Paths, address: IpAddr, request: &PortRequest, source: io::Error) -> NetworkError {
    let (port, protocol) = (request.host_port, request.protocol);
    if source.kind() != io::ErrorKind::AddrInUse {
        return NetworkError::Listen { address, port, protocol, source };
    }
    match owner_of(paths, address, port, protocol) {
        Some(owner) => NetworkError::PortTaken { address, port, protocol, owner },
        None => NetworkError::PortInUse { address, port, protocol },
    }
}

fn owner_of(paths: &Paths, wanted: IpAddr, wanted_port: u16, wanted_protocol: Protocol) -> Option<String> {
    let meets = |operation: &Operation| match operation {
        Operation::Publish { address, protocol, port, .. } => {
            let same = address.is_none_or(|address| wanted.is_unspecified() || wanted == IpAddr::V4(address));
            same && *port == wanted_port && *protocol == wanted_protocol
        }
        Operation::Listen { address, protocol, port } => {
            let same = address.is_unspecified() || wanted.is_unspecified() || *address == wanted;
            same && *port == wanted_port && *protocol == wanted_protocol
        }
        _ => false,
    };
    Journal::all(paths).ok()?.into_iter().find_map(|journal| match &journal.owner {
        Owner::Container(id) if journal.entries.iter().any(|entry| meets(&entry.operation)) => {
            Some(id.short().to_owned())
        }
        _ => None,
    })
}

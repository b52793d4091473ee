//! Netlink sockets (*netlink(7)*): datagrams to and from the kernel, nothing about their contents.

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use std::io;
use std::os::fd::OwnedFd;

/// Room for one datagram: the kernel never makes a dump part larger.
const DATAGRAM: usize = 32 << 10;

/// Which part of the kernel a socket talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses and routes (*rtnetlink(7)*).
    Route,
    /// nftables and connection tracking.
    Netfilter,
}

/// A netlink socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct NetlinkSocket {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl NetlinkSocket {
    /// Opens a socket; it stays in the present network namespace of the thread, wherever the thread goes.
    ///
    /// # Errors
    /// When the kernel has no such family or refuses the socket.
    pub fn open(family: Family) -> io::Result<Self> {
        let protocol = match family {
            // NETLINK_ROUTE is number 0, which is the default.
            Family::Route => None,
            Family::Netfilter => Some(netlink::NETFILTER),
        };
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        Ok(Self { fd, buffer: Vec::new() })
    }

    /// Closes the socket in a process of its own, since the close may wait for the kernel.
    pub fn close_elsewhere(self) {
        super::fork::close_elsewhere(self.fd);
    }

    /// Lets one datagram of so many bytes pass, for large transactions.
    ///
    /// # Errors
    /// When the kernel refuses the size.
    pub fn reserve(&self, bytes: usize) -> io::Result<()> {
        // The buffers that may pass the system's limit need a privilege over the first user namespace; without it
        // the ordinary call gives what is allowed.
        if rustix::net::sockopt::set_socket_send_buffer_size_force(&self.fd, bytes).is_err() {
            rustix::net::sockopt::set_socket_send_buffer_size(&self.fd, bytes)?;
        }
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&self.fd, bytes).is_err() {
            rustix::net::sockopt::set_socket_recv_buffer_size(&self.fd, bytes)?;
        }
        Ok(())
    }

    /// Sends one datagram to the kernel, which works it off before this returns.
    ///
    /// # Errors
    /// When the kernel does not take it whole.
    pub fn send(&self, datagram: &[u8]) -> io::Result<()> {
        loop {
            match rustix::net::send(&self.fd, datagram, SendFlags::empty()) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
                Ok(sent) if sent == datagram.len() => return Ok(()),
                Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            }
        }
    }

    /// Receives the next datagram; `None` when there is none and `wait` is false.
    ///
    /// # Errors
    /// When the socket fails, or the datagram was larger than any the kernel makes.
    pub fn receive(&mut self, wait: bool) -> io::Result<Option<&[u8]>> {
        if self.buffer.is_empty() {
            self.buffer.resize(DATAGRAM, 0);
        }
        let mut flags = RecvFlags::TRUNC;
        flags.set(RecvFlags::DONTWAIT, !wait);
        let length = loop {
            match rustix::net::recv(&self.fd, self.buffer.as_mut_slice(), flags) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) if !wait => return Ok(None),
                Err(errno) => return Err(errno.into()),
                Ok((_, length)) => break length,
            }
        };
        match self.buffer.get(..length) {
            Some(datagram) => Ok(Some(datagram)),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "netlink datagram is too large")),
        }
    }
}

//! What can go wrong with networks.

use super::address::Subnet;
use super::endpoint::Protocol;
use super::netlink::NetlinkError;
use crate::store::StoreError;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

/// A network could not be made, joined or left.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// An operation of a draft failed; everything before it was taken back.
    #[error("{operation}")]
    Apply {
        /// The operation in words.
        operation: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The state of the host's network could not be read.
    #[error("look at the host's network")]
    Look(#[source] NetlinkError),
    /// A file of ours could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A directory could not be listed.
    #[error("list {}", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The container's network namespace could not be entered.
    #[error("enter the container's network namespace")]
    Namespace(#[source] io::Error),
    /// There is no such network.
    #[error("network {0} not found")]
    NoNetwork(String),
    /// Every subnet we may choose is in use on this host.
    #[error("find a subnet for network {0}: every pool overlaps an address or route of this host")]
    NoSubnet(String),
    /// All addresses are taken.
    #[error("find an address in network {network}: all of {subnet} are taken")]
    NoAddress {
        /// The network.
        network: String,
        /// Its subnet.
        subnet: Subnet,
    },
    /// The address asked for is taken.
    #[error("reserve {address} in network {network}: it belongs to container {owner}")]
    AddressTaken {
        /// The network.
        network: String,
        /// The address.
        address: std::net::Ipv4Addr,
        /// Who has it.
        owner: String,
    },
    /// Two containers, or one twice, want the same port.
    #[error("publish {address}:{port}/{protocol}: port is already allocated to container {owner}")]
    PortTaken {
        /// Address of the host.
        address: IpAddr,
        /// Port of the host.
        port: u16,
        /// Transport protocol.
        protocol: Protocol,
        /// Who has it.
        owner: String,
    },
    /// A process of the host listens on the port.
    #[error("publish {address}:{port}/{protocol}: port is already allocated: a process of this host listens on it")]
    PortInUse {
        /// Address of the host.
        address: IpAddr,
        /// Port of the host.
        port: u16,
        /// Transport protocol.
        protocol: Protocol,
    },
    /// No port of a range is free.
    #[error("publish {address}:{first}-{last}/{protocol}: all ports of the range are already allocated")]
    RangeInUse {
        /// Address of the host.
        address: IpAddr,
        /// First port of the range.
        first: u16,
        /// Last port of the range.
        last: u16,
        /// Transport protocol.
        protocol: Protocol,
    },
    /// The port cannot be listened on.
    #[error("publish {address}:{port}/{protocol}")]
    Listen {
        /// Address of the host.
        address: IpAddr,
        /// Port of the host.
        port: u16,
        /// Transport protocol.
        protocol: Protocol,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A text is no name of a link.
    #[error("{0:?} is no name for a network interface: at most 15 letters, digits, dashes or underscores")]
    LinkName(String),
    /// This driver cannot do what was asked.
    #[error("network mode {mode} does not support {what}")]
    Unsupported {
        /// The mode.
        mode: &'static str,
        /// What was asked.
        what: &'static str,
    },
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The kernel said no.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A file or socket did not work.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Something else of that name is there.
    #[error("{0} exists and is not ours")]
    Foreign(String),
    /// A link that must be there is not.
    #[error("link {0} is not there")]
    Missing(String),
    /// Tests only: the process is taken to have been killed here.
    #[error("killed here (test)")]
    Killed,
}

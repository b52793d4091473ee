//! Drafts: what a driver wants done, as typed operations that can be printed, journaled and undone.

use super::address::{Mac, Subnet};
use super::endpoint::Protocol;
use super::error::NetworkError;
use super::firewall::Element;
use crate::base::ContainerId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// On whose behalf something exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// A network: its bridge and its place in our tables.
    Network(String),
    /// A container's endpoint.
    Container(ContainerId),
}

/// One thing to do, in the host's network namespace unless it says inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Keep the endpoint's address for it (taken before the draft is applied).
    Reserve {
        /// The network.
        network: String,
        /// The address.
        address: Ipv4Addr,
    },
    /// Let the host forward IPv4 (`net.ipv4.ip_forward`).
    Forwarding,
    /// A bridge with an address, up, without IPv6.
    Bridge {
        /// Name of the link.
        name: String,
        /// The host's address in the network.
        address: Subnet,
    },
    /// Let a bridge's network out, translated, and keep it apart from our other networks.
    Admit {
        /// Name of the bridge.
        bridge: String,
        /// The network.
        subnet: Subnet,
    },
    /// A pair of links: one a port of the bridge, the other inside, both without IPv6.
    Veth {
        /// Name of the host's end.
        host: String,
        /// Name of the end inside.
        peer: String,
        /// The bridge.
        bridge: String,
        /// Link-layer address of the end inside.
        mac: Mac,
    },
    /// Loopback inside, up.
    Loopback,
    /// An interface inside with its address, up, and the default route through it.
    Interface {
        /// Its name.
        name: String,
        /// Its address.
        address: Subnet,
        /// The default route's gateway.
        gateway: Ipv4Addr,
    },
    /// Answer names inside at 127.0.0.11.
    Names,
    /// Let nothing but these addresses come from a port of a bridge.
    Guard {
        /// The host's end of the pair.
        link: String,
        /// The only link-layer address.
        mac: Mac,
        /// The only address.
        address: Ipv4Addr,
    },
    /// Keep a port of the host that is served by a listener of the shim alone: on loopback, or IPv6.
    Listen {
        /// Address of the host.
        address: IpAddr,
        /// Transport protocol.
        protocol: Protocol,
        /// Port of the host.
        port: u16,
    },
    /// Send a port of the host to the endpoint.
    Publish {
        /// Address of the host, or all that are not loopback.
        address: Option<Ipv4Addr>,
        /// Transport protocol.
        protocol: Protocol,
        /// Port of the host.
        port: u16,
        /// Address of the endpoint.
        target: Ipv4Addr,
        /// Port of the endpoint.
        target_port: u16,
    },
}

/// What takes an operation back; doing it twice, or without the operation having happened, is fine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inverse {
    /// It ends with the container's network namespace, or with its shim.
    Nothing,
    /// Free the address.
    Release,
    /// Set the host's forwarding back to what it was.
    Forwarding {
        /// The former value.
        previous: String,
    },
    /// Remove the link, and with it its peer.
    Link,
    /// Remove the entries from our tables.
    Entries,
}

impl Operation {
    /// Returns the entries of our tables the operation stands for.
    pub(super) fn elements(&self) -> Vec<Element> {
        match self {
            Self::Admit { bridge, subnet } => {
                vec![Element::Bridge(bridge.clone()), Element::Subnet(*subnet)]
            }
            Self::Guard { link, mac, address } => {
                vec![Element::Guard { link: link.clone(), mac: *mac, address: *address }]
            }
            Self::Publish { address, protocol, port, target, target_port } => vec![Element::Publish {
                address: *address,
                protocol: *protocol,
                port: *port,
                target: *target,
                target_port: *target_port,
            }],
            _ => Vec::new(),
        }
    }

    /// Tells whether the operation acts inside the container's network namespace.
    pub(super) fn is_inside(&self) -> bool {
        matches!(self, Self::Loopback | Self::Interface { .. } | Self::Names)
    }

    /// Returns the link the operation makes in the host's namespace.
    pub(super) fn link(&self) -> Option<&str> {
        match self {
            Self::Bridge { name, .. } => Some(name),
            Self::Veth { host, .. } => Some(host),
            _ => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reserve { network, address } => {
                write!(f, "reserve {address} in network {network}")
            }
            Self::Forwarding => f.write_str("enable forwarding of IPv4"),
            Self::Bridge { name, address } => write!(f, "make bridge {name} with {address}"),
            Self::Admit { bridge, subnet } => write!(f, "admit {subnet} on {bridge}"),
            Self::Veth { host, peer, bridge, mac } => {
                write!(f, "make {host} on {bridge} with peer {peer} ({mac}) inside")
            }
            Self::Loopback => f.write_str("set loopback up inside"),
            Self::Interface { name, address, gateway } => {
                write!(f, "give {name} inside {address} with gateway {gateway}")
            }
            Self::Names => f.write_str("answer names inside"),
            Self::Guard { link, mac, address } => write!(f, "guard {link} to {mac} {address}"),
            Self::Listen { address, protocol, port } => write!(f, "listen on {address}:{port}/{protocol}"),
            Self::Publish { address, protocol, port, target, target_port } => {
                match address {
                    Some(address) => write!(f, "publish {address}:{port}/{protocol}")?,
                    None => write!(f, "publish {port}/{protocol}")?,
                }
                write!(f, " to {target}:{target_port}")
            }
        }
    }
}

/// The operations a driver records for one owner, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    owner: Owner,
    operations: Vec<Operation>,
}

impl Draft {
    /// Begins an empty draft.
    pub fn new(owner: Owner) -> Self {
        Self { owner, operations: Vec::with_capacity(8) }
    }

    /// Returns on whose behalf it is.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Returns what was recorded, in order.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Records an operation.
    ///
    /// # Errors
    /// When a name of a link is none the kernel takes.
    pub fn record(&mut self, operation: Operation) -> Result<(), NetworkError> {
        let names: &[&String] = match &operation {
            Operation::Bridge { name, .. } | Operation::Interface { name, .. } => &[name],
            Operation::Admit { bridge, .. } => &[bridge],
            Operation::Guard { link, .. } => &[link],
            Operation::Veth { host, peer, bridge, .. } => &[host, peer, bridge],
            _ => &[],
        };
        if let Some(bad) = names.iter().find(|name| !is_link_name(name)) {
            return Err(NetworkError::LinkName((*bad).clone()));
        }
        self.operations.push(operation);
        Ok(())
    }
}

impl fmt::Display for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.operations.iter().try_for_each(|operation| writeln!(f, "{operation}"))
    }
}

/// Tells whether the kernel takes a text as a link's name (`dev_valid_name`), printable ASCII only.
fn is_link_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_kernel_would_refuse_are_refused_first() {
        for (name, fits) in [
            ("eth0", true),
            ("bulkhead0", true),
            ("fifteen-letters", true),
            ("sixteen-letters!", false),
            ("", false),
            (".", false),
            ("..", false),
            ("a/b", false),
            ("a:b", false),
            ("a b", false),
            ("a\0b", false),
        ] {
            let mut draft = Draft::new(Owner::Network("n".to_owned()));
            let address = "10.0.0.1/24".parse().unwrap();
            assert_eq!(draft.record(Operation::Bridge { name: name.to_owned(), address }).is_ok(), fits, "{name:?}");
        }
    }
}

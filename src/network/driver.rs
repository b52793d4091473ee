//! The driver trait, and the drivers that are built in.
//!
//! A driver decides and never acts: it says which network it would define and appends operations to drafts. It writes
//! no teardown, since each operation has its inverse in the journal.

use super::address::{Mac, Subnet, choose_subnet};
use super::draft::{Draft, Operation};
use super::endpoint::Protocol;
use super::error::NetworkError;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

/// A network as it is kept in `$ROOT/networks/<name>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// Version of this record's form.
    pub schema: u32,
    /// Name.
    pub name: String,
    /// Name of its driver.
    pub driver: String,
    /// Name of its link on the host; empty for drivers without.
    pub interface: String,
    /// Its subnet.
    pub subnet: Option<Subnet>,
    /// The host's address in it.
    pub gateway: Option<Ipv4Addr>,
    /// Whether we chose the subnet and may choose another while nobody uses the network.
    pub automatic: bool,
}

/// What a network to be defined should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkWish {
    /// Name.
    pub name: String,
    /// Name of its link on the host.
    pub interface: String,
    /// Its subnet; `None` lets the driver choose.
    pub subnet: Option<Subnet>,
}

/// One container's place in a network, addresses and ports already reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: Ipv4Addr,
    /// Name of the host's end of its pair of links.
    pub link: String,
    /// Published ports to translate: address of the host (or all), protocol, port of the host, port inside.
    pub published: Vec<(Option<Ipv4Addr>, Protocol, u16, u16)>,
    /// Published ports the shim's listeners serve alone.
    pub held: Vec<(IpAddr, Protocol, u16)>,
}

/// What a container has in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its address and the length of the prefix.
    pub address: Option<Subnet>,
    /// Its gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Its link-layer address.
    pub mac: Option<Mac>,
}

/// A kind of network.
pub trait NetworkDriver {
    /// Returns the driver's name.
    fn name(&self) -> &'static str;

    /// Decides what a network is; `used` are the networks of the host's addresses and routes.
    ///
    /// # Errors
    /// When the wish cannot be met.
    fn define(&self, wish: &NetworkWish, used: &[Subnet]) -> Result<NetworkRecord, NetworkError>;

    /// Records what must exist on the host for the network.
    ///
    /// # Errors
    /// When the record is not one of this driver's.
    fn up(&self, network: &NetworkRecord, draft: &mut Draft) -> Result<(), NetworkError>;

    /// Records what an endpoint needs.
    ///
    /// # Errors
    /// When the endpoint asks for what the driver cannot do.
    fn attach(
        &self,
        network: &NetworkRecord,
        endpoint: &Endpoint,
        draft: &mut Draft,
    ) -> Result<Attachment, NetworkError>;
}

/// A bridge on the host; each endpoint is a pair of links.
#[derive(Clone, Copy, Debug)]
pub struct Bridge;

impl Bridge {
    fn parts(network: &NetworkRecord) -> Result<(Subnet, Ipv4Addr), NetworkError> {
        network.subnet.zip(network.gateway).ok_or_else(|| NetworkError::NoSubnet(network.name.clone()))
    }
}

impl NetworkDriver for Bridge {
    fn name(&self) -> &'static str {
        "bridge"
    }

    fn define(&self, wish: &NetworkWish, used: &[Subnet]) -> Result<NetworkRecord, NetworkError> {
        let refused = || NetworkError::NoSubnet(wish.name.clone());
        let subnet = match wish.subnet {
            Some(subnet) if used.iter().any(|network| network.overlaps(subnet)) => {
                return Err(refused());
            }
            Some(subnet) => subnet,
            None => choose_subnet(used).ok_or_else(refused)?,
        };
        Ok(NetworkRecord {
            schema: 1,
            name: wish.name.clone(),
            driver: self.name().to_owned(),
            interface: wish.interface.clone(),
            subnet: Some(subnet),
            gateway: Some(subnet.nth(1).ok_or_else(refused)?),
            automatic: wish.subnet.is_none(),
        })
    }

    fn up(&self, network: &NetworkRecord, draft: &mut Draft) -> Result<(), NetworkError> {
        let (subnet, gateway) = Self::parts(network)?;
        let address = Subnet { address: gateway, prefix: subnet.prefix };
        draft.record(Operation::Forwarding)?;
        draft.record(Operation::Bridge { name: network.interface.clone(), address })?;
        draft.record(Operation::Admit { bridge: network.interface.clone(), subnet })
    }

    fn attach(
        &self,
        network: &NetworkRecord,
        endpoint: &Endpoint,
        draft: &mut Draft,
    ) -> Result<Attachment, NetworkError> {
        let (subnet, gateway) = Self::parts(network)?;
        let (target, mac) = (endpoint.address, Mac::of(endpoint.address));
        let address = Subnet { address: target, prefix: subnet.prefix };
        let link = endpoint.link.clone();
        draft.record(Operation::Reserve { network: network.name.clone(), address: target })?;
        draft.record(Operation::Loopback)?;
        draft.record(Operation::Veth {
            host: link.clone(),
            peer: "eth0".to_owned(),
            bridge: network.interface.clone(),
            mac,
        })?;
        draft.record(Operation::Interface { name: "eth0".to_owned(), address, gateway })?;
        draft.record(Operation::Names)?;
        draft.record(Operation::Guard { link, mac, address: target })?;
        for &(address, protocol, port, target_port) in &endpoint.published {
            draft.record(Operation::Publish { address, protocol, port, target, target_port })?;
        }
        for &(address, protocol, port) in &endpoint.held {
            draft.record(Operation::Listen { address, protocol, port })?;
        }
        Ok(Attachment { address: Some(address), gateway: Some(gateway), mac: Some(mac) })
    }
}

/// A network without anything to make on the host: loopback only (`none`), or the host's own (`host`).
#[derive(Clone, Copy, Debug)]
pub enum Bare {
    /// Loopback only.
    None,
    /// The host's network namespace.
    Host,
}

impl NetworkDriver for Bare {
    fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Host => "host",
        }
    }

    fn define(&self, wish: &NetworkWish, _: &[Subnet]) -> Result<NetworkRecord, NetworkError> {
        if wish.subnet.is_some() {
            return Err(NetworkError::Unsupported { mode: self.name(), what: "a subnet" });
        }
        Ok(NetworkRecord {
            schema: 1,
            name: wish.name.clone(),
            driver: self.name().to_owned(),
            interface: String::new(),
            subnet: None,
            gateway: None,
            automatic: false,
        })
    }

    fn up(&self, _: &NetworkRecord, _: &mut Draft) -> Result<(), NetworkError> {
        Ok(())
    }

    fn attach(&self, _: &NetworkRecord, endpoint: &Endpoint, draft: &mut Draft) -> Result<Attachment, NetworkError> {
        if !endpoint.published.is_empty() {
            return Err(NetworkError::Unsupported { mode: self.name(), what: "published ports" });
        }
        if matches!(self, Self::None) {
            draft.record(Operation::Loopback)?;
        }
        Ok(Attachment::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::draft::Owner;

    fn wish() -> NetworkWish {
        NetworkWish { name: "bridge".to_owned(), interface: "bulkhead0".to_owned(), subnet: None }
    }

    fn endpoint() -> Endpoint {
        Endpoint {
            address: Ipv4Addr::new(172, 30, 0, 2),
            link: "bv01".to_owned(),
            published: vec![
                (None, Protocol::Tcp, 8080, 80),
                (Some(Ipv4Addr::new(192, 0, 2, 1)), Protocol::Udp, 53, 53),
            ],
            held: vec![(Ipv4Addr::LOCALHOST.into(), Protocol::Tcp, 81)],
        }
    }

    #[test]
    fn the_bridge_driver_drafts_this() {
        let network = Bridge.define(&wish(), &[]).unwrap();
        let mut up = Draft::new(Owner::Network("bridge".to_owned()));
        Bridge.up(&network, &mut up).unwrap();
        assert_eq!(
            up.to_string(),
            "enable forwarding of IPv4\n\
             make bridge bulkhead0 with 172.30.0.1/16\n\
             admit 172.30.0.0/16 on bulkhead0\n"
        );
        let mut draft = Draft::new(Owner::Network("x".to_owned()));
        let attachment = Bridge.attach(&network, &endpoint(), &mut draft).unwrap();
        assert_eq!(
            draft.to_string(),
            "reserve 172.30.0.2 in network bridge\n\
             set loopback up inside\n\
             make bv01 on bulkhead0 with peer eth0 (02:42:ac:1e:00:02) inside\n\
             give eth0 inside 172.30.0.2/16 with gateway 172.30.0.1\n\
             answer names inside\n\
             guard bv01 to 02:42:ac:1e:00:02 172.30.0.2\n\
             publish 8080/tcp to 172.30.0.2:80\n\
             publish 192.0.2.1:53/udp to 172.30.0.2:53\n\
             listen on 127.0.0.1:81/tcp\n"
        );
        assert_eq!(attachment.gateway, Some(Ipv4Addr::new(172, 30, 0, 1)));
    }

    #[test]
    fn bare_networks_refuse_what_they_cannot_do() {
        for driver in [Bare::None, Bare::Host] {
            let network = driver.define(&wish(), &[]).unwrap();
            let mut draft = Draft::new(Owner::Network("x".to_owned()));
            assert!(driver.attach(&network, &endpoint(), &mut draft).is_err());
            assert!(
                driver.define(&NetworkWish { subnet: Some("10.0.0.0/8".parse().unwrap()), ..wish() }, &[]).is_err()
            );
        }
    }

    #[test]
    fn a_subnet_in_use_is_refused() {
        let taken: Subnet = "10.1.0.0/16".parse().unwrap();
        let wish = NetworkWish { subnet: Some("10.1.2.0/24".parse().unwrap()), ..wish() };
        assert!(matches!(Bridge.define(&wish, &[taken]), Err(NetworkError::NoSubnet(_))));
    }
}

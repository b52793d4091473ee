//! Links, addresses and routes over rtnetlink (*rtnetlink(7)*): one function per request, IPv4.

use super::address::{Mac, Subnet};
use super::netlink::message::{CREATE, EXCLUSIVE, Message, REQUEST};
use super::netlink::parse::{Attributes, Reply, text, u32_at};
use super::netlink::{CHANGE, Connection, DUMP_REQUEST, NetlinkError};
use rustix::io::Errno;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const AF_INET: u8 = 2;
const AF_INET6: u16 = 10;
const IFF_UP: u32 = 1;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;
const VETH_INFO_PEER: u16 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;

const RTA_DST: u16 = 1;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;
const RT_TABLE_MAIN: u8 = 254;
const RT_TABLE_LOCAL: u32 = 255;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;

/// What is known of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub index: u32,
    pub up: bool,
    pub name: String,
    /// Kind of a virtual link: `bridge`, `veth`.
    pub kind: String,
    pub mtu: u32,
    /// Index of the bridge it is a port of, 0 without.
    pub master: u32,
}

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn parse_link(reply: Reply<'_>) -> Option<Link> {
    let attributes = Attributes::new(reply.body.get(16..)?);
    let number = |kind| attributes.find(kind).and_then(|value| u32_at(value, 0)).unwrap_or(0);
    let info = attributes.find(IFLA_LINKINFO).and_then(|info| Attributes::new(info).find(IFLA_INFO_KIND));
    Some(Link {
        index: u32_at(reply.body, 4)?,
        up: u32_at(reply.body, 8)? & IFF_UP != 0,
        name: attributes.find(IFLA_IFNAME).map(text).unwrap_or_default(),
        kind: info.map(text).unwrap_or_default(),
        mtu: number(IFLA_MTU),
        master: number(IFLA_MASTER),
    })
}

/// Returns the link of this name, if there is one.
pub(super) fn link(connection: &mut Connection, name: &str) -> Result<Option<Link>, NetlinkError> {
    let mut message = Message::new(RTM_GETLINK, REQUEST, &link_header(0, 0, 0));
    message.text(IFLA_IFNAME, name);
    let mut found = None;
    match connection.query(message, false, |reply| found = found.take().or_else(|| parse_link(reply))) {
        Err(error) if error.is(Errno::NODEV) => Ok(None),
        Err(error) => Err(error),
        Ok(()) => Ok(found),
    }
}

/// Returns all links.
#[cfg(test)]
pub(super) fn links(connection: &mut Connection) -> Result<Vec<Link>, NetlinkError> {
    let mut all = Vec::new();
    let message = Message::new(RTM_GETLINK, DUMP_REQUEST, &link_header(0, 0, 0));
    connection.query(message, true, |reply| all.extend(parse_link(reply)))?;
    Ok(all)
}

/// Makes a bridge, down and without address.
pub(super) fn create_bridge(connection: &mut Connection, name: &str, mac: Mac) -> Result<(), NetlinkError> {
    let mut message = Message::new(RTM_NEWLINK, CHANGE | CREATE | EXCLUSIVE, &link_header(0, 0, 0));
    message.text(IFLA_IFNAME, name);
    message.attribute(IFLA_ADDRESS, &mac.0);
    message.nested(IFLA_LINKINFO, |m| m.text(IFLA_INFO_KIND, "bridge"));
    connection.request(message)
}

/// A pair of connected links, one end of it inside a network namespace.
pub(super) struct Veth<'a> {
    pub host: &'a str,
    pub master: u32,
    pub peer: &'a str,
    pub peer_mac: Mac,
    pub mtu: u32,
    pub namespace: BorrowedFd<'a>,
}

/// Makes a pair of links: the host's end is a port of a bridge, the other is born inside the namespace. Both are down.
pub(super) fn create_veth(connection: &mut Connection, veth: &Veth<'_>) -> Result<(), NetlinkError> {
    let mut message = Message::new(RTM_NEWLINK, CHANGE | CREATE | EXCLUSIVE, &link_header(0, 0, 0));
    message.text(IFLA_IFNAME, veth.host);
    message.number(IFLA_MTU, veth.mtu);
    message.number(IFLA_MASTER, veth.master);
    message.nested(IFLA_LINKINFO, |m| {
        m.text(IFLA_INFO_KIND, "veth");
        m.nested(IFLA_INFO_DATA, |m| {
            m.nested(VETH_INFO_PEER, |m| {
                m.raw(&link_header(0, 0, 0));
                m.text(IFLA_IFNAME, veth.peer);
                m.attribute(IFLA_ADDRESS, &veth.peer_mac.0);
                m.number(IFLA_MTU, veth.mtu);
                m.number(IFLA_NET_NS_FD, veth.namespace.as_raw_fd().cast_unsigned());
            });
        });
    });
    connection.request(message)
}

/// Makes a link a port of a bridge.
pub(super) fn set_master(connection: &mut Connection, index: u32, master: u32) -> Result<(), NetlinkError> {
    let mut message = Message::new(RTM_NEWLINK, CHANGE, &link_header(index, 0, 0));
    message.number(IFLA_MASTER, master);
    connection.request(message)
}

/// Prepares a bridge port: the kernel gives it no IPv6 addresses by itself; with `hairpin` frames may go back where they
/// came from.
pub(super) fn prepare_port(connection: &mut Connection, name: &str, hairpin: bool) -> Result<(), NetlinkError> {
    let mut message = Message::new(RTM_NEWLINK, CHANGE, &link_header(0, 0, 0));
    message.text(IFLA_IFNAME, name);
    if hairpin {
        message.nested(IFLA_LINKINFO, |m| {
            m.text(IFLA_INFO_SLAVE_KIND, "bridge");
            m.nested(IFLA_INFO_SLAVE_DATA, |m| m.attribute(IFLA_BRPORT_MODE, &[1]));
        });
    }
    message.nested(IFLA_AF_SPEC, |m| {
        m.nested(AF_INET6, |m| m.attribute(IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_MODE_NONE]));
    });
    match connection.request(message) {
        // A kernel without IPv6 has nothing to keep from.
        Err(error) if error.is(Errno::AFNOSUPPORT) || error.is(Errno::OPNOTSUPP) => Ok(()),
        result => result,
    }
}

/// Sets a link up or down.
pub(super) fn set_up(connection: &mut Connection, name: &str, up: bool) -> Result<(), NetlinkError> {
    let mut message = Message::new(RTM_NEWLINK, CHANGE, &link_header(0, if up { IFF_UP } else { 0 }, IFF_UP));
    message.text(IFLA_IFNAME, name);
    connection.request(message)
}

/// Moves a link into a namespace.
#[cfg(test)]
pub(super) fn move_link(
    connection: &mut Connection,
    name: &str,
    namespace: BorrowedFd<'_>,
) -> Result<(), NetlinkError> {
    let mut message = Message::new(RTM_NEWLINK, CHANGE, &link_header(0, 0, 0));
    message.text(IFLA_IFNAME, name);
    message.number(IFLA_NET_NS_FD, namespace.as_raw_fd().cast_unsigned());
    connection.request(message)
}

/// Removes a link; one that is not there is fine.
pub(super) fn delete_link(connection: &mut Connection, name: &str) -> Result<(), NetlinkError> {
    let mut message = Message::new(RTM_DELLINK, CHANGE, &link_header(0, 0, 0));
    message.text(IFLA_IFNAME, name);
    match connection.request(message) {
        Err(error) if error.is_absent() => Ok(()),
        result => result,
    }
}

/// Adds an address to a link; one that it has already is fine.
pub(super) fn add_address(connection: &mut Connection, index: u32, address: Subnet) -> Result<(), NetlinkError> {
    // struct ifaddrmsg: family, prefix length, flags, scope, index.
    let mut header = [AF_INET, address.prefix, 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(RTM_NEWADDR, CHANGE | CREATE | EXCLUSIVE, &header);
    message.attribute(IFA_LOCAL, &address.address.octets());
    message.attribute(IFA_ADDRESS, &address.address.octets());
    message.attribute(IFA_BROADCAST, &address.last().octets());
    match connection.request(message) {
        Err(error) if error.is(Errno::EXIST) => Ok(()),
        result => result,
    }
}

/// Returns every IPv4 address of the namespace with the index of its link.
pub(super) fn addresses(connection: &mut Connection) -> Result<Vec<(u32, Subnet)>, NetlinkError> {
    let mut all = Vec::new();
    let message = Message::new(RTM_GETADDR, DUMP_REQUEST, &[AF_INET, 0, 0, 0, 0, 0, 0, 0]);
    connection.query(message, true, |reply| {
        let entry = || {
            let attributes = Attributes::new(reply.body.get(8..)?);
            let value = attributes.find(IFA_LOCAL).or_else(|| attributes.find(IFA_ADDRESS))?;
            let address = Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?);
            Some((u32_at(reply.body, 4)?, Subnet::new(address, *reply.body.get(1)?)?))
        };
        all.extend(entry());
    })?;
    Ok(all)
}

/// `struct rtmsg` of a plain IPv4 route to a destination of this prefix length.
fn route_header(prefix: u8) -> [u8; 12] {
    [AF_INET, prefix, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0, 0, 0, 0]
}

/// Adds the default route.
pub(super) fn add_default_route(connection: &mut Connection, gateway: Ipv4Addr) -> Result<(), NetlinkError> {
    let mut message = Message::new(RTM_NEWROUTE, CHANGE | CREATE | EXCLUSIVE, &route_header(0));
    message.attribute(RTA_GATEWAY, &gateway.octets());
    match connection.request(message) {
        Err(error) if error.is(Errno::EXIST) => Ok(()),
        result => result,
    }
}

/// Returns the destinations of all IPv4 routes but the default one and those of the `local` table.
pub(super) fn destinations(connection: &mut Connection) -> Result<Vec<Subnet>, NetlinkError> {
    let mut all = Vec::new();
    let mut header = route_header(0);
    header[4..8].fill(0);
    let message = Message::new(RTM_GETROUTE, DUMP_REQUEST, &header);
    connection.query(message, true, |reply| {
        let entry = || {
            let attributes = Attributes::new(reply.body.get(12..)?);
            let table = attributes.find(RTA_TABLE).and_then(|t| u32_at(t, 0)).unwrap_or(0);
            let value = attributes.find(RTA_DST).filter(|_| table != RT_TABLE_LOCAL)?;
            Subnet::new(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?), *reply.body.get(1)?)
        };
        all.extend(entry());
    })?;
    Ok(all)
}

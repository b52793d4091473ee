//! One container's way into a network: planned (address and ports reserved), attached, detached.
//!
//! Here are the words of it, planning and attaching; the network itself is made to stand in `standing`, and `removal`
//! takes down.

mod removal;
mod standing;

pub use self::removal::{detach, down, gc, prune};
pub use self::standing::definition;
use self::standing::{driver, standing_network, up_draft};
use super::apply::{Executor, lock};
use super::draft::{Draft, Owner};
use super::driver::{Attachment, Bare, Endpoint, NetworkDriver, NetworkRecord, NetworkWish};
use super::error::NetworkError;
use super::firewall::foreign_drops;
use super::publish::Listener;
use super::{Installation, ipam};
use crate::base::ContainerId;
use crate::store::Paths;
use crate::sys::fault::{self, Point};
use crate::sys::netlink::Family;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};

/// Name of the network containers join by default.
pub const DEFAULT_NETWORK: &str = "bridge";

/// Transport protocol of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Returns its number in the IP header.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRequest {
    /// Address of the host; `None` is all of them, IPv4 and IPv6.
    pub address: Option<IpAddr>,
    /// Port of the host; 0 lets the kernel choose.
    pub host_port: u16,
    /// Last port of a range of which any free one will do; 0 without a range.
    pub host_last: u16,
    /// Port inside.
    pub container_port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// A port that is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Address of the host.
    pub address: IpAddr,
    /// Port of the host.
    pub host_port: u16,
    /// Port inside.
    pub container_port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// Which network a container joins; sharing another container's needs nothing from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Loopback only.
    None,
    /// The host's network namespace.
    Host,
    /// A network by name.
    Network(String),
}

/// What a container asks of its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointRequest {
    /// The container.
    pub id: ContainerId,
    /// The network.
    pub mode: Mode,
    /// Ports to publish.
    pub ports: Vec<PortRequest>,
    /// Servers asked for names outside, see [`super::Resolver::servers`].
    pub dns_servers: Vec<SocketAddr>,
}

/// A container's place in a network, reserved. Ports are held by sockets in here until the shim has them.
#[derive(Debug)]
pub struct EndpointPlan {
    id: ContainerId,
    network: NetworkRecord,
    address: Option<Ipv4Addr>,
    listeners: Vec<Listener>,
    dns_servers: Vec<SocketAddr>,
    warnings: Vec<String>,
}

impl EndpointPlan {
    /// Returns the address reserved, for `hosts`.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.address
    }

    /// Returns the host's address in the network, for `host-gateway`.
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        self.network.gateway
    }
}

/// What the shim must hold for a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handles {
    /// Servers of the host for names; when present the UDP and the TCP socket inside come first among the descriptors.
    pub dns_servers: Option<Vec<SocketAddr>>,
    /// Then one listening (TCP) or bound (UDP) socket of the host for each entry: what arrives there belongs to this
    /// address in the container.
    pub forwards: Vec<(Protocol, SocketAddr)>,
}

/// A container's place in a network.
#[derive(Debug)]
pub struct Attached {
    /// Name of the network.
    pub network: String,
    /// Addresses inside.
    pub attachment: Attachment,
    /// Ports published.
    pub published: Vec<PublishedPort>,
    /// What the shim must hold.
    pub handles: Handles,
    /// The descriptors `handles` speaks of, in its order.
    pub descriptors: Vec<OwnedFd>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Reserves what a container needs: the network exists afterwards, the address and the ports are taken.
///
/// A caller that gives up between this and [`attach`] calls [`detach`]. Until then [`gc`] must be told that the
/// container is alive.
///
/// # Errors
/// When there is no such network, or an address or port cannot be had; nothing is kept then.
pub fn plan(request: &EndpointRequest, paths: &Paths) -> Result<EndpointPlan, NetworkError> {
    let mut warnings = Vec::new();
    let name = match &request.mode {
        Mode::None => return bare_plan(request, Bare::None),
        Mode::Host => return bare_plan(request, Bare::Host),
        Mode::Network(name) => name,
    };
    // Ports first: they go back by themselves when anything fails. Those that may be any port take what others leave.
    let mut ports: Vec<&PortRequest> = request.ports.iter().collect();
    ports.sort_by_key(|port| (port.host_port == 0, port.host_last != 0));
    let listeners = ports.into_iter().map(|port| Listener::open(paths, port)).collect::<Result<Vec<_>, _>>()?;
    let _lock = lock(paths)?;
    let network = standing_network(name, paths, &mut warnings)?;
    let address = network.subnet.map(|subnet| ipam::reserve(paths, name, subnet, &request.id)).transpose()?;
    let (id, dns_servers) = (request.id.clone(), request.dns_servers.clone());
    Ok(EndpointPlan { id, network, address, listeners, dns_servers, warnings })
}

fn bare_plan(request: &EndpointRequest, driver: Bare) -> Result<EndpointPlan, NetworkError> {
    let wish = NetworkWish { name: driver.name().to_owned(), interface: String::new(), subnet: None };
    let network = driver.define(&wish, &[])?;
    let mut warnings = Vec::new();
    if !request.ports.is_empty() {
        warnings.push(format!("ports are not published: network mode {} has no ports of its own", network.name));
    }
    let (id, listeners, dns_servers) = (request.id.clone(), Vec::new(), Vec::new());
    Ok(EndpointPlan { id, network, address: None, listeners, dns_servers, warnings })
}

/// Makes a plan real inside the container's network namespace (none for the host's).
///
/// # Errors
/// When an operation fails; everything is taken back then, the reservations too.
pub fn attach(plan: EndpointPlan, namespace: Option<BorrowedFd<'_>>, paths: &Paths) -> Result<Attached, NetworkError> {
    attach_until(plan, namespace, paths, None)
}

/// Like [`attach`]; tests let it be killed after so many operations.
pub(super) fn attach_until(
    plan: EndpointPlan,
    namespace: Option<BorrowedFd<'_>>,
    paths: &Paths,
    killed_after: Option<usize>,
) -> Result<Attached, NetworkError> {
    let EndpointPlan { id, network, address, listeners, dns_servers, mut warnings } = plan;
    let endpoint = Endpoint {
        address: address.unwrap_or(Ipv4Addr::UNSPECIFIED),
        link: link_name(),
        published: listeners
            .iter()
            .filter_map(|l| Some((l.translated()?, l.protocol, l.port(), l.container_port)))
            .collect(),
        held: listeners.iter().filter(|l| l.translated().is_none()).map(Listener::place).collect(),
    };
    let up = up_draft(&network)?;
    let mut draft = Draft::new(Owner::Container(id));
    let attachment = driver(&network).attach(&network, &endpoint, &mut draft)?;
    let mut names = None;
    if let Some(namespace) = namespace {
        let installation = Installation::of(paths);
        let _lock = lock(paths)?;
        let mut executor = Executor::open(paths, &installation)?;
        if network.subnet.is_some() {
            executor.ensure(&up)?;
            names = executor.run(&up, &draft, namespace, killed_after)?.names;
            fault::cut(Point::NetworkDone);
            warnings.extend(foreign_warnings(&installation, &network)?);
        } else {
            // Nothing on the host: no journal.
            executor.inside_only(&draft, namespace)?;
        }
    }
    let mut handles = Handles::default();
    let mut descriptors = Vec::with_capacity(listeners.len() + 2);
    if let Some((udp, tcp)) = names {
        handles.dns_servers = Some(dns_servers);
        descriptors.extend([udp, tcp]);
    }
    let mut published = Vec::new();
    for listener in listeners {
        published.extend(listener.published());
        handles
            .forwards
            .push((listener.protocol, SocketAddr::new(IpAddr::V4(endpoint.address), listener.container_port)));
        descriptors.push(listener.socket);
    }
    Ok(Attached { network: network.name, attachment, published, handles, descriptors, warnings })
}

fn foreign_warnings(installation: &Installation, network: &NetworkRecord) -> Result<Vec<String>, NetworkError> {
    let look = || {
        let mut connection = super::netlink::Connection::open(Family::Netfilter)?;
        foreign_drops(&mut connection, &installation.table, &network.interface)
    };
    Ok(look().map_err(NetworkError::Look)?.iter().map(ToString::to_string).collect())
}

/// A name nobody has: a predecessor's pair of links may still be on its way out.
fn link_name() -> String {
    format!("bv{}", &ContainerId::generate().as_str()[..10])
}

//! A container's network at start: what it asks for, what it got, and the files that name it.

use super::record::{ContainerRecord, NetworkView};
use super::request::{CreateRequest, NetworkMode};
use super::{Engine, EngineError};
use crate::network::{self, Attached, EndpointPlan, EndpointRequest, HostLine, Mode, PortRequest, Resolver};
use crate::shim::protocol::{Forward, NetworkHandles};
use std::net::IpAddr;

/// Where the host says which servers know names.
pub(super) const HOST_RESOLVER: &str = "/etc/resolv.conf";

impl Engine {
    /// Reserves a container's place in its network; `None` when it has none, the host's or another container's.
    pub(super) fn plan_network(&self, record: &ContainerRecord) -> Result<Option<EndpointPlan>, EngineError> {
        let request = &record.request;
        let mode = match &request.network {
            // The sandbox brings loopback up by itself; the host's namespace needs nothing.
            NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_) => {
                return Ok(None);
            }
            NetworkMode::Default => Mode::Network(network::DEFAULT_NETWORK.to_owned()),
            NetworkMode::Named(name) => Mode::Network(name.clone()),
        };
        let default_address = Some(self.settings.publish.address).filter(|address| !address.is_unspecified());
        let mut ports: Vec<PortRequest> = request
            .publish
            .iter()
            .map(|port| PortRequest {
                address: port.address.or(default_address),
                host_port: port.host_port,
                host_last: port.host_last,
                container_port: port.container_port,
                protocol: port.protocol,
            })
            .collect();
        if request.publish_all {
            let free = record.exposed.iter().filter_map(|text| exposed(text, &ports, default_address));
            ports.extend(free.collect::<Vec<_>>());
        }
        let endpoint =
            EndpointRequest { id: record.id.clone(), mode, ports, dns_servers: self.resolver(record).servers };
        Ok(Some(network::plan(&endpoint, &self.paths)?))
    }

    /// Returns the host's resolver with what the container asked for over it.
    fn resolver(&self, record: &ContainerRecord) -> Resolver {
        let request = &record.request;
        let host = std::fs::read_to_string(HOST_RESOLVER).unwrap_or_default();
        Resolver::parse(&host).overridden(&request.dns, &request.dns_search, &request.dns_options)
    }

    /// Returns the texts of the container's `hosts` and `resolv.conf`.
    pub(super) fn name_files(
        &self,
        record: &ContainerRecord,
        plan: Option<&EndpointPlan>,
    ) -> Result<(String, String), EngineError> {
        let request = &record.request;
        if let NetworkMode::Container(name) = &request.network {
            let dir = self.paths.container_run(&self.find(name)?);
            let read = |file: &str| {
                let path = dir.join(file);
                std::fs::read_to_string(&path).map_err(crate::store::StoreError::io("read", &path))
            };
            return Ok((read("hosts")?, read("resolv.conf")?));
        }
        let address = plan.and_then(EndpointPlan::address).map(IpAddr::V4);
        let gateway = plan.and_then(EndpointPlan::gateway).map(IpAddr::V4);
        let mut extra = network::extra_hosts(&request.extra_hosts, gateway)?;
        for (container, alias) in &request.links {
            extra.push(self.link(container, alias)?);
        }
        let domain = request.domainname.as_deref().unwrap_or_default();
        let hosts = network::hosts_text(address, &record.hostname, domain, &extra);
        Ok((hosts, self.resolver(record).text(address.is_some())))
    }

    /// Returns the `hosts` line of a linked container (*docker run reference "--link"*).
    fn link(&self, container: &str, alias: &str) -> Result<HostLine, EngineError> {
        let other = self.observe(&self.find(container)?)?.record;
        let Some(address) = other.network.address else {
            return Err(EngineError::Link { container: container.to_owned() });
        };
        let mut names = vec![alias.to_owned()];
        names.extend([other.hostname, other.name].into_iter().filter(|name| name != alias));
        Ok(HostLine { address, names })
    }

    /// Returns the view of a network before it is attached, or that is not attached here.
    pub(super) fn unattached_network(&self, request: &CreateRequest) -> NetworkView {
        let name = match &request.network {
            NetworkMode::Host => "host".to_owned(),
            NetworkMode::None => "none".to_owned(),
            NetworkMode::Container(name) => format!("container:{name}"),
            NetworkMode::Default => network::DEFAULT_NETWORK.to_owned(),
            NetworkMode::Named(name) => name.clone(),
        };
        NetworkView { name, ..NetworkView::default() }
    }
}

/// Reads an exposed port (`80/tcp`) as one to publish on a port the kernel chooses, unless it is published already.
fn exposed(text: &str, published: &[PortRequest], address: Option<IpAddr>) -> Option<PortRequest> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => network::Protocol::Tcp,
        "udp" => network::Protocol::Udp,
        _ => return None,
    };
    let container_port = port.parse().ok()?;
    let known = published.iter().any(|p| p.container_port == container_port && p.protocol == protocol);
    (!known).then_some(PortRequest { address, host_port: 0, host_last: 0, container_port, protocol })
}

/// Turns what the network gave into the record's view and the shim's handles.
pub(super) fn taken(attached: &Attached) -> (NetworkView, NetworkHandles) {
    let at = &attached.attachment;
    let view = NetworkView {
        name: attached.network.clone(),
        address: at.address.map(|subnet| IpAddr::V4(subnet.address)),
        prefix: at.address.map_or(0, |subnet| subnet.prefix),
        gateway: at.gateway.map(IpAddr::V4),
        mac: at.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        published: attached.published.clone(),
    };
    let forward = |(protocol, target): &(network::Protocol, std::net::SocketAddr)| Forward {
        protocol: protocol.to_string(),
        target: *target,
    };
    let handles = NetworkHandles {
        dns_servers: attached.handles.dns_servers.clone(),
        forwards: attached.handles.forwards.iter().map(forward).collect(),
    };
    (view, handles)
}

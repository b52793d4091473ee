//! What is done inside a container's network namespace, by a thread that has entered it.

use super::super::draft::Operation;
use super::super::error::{Cause, NetworkError};
use super::super::firewall::redirect_names;
use super::super::names::NAME_SERVER;
use super::super::netlink::Connection;
use super::super::route;
use super::{Applied, failed, set_kernel_value};
use crate::sys::netlink::Family;
use std::io;
use std::net::{TcpListener, UdpSocket};

/// Does the operations that act inside, with the thread in the container's network namespace.
pub(super) fn configure_inside(operations: &[&Operation]) -> Result<Applied, NetworkError> {
    let mut applied = Applied::default();
    let mut connection = Connection::open(Family::Route).map_err(NetworkError::Look)?;
    for operation in operations {
        inside(&mut connection, operation, &mut applied).map_err(|source| failed(operation, source))?;
    }
    Ok(applied)
}

fn inside(connection: &mut Connection, operation: &Operation, applied: &mut Applied) -> Result<(), Cause> {
    match operation {
        Operation::Loopback => Ok(route::set_up(connection, "lo", true)?),
        Operation::Interface { name, address, gateway } => {
            match set_kernel_value(&format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1") {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
            let link = route::link(connection, name)?.ok_or_else(|| Cause::Missing(name.clone()))?;
            route::add_address(connection, link.index, *address)?;
            route::set_up(connection, name, true)?;
            Ok(route::add_default_route(connection, *gateway)?)
        }
        Operation::Names => {
            let udp = UdpSocket::bind((NAME_SERVER, 0))?;
            let tcp = TcpListener::bind((NAME_SERVER, 0))?;
            let mut firewall = Connection::open(Family::Netfilter)?;
            redirect_names(&mut firewall, udp.local_addr()?.port(), tcp.local_addr()?.port())?;
            applied.names = Some((udp.into(), tcp.into()));
            Ok(())
        }
        _ => Ok(()),
    }
}

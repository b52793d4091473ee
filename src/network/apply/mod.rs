//! The executor: the only code that changes links, addresses, routes and nftables.
//!
//! The journal is written first; then each operation is done. What fails is taken back at once; what was interrupted
//! is taken back by whoever comes next ([`Executor::undo`] over the journals of the dead). Before a network is used its
//! parts on the host are looked at, and what somebody removed is made again, for the living endpoints too.

mod inside;
mod undo;

use self::inside::configure_inside;
use super::Installation;
use super::address::{Mac, Subnet};
use super::draft::{Draft, Inverse, Operation};
use super::error::{Cause, NetworkError};
use super::firewall::{Element, Firewall, Intact};
use super::journal::{Entry, Journal};
use super::netlink::Connection;
use super::route::{self, Veth};
use crate::store::Paths;
use crate::sys::fault::{self, Point};
use crate::sys::netlink::Family;
use crate::sys::netns::in_network_namespace;
use rustix::io::Errno;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
/// Whether packets on bridges pass the rules for routed ones; absent without the module `br_netfilter`.
const BRIDGE_CALLS: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// What an applied draft left in our hands.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// The UDP and the TCP socket inside on which names are to be answered.
    pub names: Option<(OwnedFd, OwnedFd)>,
}

/// How an owner's links end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkEnd {
    /// Removed now. The kernel takes tens of milliseconds for it.
    Removed,
    /// Set down: the kernel removes the pair with the network namespace, in the background.
    Down,
}

/// Performs drafts in the network namespace of the thread that opened it, under the lock of the network.
pub(super) struct Executor<'a> {
    paths: &'a Paths,
    installation: &'a Installation,
    route: Connection,
    firewall: Firewall<'a>,
    /// Operations after which it behaves as if killed; tests set it.
    pub(super) killed_after: Option<usize>,
}

impl<'a> Executor<'a> {
    /// Opens the host's side.
    pub(super) fn open(paths: &'a Paths, installation: &'a Installation) -> Result<Self, NetworkError> {
        let route = Connection::open(Family::Route).map_err(NetworkError::Look)?;
        let firewall = Firewall::open(&installation.table).map_err(NetworkError::Look)?;
        Ok(Self { paths, installation, route, firewall, killed_after: None })
    }

    /// Returns the networks of the host's addresses and routes, but for the link `except`.
    pub(super) fn networks_in_use(&mut self, except: &str) -> Result<Vec<Subnet>, NetworkError> {
        let look = |connection: &mut Connection| {
            let own = route::link(connection, except)?.map_or(0, |link| link.index);
            let addresses = route::addresses(connection)?;
            let ours: Vec<Subnet> = addresses.iter().filter(|(i, _)| *i == own).map(|(_, a)| *a).collect();
            let mut used: Vec<Subnet> = addresses.into_iter().filter(|(i, _)| *i != own).map(|(_, a)| a).collect();
            let routes = route::destinations(connection)?;
            used.extend(routes.into_iter().filter(|r| !ours.iter().any(|own| own.first() == r.first())));
            Ok(used)
        };
        look(&mut self.route).map_err(NetworkError::Look)
    }

    /// Tells whether a link is there.
    pub(super) fn has_link(&mut self, name: &str) -> Result<bool, NetworkError> {
        Ok(route::link(&mut self.route, name).map_err(NetworkError::Look)?.is_some())
    }

    /// Makes what a network needs on the host exist: looks first, and only does what is missing. Returns the operations
    /// done.
    pub(super) fn ensure(&mut self, draft: &Draft) -> Result<Vec<Operation>, NetworkError> {
        let mut missing = Vec::new();
        for operation in draft.operations() {
            if !self.holds(operation).map_err(|source| failed(operation, source))? {
                missing.push(operation.clone());
            }
        }
        let intact = self.firewall.inspect().map_err(NetworkError::Look)?;
        if missing.is_empty() && intact.inet && intact.guard {
            return Ok(missing);
        }
        self.journal_network(draft)?;
        for operation in &missing {
            self.perform(operation, None).map_err(|source| failed(operation, source))?;
        }
        // The links of the living are ports of the new bridge, and their entries go into the new tables with ours.
        let mut elements: Vec<Element> = draft.operations().iter().flat_map(Operation::elements).collect();
        for journal in Journal::all(self.paths)? {
            for entry in &journal.entries {
                self.reattach(&entry.operation, &missing);
                elements.extend(entry.operation.elements());
            }
        }
        self.firewall.add(&elements, intact).map_err(|source| NetworkError::Apply {
            operation: format!("lay the rules of nftables table {}", self.installation.table),
            source: source.into(),
        })?;
        Ok(missing)
    }

    fn journal_network(&mut self, draft: &Draft) -> Result<(), NetworkError> {
        let before = Journal::read(self.paths, draft.owner())?;
        let mut entries = Vec::new();
        for operation in draft.operations() {
            let known = before.iter().flat_map(|journal| &journal.entries).find(|entry| entry.operation == *operation);
            entries.push(match known {
                // The first value is the host's own; ours must not take its place.
                Some(entry) => entry.clone(),
                None => Entry { operation: operation.clone(), inverse: inverse(operation) },
            });
        }
        Journal::new(draft.owner().clone(), entries).write(self.paths)
    }

    fn reattach(&mut self, operation: &Operation, made: &[Operation]) {
        let Operation::Veth { host, bridge, .. } = operation else {
            return;
        };
        if !made.iter().any(|made| matches!(made, Operation::Bridge { name, .. } if name == bridge)) {
            return;
        }
        // An endpoint that is gone meanwhile needs nothing, and its owner is told by its own clean-up.
        let (Ok(Some(port)), Ok(Some(master))) =
            (route::link(&mut self.route, host), route::link(&mut self.route, bridge))
        else {
            return;
        };
        let _ = route::set_master(&mut self.route, port.index, master.index);
    }

    /// Tells whether an operation of a network has been done and still holds.
    fn holds(&mut self, operation: &Operation) -> Result<bool, Cause> {
        match operation {
            Operation::Forwarding => Ok(fs::read_to_string(FORWARDING)?.trim() == "1"),
            Operation::Bridge { name, address } => {
                let Some(link) = route::link(&mut self.route, name)? else {
                    return Ok(false);
                };
                if link.kind != "bridge" {
                    return Err(Cause::Foreign(name.clone()));
                }
                let has = route::addresses(&mut self.route)?.contains(&(link.index, *address));
                Ok(link.up && has)
            }
            // Entries are laid again with every endpoint: it costs next to nothing.
            Operation::Admit { .. } => Ok(true),
            _ => Ok(false),
        }
    }

    /// Applies an endpoint's draft on a network that stands: journal, operations, one nftables transaction.
    ///
    /// # Errors
    /// When an operation fails; all that was done is taken back.
    pub(super) fn apply(
        &mut self,
        up: &Draft,
        draft: &Draft,
        namespace: BorrowedFd<'_>,
    ) -> Result<Applied, NetworkError> {
        let entry = |operation: &Operation| Entry { operation: operation.clone(), inverse: inverse(operation) };
        let journal = Journal::new(draft.owner().clone(), draft.operations().iter().map(entry).collect());
        journal.write(self.paths)?;
        fault::cut(Point::JournalWritten);
        let result = self.apply_journaled(up, draft, namespace);
        if result.as_ref().is_err_and(|error| !matches!(error, NetworkError::Apply { source: Cause::Killed, .. })) {
            // The first error is the one to tell; what could not be taken back stays in the journal.
            let _ = self.undo(draft.owner(), LinkEnd::Removed);
        }
        result
    }

    fn apply_journaled(
        &mut self,
        up: &Draft,
        draft: &Draft,
        namespace: BorrowedFd<'_>,
    ) -> Result<Applied, NetworkError> {
        let mut inside = Vec::new();
        for operation in draft.operations() {
            self.survive(operation)?;
            if operation.is_inside() {
                inside.push(operation);
            } else {
                self.perform(operation, Some(namespace)).map_err(|source| failed(operation, source))?;
            }
        }
        let applied = if inside.is_empty() {
            Applied::default()
        } else {
            fault::fail(Point::NetworkInside).map_err(NetworkError::Namespace)?;
            in_network_namespace(namespace, || configure_inside(&inside)).map_err(NetworkError::Namespace)??
        };
        let drafted: Vec<Element> = draft.operations().iter().flat_map(Operation::elements).collect();
        if drafted.is_empty() {
            return Ok(applied);
        }
        let mut elements: Vec<Element> = up.operations().iter().flat_map(Operation::elements).collect();
        elements.extend(drafted);
        let whole = Intact { inet: true, guard: true };
        fault::fail(Point::FirewallAdd).map_err(NetworkError::Namespace)?;
        let mut added = self.firewall.add(&elements, whole);
        if added.as_ref().is_err_and(|error| error.is(Errno::EXIST)) {
            self.take_over(draft)?;
            added = self.firewall.add(&elements, whole);
        }
        match added {
            // Somebody removed the tables since they were looked at; this endpoint is in the journal by now.
            Err(error) if error.is_absent() => self.ensure(up).map(|_| applied),
            Err(source) => Err(NetworkError::Apply {
                operation: format!("lay entries in nftables table {}", self.installation.table),
                source: source.into(),
            }),
            Ok(()) => Ok(applied),
        }
    }

    /// Applies an endpoint's draft; tests let it be killed after so many operations.
    pub(super) fn run(
        &mut self,
        up: &Draft,
        draft: &Draft,
        namespace: BorrowedFd<'_>,
        killed_after: Option<usize>,
    ) -> Result<Applied, NetworkError> {
        self.killed_after = killed_after;
        self.apply(up, draft, namespace)
    }

    /// Applies a draft that touches nothing on the host.
    pub(super) fn inside_only(&mut self, draft: &Draft, namespace: BorrowedFd<'_>) -> Result<(), NetworkError> {
        let inside: Vec<&Operation> = draft.operations().iter().filter(|operation| operation.is_inside()).collect();
        in_network_namespace(namespace, || configure_inside(&inside)).map_err(NetworkError::Namespace)?.map(|_| ())
    }

    /// Returns another link's network that overlaps ours, if that link is older.
    pub(super) fn older_rival(&mut self, own: &str, subnet: Option<Subnet>) -> Result<Option<Subnet>, NetworkError> {
        let look = |connection: &mut Connection| {
            let Some(own) = route::link(connection, own)? else {
                return Ok(None);
            };
            let rivals = route::addresses(connection)?;
            Ok(rivals
                .into_iter()
                .find(|(index, other)| *index < own.index && subnet.is_some_and(|subnet| subnet.overlaps(*other)))
                .map(|(_, other)| other))
        };
        look(&mut self.route).map_err(NetworkError::Look)
    }

    fn survive(&mut self, operation: &Operation) -> Result<(), NetworkError> {
        match &mut self.killed_after {
            Some(0) => Err(failed(operation, Cause::Killed)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Does one operation on the host's side.
    fn perform(&mut self, operation: &Operation, namespace: Option<BorrowedFd<'_>>) -> Result<(), Cause> {
        fault::fail(Point::LinkOperation)?;
        match operation {
            Operation::Forwarding => Ok(set_kernel_value(FORWARDING, "1")?),
            Operation::Bridge { name, address } => self.bridge(name, *address),
            Operation::Veth { host, peer, bridge, mac } => {
                let master = route::link(&mut self.route, bridge)?.ok_or_else(|| Cause::Missing(bridge.clone()))?;
                let namespace = namespace.ok_or_else(|| Cause::Missing(peer.clone()))?;
                let (mtu, peer_mac) = (master.mtu, *mac);
                let veth = Veth { host, master: master.index, peer, peer_mac, mtu, namespace };
                route::create_veth(&mut self.route, &veth)?;
                // With br_netfilter a port of the host that leads back to its caller is translated on the bridge and
                // never routed: the frame must be let out where it came in.
                let hairpin = fs::read(BRIDGE_CALLS).is_ok_and(|value| value.starts_with(b"1"));
                route::prepare_port(&mut self.route, host, hairpin)?;
                Ok(route::set_up(&mut self.route, host, true)?)
            }
            _ => Ok(()),
        }
    }

    fn bridge(&mut self, name: &str, address: Subnet) -> Result<(), Cause> {
        if route::link(&mut self.route, name)?.is_none() {
            route::create_bridge(&mut self.route, name, Mac::of(address.address))?;
        }
        let index = route::link(&mut self.route, name)?.ok_or_else(|| Cause::Missing(name.to_owned()))?.index;
        // CVE-2020-13401: the host takes no routes from a bridge whose neighbours are containers.
        for (key, value) in [("disable_ipv6", "1"), ("accept_ra", "0")] {
            match set_kernel_value(&format!("/proc/sys/net/ipv6/conf/{name}/{key}"), value) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        route::add_address(&mut self.route, index, address)?;
        Ok(route::set_up(&mut self.route, name, true)?)
    }

    /// Ends the work without waiting for the kernel's clean-up.
    pub(super) fn close(self) {
        self.firewall.close();
    }

    /// Removes our tables.
    pub(super) fn destroy_tables(&mut self) -> Result<(), NetworkError> {
        self.firewall.destroy().map_err(|source| NetworkError::Apply {
            operation: format!("remove nftables table {}", self.installation.table),
            source: source.into(),
        })
    }
}

fn failed(operation: &Operation, source: Cause) -> NetworkError {
    NetworkError::Apply { operation: operation.to_string(), source }
}

fn inverse(operation: &Operation) -> Inverse {
    match operation {
        Operation::Reserve { .. } => Inverse::Release,
        Operation::Forwarding => match fs::read_to_string(FORWARDING) {
            Ok(value) if value.trim() == "0" => Inverse::Forwarding { previous: "0".to_owned() },
            _ => Inverse::Nothing,
        },
        Operation::Bridge { .. } | Operation::Veth { .. } => Inverse::Link,
        Operation::Admit { .. } | Operation::Guard { .. } | Operation::Publish { .. } => Inverse::Entries,
        Operation::Loopback | Operation::Interface { .. } | Operation::Names | Operation::Listen { .. } => {
            Inverse::Nothing
        }
    }
}

/// Writes a value below `/proc/sys` of the thread's network namespace.
fn set_kernel_value(path: &str, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// Opens what is asked for while nobody else changes our links and tables.
pub(super) fn lock(paths: &Paths) -> Result<crate::store::FileLock, NetworkError> {
    Ok(crate::store::FileLock::acquire(&paths.run.join("locks/network"))?)
}

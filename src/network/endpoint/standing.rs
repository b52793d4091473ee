//! The network an endpoint joins: its record, and the bridge that must stand on the host before anybody joins.

use super::super::address::Subnet;
use super::super::apply::{Executor, LinkEnd};
use super::super::draft::{Draft, Operation, Owner};
use super::super::driver::{Bare, Bridge, NetworkDriver, NetworkRecord, NetworkWish};
use super::super::error::NetworkError;
use super::super::{Installation, ipam};
use super::DEFAULT_NETWORK;
use crate::store::{Durability, Paths, StoreError, read_json, write_json};
use std::path::PathBuf;

/// Returns a network that stands on the host; the default one is defined when it is first needed.
pub(super) fn standing_network(
    name: &str,
    paths: &Paths,
    warnings: &mut Vec<String>,
) -> Result<NetworkRecord, NetworkError> {
    let file = record_file(paths, name);
    let installation = Installation::of(paths);
    let mut executor = Executor::open(paths, &installation)?;
    let known = definition(paths, name)?;
    if known.is_none() && name != DEFAULT_NETWORK {
        return Err(NetworkError::NoNetwork(name.to_owned()));
    }
    if let Some(record) = &known
        && executor.has_link(&record.interface)?
    {
        return Ok(record.clone());
    }
    let interface = known.as_ref().map_or(installation.bridge.clone(), |record| record.interface.clone());
    let mut used = executor.networks_in_use(&interface)?;
    // Two installations that choose at the same moment: the one whose link is older keeps its choice.
    for _ in 0..16 {
        let record = match &known {
            Some(record) if !record.automatic || !clashes(record.subnet, &used) || in_use(paths, name)? => {
                record.clone()
            }
            _ => {
                let wish = NetworkWish { name: name.to_owned(), interface: interface.clone(), subnet: None };
                let record = Bridge.define(&wish, &used)?;
                ipam::forget(paths, name).map_err(StoreError::io("forget addresses", &file))?;
                write_record(&file, &record)?;
                record
            }
        };
        let draft = up_draft(&record)?;
        let done = executor.ensure(&draft)?;
        match executor.older_rival(&record.interface, record.subnet)? {
            Some(rival) if record.automatic && !in_use(paths, name)? => {
                executor.undo(draft.owner(), LinkEnd::Removed)?;
                used.push(rival);
            }
            _ => {
                if done.contains(&Operation::Forwarding) {
                    warnings.push("forwarding of IPv4 is now enabled on this host (net.ipv4.ip_forward=1)".to_owned());
                }
                return Ok(record);
            }
        }
    }
    Err(NetworkError::NoSubnet(name.to_owned()))
}

fn clashes(subnet: Option<Subnet>, used: &[Subnet]) -> bool {
    subnet.is_some_and(|subnet| used.iter().any(|other| other.overlaps(subnet)))
}

/// Tells whether somebody has an address in a network.
fn in_use(paths: &Paths, network: &str) -> Result<bool, NetworkError> {
    Ok(ipam::reservations(paths)?.iter().any(|reservation| reservation.network == network))
}

fn record_file(paths: &Paths, name: &str) -> PathBuf {
    paths.root.join("networks").join(format!("{name}.json"))
}

fn write_record(file: &std::path::Path, record: &NetworkRecord) -> Result<(), NetworkError> {
    if let Some(parent) = file.parent() {
        std::fs::create_dir_all(parent).map_err(StoreError::io("create directory", parent))?;
    }
    Ok(write_json(file, record, Durability::Synced)?)
}

/// Returns the definition of a network, once it has been needed.
///
/// # Errors
/// When its record cannot be read.
pub fn definition(paths: &Paths, name: &str) -> Result<Option<NetworkRecord>, NetworkError> {
    match read_json(&record_file(paths, name)) {
        Ok(record) => Ok(Some(record)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns what a network needs on the host.
pub(super) fn up_draft(record: &NetworkRecord) -> Result<Draft, NetworkError> {
    let mut draft = Draft::new(Owner::Network(record.name.clone()));
    driver(record).up(record, &mut draft)?;
    Ok(draft)
}

/// Returns the driver a record names.
pub(super) fn driver(record: &NetworkRecord) -> &'static dyn NetworkDriver {
    match record.driver.as_str() {
        "host" => &Bare::Host,
        "none" => &Bare::None,
        _ => &Bridge,
    }
}

//! Endpoints and networks taken down: one that ends, those of the dead, all of an installation.

use super::super::apply::{Executor, LinkEnd, lock};
use super::super::draft::Owner;
use super::super::error::NetworkError;
use super::super::journal::{self, Journal};
use super::super::{Installation, ipam};
use crate::base::ContainerId;
use crate::store::{Paths, StoreError};

/// Takes a container out of its network by its journal: its entries, its link, its address. Works when the network
/// namespace is gone, and twice.
///
/// # Errors
/// The first thing that could not be taken back; it stays in the journal for [`gc`].
pub fn detach(id: &ContainerId, paths: &Paths) -> Result<(), NetworkError> {
    let _lock = lock(paths)?;
    let owner = Owner::Container(id.clone());
    if Journal::read(paths, &owner)?.is_some() {
        let installation = Installation::of(paths);
        let mut executor = Executor::open(paths, &installation)?;
        let undone = executor.undo(&owner, LinkEnd::Down);
        executor.close();
        return undone;
    }
    release_all(paths, |owner| owner == Some(id))
}

fn release_all(paths: &Paths, is_free: impl Fn(Option<&ContainerId>) -> bool) -> Result<(), NetworkError> {
    for reservation in ipam::reservations(paths)? {
        if is_free(reservation.owner.as_ref()) {
            let nobody = ContainerId::generate();
            let id = reservation.owner.as_ref().unwrap_or(&nobody);
            ipam::release(paths, &reservation.network, reservation.address, id)
                .map_err(StoreError::io("release address below", &paths.run))?;
        }
    }
    Ok(())
}

/// Takes back whatever belongs to containers that are not alive. A container whose start is under way is alive.
///
/// # Errors
/// The first thing that could not be taken back; the rest is done.
pub fn gc(paths: &Paths, alive: &dyn Fn(&ContainerId) -> bool) -> Result<(), NetworkError> {
    let _lock = lock(paths)?;
    let installation = Installation::of(paths);
    // Whoever was killed while writing a journal has no owner there that could be undone.
    journal::sweep(paths);
    let mut first = Ok(());
    let mut executor = Executor::open(paths, &installation)?;
    for owner in journal::owners(paths)? {
        let Owner::Container(id) = &owner else { continue };
        if !alive(id) {
            first = first.and(executor.undo(&owner, LinkEnd::Down));
        }
    }
    executor.close();
    first.and(release_all(paths, |owner| owner.is_none_or(|id| !alive(id))))
}

/// Removes what networks have on the host if no container is on any; returns their names.
///
/// # Errors
/// The first thing that could not be removed; the rest is done.
pub fn prune(paths: &Paths) -> Result<Vec<String>, NetworkError> {
    let _lock = lock(paths)?;
    let owners = journal::owners(paths)?;
    let container = |owner: &Owner| matches!(owner, Owner::Container(_));
    if owners.is_empty() || owners.iter().any(container) || !ipam::reservations(paths)?.is_empty() {
        return Ok(Vec::new());
    }
    remove_all(paths)?;
    Ok(owners
        .iter()
        .filter_map(|owner| if let Owner::Network(name) = owner { Some(name.clone()) } else { None })
        .collect())
}

/// Removes everything of this installation from the host's network: endpoints, bridges, tables, and the forwarding we
/// enabled. Made for uninstalling and for tests.
///
/// # Errors
/// The first thing that could not be removed; the rest is done.
pub fn down(paths: &Paths) -> Result<(), NetworkError> {
    let _lock = lock(paths)?;
    remove_all(paths)
}

fn remove_all(paths: &Paths) -> Result<(), NetworkError> {
    let installation = Installation::of(paths);
    let mut executor = Executor::open(paths, &installation)?;
    let mut owners = journal::owners(paths)?;
    owners.sort_by_key(|owner| matches!(owner, Owner::Network(_)));
    let mut first = Ok(());
    for owner in owners {
        first = first.and(executor.undo(&owner, LinkEnd::Removed));
    }
    first.and(executor.destroy_tables()).and(release_all(paths, |_| true))
}

//! Removing containers and what belongs to them, in an order that a cut at any point leaves repairable.

use super::nameless;
use super::record::{Container, ContainerRecord, NetworkRecord};
use super::request::NetworkMode;
use super::stop::{Stopping, groups};
use super::{Engine, EngineError};
use crate::base::ContainerId;
use crate::image::Snapshotter;
use crate::network;
use crate::sandbox::sweep;
use crate::shim::{Client, Status};
use crate::store::{
    FileLock, Lease, Leases, Names, StoreError, is_locked, read_json, remove_file, reserve, sweep_records,
};
use crate::sys::fault::{self, Point};
use crate::volume::{VolumeError, Volumes};
use std::path::Path;
use std::time::{Duration, Instant};

/// Beginning of the leases on build trees; the snapshot's key follows.
pub(super) const TREE: &str = "tree ";
/// How long a killed builder may take to give its leases back.
const DYING: Duration = Duration::from_secs(2);

/// Beginning of the name of a container's directory that is being removed.
pub(super) const GONE: &str = ".gone-";

/// A container that has been removed, whose shim is still there; it ends when this is dropped.
///
/// As it ends the kernel writes the container's file system back, which locks what the next removal has to change: whoever
/// removes several keeps these until all are gone.
#[derive(Debug)]
#[must_use = "its shim ends when this is dropped"]
pub struct Parting(Option<Client>);

impl Drop for Parting {
    fn drop(&mut self) {
        if let Some(client) = &mut self.0 {
            // It has waited long enough, or was killed; there is nothing left to say.
            let _ = client.finished();
        }
    }
}

impl Engine {
    /// Removes a container; with `force` a running one is killed first, with `volumes` its anonymous volumes go too.
    ///
    /// # Errors
    /// [`EngineError::Running`] without `force`.
    pub fn remove(&self, id: &ContainerId, force: bool, volumes: bool) -> Result<Parting, EngineError> {
        self.making_room(|| self.remove_now(id, volumes, || self.stopped(id, force)))
    }

    /// Kills a container that [`Engine::end_removal`] removes then, without waiting for its end: several die at once.
    pub fn begin_removal(&self, id: &ContainerId) -> Stopping {
        // Whatever is wrong with it is said by whoever removes it.
        self.begin_kill(id).unwrap_or_else(|_| Stopping::nothing())
    }

    /// Removes a container whose removal was begun, with `volumes` its anonymous volumes too.
    ///
    /// # Errors
    /// When something of it cannot be removed.
    pub fn end_removal(&self, id: &ContainerId, begun: Stopping, volumes: bool) -> Result<Parting, EngineError> {
        let mut begun = Some(begun);
        self.making_room(|| {
            self.remove_now(id, volumes, || match begun.take() {
                Some(begun) if begun.is_asked() => Ok((self.record(id)?, self.killed(id, begun)?)),
                _ => self.stopped(id, true),
            })
        })
    }

    /// Does what makes room. On a full disk the store's reserve is given up for a second try: what is left of a removal can be
    /// asked for again.
    pub(super) fn making_room<T>(&self, mut action: impl FnMut() -> Result<T, EngineError>) -> Result<T, EngineError> {
        let mut outcome = action();
        if outcome.as_ref().is_err_and(|error| reserve::is_full(error)) && reserve::give(&self.paths) {
            outcome = action();
        }
        reserve::keep(&self.paths);
        outcome
    }

    fn remove_now(
        &self,
        id: &ContainerId,
        volumes: bool,
        mut stopped: impl FnMut() -> Result<(ContainerRecord, Option<Client>), EngineError>,
    ) -> Result<Parting, EngineError> {
        let (mut record, mut shim) = stopped()?;
        let lock = loop {
            let lock = match FileLock::acquire_dir(&self.paths.container(id)) {
                // The shim's own clean-up was quicker.
                Err(error) if error.is_not_found() && record.request.auto_remove => return Ok(Parting(None)),
                Err(error) if error.is_not_found() => return Err(EngineError::NoContainer(id.to_string())),
                other => other?,
            };
            if !self.has_shim(id) {
                break lock;
            }
            // Started again before we had the lock.
            drop(lock);
            (record, shim) = stopped()?;
        };
        if !self.paths.container(id).exists() {
            let gone = || EngineError::NoContainer(id.to_string());
            return if record.request.auto_remove { Ok(Parting(shim)) } else { Err(gone()) };
        }
        self.release_of(&record)?;
        fault::cut(Point::RemoveReleased);
        self.erase(&record, volumes || record.request.auto_remove, shim.as_mut())?;
        drop(lock);
        if let Some(shim) = &mut shim {
            self.cleared(id, shim)?;
        }
        Ok(Parting(shim))
    }

    /// Waits until the shim of a container that has ended, or is removed, has removed its control groups.
    pub(super) fn cleared(&self, id: &ContainerId, client: &mut Client) -> Result<(), EngineError> {
        if client.cleared().is_err() && !self.paths.container(id).exists() {
            // It was killed before it had removed the control groups, and no later start will meet them.
            sweep(&groups(id))?;
        }
        Ok(())
    }

    /// Returns the record of a container that does not run; with `force` it is killed first, and its shim waits for the
    /// word that it was removed.
    fn stopped(&self, id: &ContainerId, force: bool) -> Result<(ContainerRecord, Option<Client>), EngineError> {
        let Container { record, state } = self.observe(id)?;
        if matches!(state.status, Status::Running | Status::Paused | Status::Restarting) {
            if !force {
                return Err(EngineError::Running { name: record.name, id: id.clone() });
            }
            return Ok((record, self.killed(id, self.begin_kill(id)?)?));
        }
        Ok((record, None))
    }

    /// Does what is due after a container has ended: gives back its network and ids, removes it if it was to be.
    ///
    /// Safe to call twice and from two processes at once.
    ///
    /// # Errors
    /// When something cannot be given back.
    pub fn finish(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.finish_with(id, None)
    }

    /// As [`Engine::finish`]; the shim is still there.
    pub(super) fn finish_with(&self, id: &ContainerId, mut shim: Option<&mut Client>) -> Result<(), EngineError> {
        self.making_room(|| self.finish_now(id, shim.as_deref_mut()))
    }

    fn finish_now(&self, id: &ContainerId, shim: Option<&mut Client>) -> Result<(), EngineError> {
        let _lock = match FileLock::acquire_dir(&self.paths.container(id)) {
            // A build step, or a container that was removed meanwhile.
            Err(error) if error.is_not_found() => return self.finish_step(id),
            other => other?,
        };
        if self.has_shim(id) {
            // Started again meanwhile; what the last run held has been given back or belongs to this one.
            return Ok(());
        }
        let record = match ContainerRecord::load(&self.paths, id) {
            Err(error) if error.is_not_found() => return Ok(()),
            other => other?,
        };
        self.release_of(&record)?;
        if record.request.auto_remove { self.erase(&record, true, shim) } else { Ok(()) }
    }

    /// As [`Engine::release`]; the networks' lock and records are looked at only for a container that can be in one of ours.
    fn release_of(&self, record: &ContainerRecord) -> Result<(), EngineError> {
        match record.request.network {
            NetworkMode::Default | NetworkMode::Named(_) => self.release(&record.id),
            _ => self.release_ids(&record.id),
        }
    }

    /// Takes down what a build step held whose builder was killed.
    fn finish_step(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.release(id)?;
        let subject = format!("{TREE}{id}");
        let latest = Instant::now() + DYING;
        // The builder's connection closes a moment before the lock of its lease. One that lives settles its lease itself.
        while Lease::survey(&self.paths).held.contains(&subject) && Instant::now() < latest {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.settle_abandoned()
    }

    /// Removes everything of a container that has a record, which goes last: a removal that was cut off can be asked for
    /// again. A shim that is there yet gives the blocks back, for which nobody waits then.
    fn erase(&self, record: &ContainerRecord, volumes: bool, shim: Option<&mut Client>) -> Result<(), EngineError> {
        let id = &record.id;
        if let Some(shim) = shim {
            // One that is gone holds nothing.
            let _ = shim.hold(nameless::soon(&self.paths, id));
        }
        if record.request.rootfs.is_none() {
            Snapshotter::new(&self.paths).remove(id.as_str())?;
        }
        fault::cut(Point::RemoveTree);
        if volumes {
            for point in record.mounts.iter().filter(|point| point.anonymous) {
                match Volumes::new(&self.paths).remove(&point.name) {
                    Ok(()) | Err(VolumeError::NotFound(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        if let Some(last) = record.state_files(&self.paths).last {
            remove_file(&last.spare)?;
        }
        self.erase_directory(id, Some(record))
    }

    /// Removes a container's directory and gives its names back. The directory loses its own name first: whatever cuts this
    /// off leaves either a whole container or what [`Engine::ids`] takes down.
    fn erase_directory(&self, id: &ContainerId, record: Option<&ContainerRecord>) -> Result<(), EngineError> {
        let dir = self.paths.container(id);
        let gone = dir.with_file_name(format!("{GONE}{id}"));
        match std::fs::rename(&dir, &gone) {
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(StoreError::io("remove", &dir))?,
        }
        fault::fail(Point::RemoveRecord).map_err(StoreError::io("remove", &dir))?;
        self.erase_gone(&gone, record)
    }

    /// Does the rest of a removal.
    fn erase_gone(&self, gone: &Path, record: Option<&ContainerRecord>) -> Result<(), EngineError> {
        if let Some(record) = record {
            for name in [Some(&record.name), record.former_name.as_ref()].into_iter().flatten() {
                Names::new(&self.paths).release(name, &record.id)?;
            }
        }
        fault::cut(Point::RemoveName);
        match std::fs::remove_dir_all(gone) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", gone)(source).into())
            }
            _ => Ok(()),
        }
    }

    /// Takes down what a removal that was cut off left; whoever is at it still holds the directory's lock. What cannot be
    /// taken down is left to the next look.
    pub(super) fn sweep_gone(&self, gone: &Path) {
        if let Ok(Some(_lock)) = FileLock::try_acquire_dir(gone) {
            let record = read_json(&gone.join("config.json")).ok();
            let _ = self.erase_gone(gone, record.as_ref());
        }
    }

    /// Removes what is there of a container, whole or half-made.
    pub(super) fn forget(&self, id: &ContainerId) -> Result<(), EngineError> {
        if let Ok(record) = ContainerRecord::load(&self.paths, id) {
            self.erase(&record, true, None)?;
            return Ok(Volumes::new(&self.paths).settle(id)?);
        }
        Volumes::new(&self.paths).settle(id)?;
        self.release(id)?;
        Snapshotter::new(&self.paths).remove(id.as_str())?;
        let names = Names::new(&self.paths);
        for name in names.of(id)? {
            names.release(&name, id)?;
        }
        self.erase_directory(id, None)
    }

    /// Undoes what commands that were killed had begun.
    ///
    /// # Errors
    /// When something cannot be taken down; the next command tries again.
    pub fn settle_abandoned(&self) -> Result<(), EngineError> {
        let Leases { held, abandoned } = Lease::survey(&self.paths);
        if abandoned.is_empty() {
            return Ok(());
        }
        // A process that died over a lease may have died over a record too.
        for place in ["images", "networks", "build/cache", "cache/seccomp"] {
            sweep_records(&self.paths.root.join(place));
        }
        for lease in abandoned {
            if let Some(key) = lease.subject.strip_prefix(TREE) {
                if let Ok(id) = ContainerId::try_from(key.to_owned()) {
                    if !self.has_shim(&id) {
                        sweep(&groups(&id))?;
                    }
                    self.end_step(&id)?;
                }
                Snapshotter::new(&self.paths).remove(key)?;
            } else if let Ok(id) = ContainerId::try_from(lease.subject.clone()) {
                let lock = FileLock::acquire_dir(&self.paths.container(&id));
                if !self.has_shim(&id) {
                    // Its shim may have been killed over a launch.
                    sweep(&groups(&id))?;
                    match ContainerRecord::load(&self.paths, &id) {
                        // Created in full, its start cut off: keep what a person named, take the rest down.
                        Ok(record) if !record.request.auto_remove => self.release(&id)?,
                        _ => self.forget(&id)?,
                    }
                }
                drop(lock);
            }
            lease.settle()?;
        }
        // A start that was cut off has a place in the network, perhaps without a record of it.
        Ok(network::gc(&self.paths, &|id| self.has_network(id, &held))?)
    }

    /// As [`Engine::settle_abandoned`], for commands that only look: what cannot be taken down now is told by the next
    /// command that makes something.
    pub fn settle_if_possible(&self) {
        let _ = self.settle_abandoned();
    }

    /// Tells whether a container may have a place in a network: its shim lives, or somebody works on it.
    fn has_network(&self, id: &ContainerId, held: &[String]) -> bool {
        self.has_shim(id)
            || held.iter().any(|subject| subject.strip_prefix(TREE).unwrap_or(subject) == id.as_str())
            || is_locked(&self.paths.container(id))
    }

    /// Returns the definition of a network; one that was never needed has none.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn network(&self, name: &str) -> Result<Option<NetworkRecord>, EngineError> {
        Ok(network::definition(&self.paths, name)?)
    }

    /// Removes what networks without containers have on the host: bridge, rules, forwarding we enabled. The next start
    /// makes it again. Returns the names of those networks.
    ///
    /// # Errors
    /// When something cannot be taken down.
    pub fn prune_networks(&self) -> Result<Vec<String>, EngineError> {
        self.settle_abandoned()?;
        // Looking at a container takes down what a killed shim left.
        self.list()?;
        Ok(network::prune(&self.paths)?)
    }

    /// Removes a volume nobody uses.
    ///
    /// # Errors
    /// [`EngineError::VolumeInUse`] when a container has it, running or not.
    pub fn remove_volume(&self, name: &str, force: bool) -> Result<(), EngineError> {
        let users = self.volume_users(name)?;
        if !users.is_empty() {
            return Err(EngineError::VolumeInUse { name: name.to_owned(), users });
        }
        self.making_room(|| match Volumes::new(&self.paths).remove(name) {
            Err(VolumeError::NotFound(_)) if force => Ok(()),
            other => Ok(other?),
        })
    }

    /// Returns the ids of containers that have a volume.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn volume_users(&self, name: &str) -> Result<Vec<String>, EngineError> {
        let all = self.list()?;
        let uses = |container: &Container| container.record.mounts.iter().any(|point| point.name == name);
        Ok(all.iter().filter(|container| uses(container)).map(|container| container.record.id.to_string()).collect())
    }
}

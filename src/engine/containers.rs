//! Looking at containers: by name, by id prefix, all of them, with the state that is true now.

use super::record::{Container, ContainerRecord};
use super::remove::GONE;
use super::{Engine, EngineError};
use crate::base::ContainerId;
use crate::shim::{self, State, Status};
use crate::store::{FileLock, Names, StoreError};
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// Modes of a container's directory: that of one that was never started, and the mark that every start sets and one that
/// failed takes back. Nobody but root gets in, so the bit means nothing else, and it costs neither a file nor a block.
const UNSTARTED: u32 = 0o700;
const STARTED: u32 = 0o1000;

impl Engine {
    /// Finds a container by id, name, or unique prefix of an id.
    ///
    /// # Errors
    /// [`EngineError::NoContainer`] and [`EngineError::Ambiguous`].
    pub fn find(&self, text: &str) -> Result<ContainerId, EngineError> {
        let name = text.strip_prefix('/').unwrap_or(text);
        if let Ok(id) = ContainerId::try_from(name.to_owned())
            && self.paths.container(&id).join("config.json").exists()
        {
            return Ok(id);
        }
        if let Some(id) = Names::new(&self.paths).owner(name) {
            return Ok(id);
        }
        let unknown = || EngineError::NoContainer(text.to_owned());
        if name.is_empty() || !name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(unknown());
        }
        let mut found = self.ids()?.into_iter().filter(|id| id.as_str().starts_with(name));
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(id),
            (Some(_), Some(_)) => Err(EngineError::Ambiguous(text.to_owned())),
            (None, _) => Err(unknown()),
        }
    }

    /// Returns the ids of all containers that have a record, in no order, and removes what killed removals left.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn ids(&self) -> Result<Vec<ContainerId>, EngineError> {
        let dir = self.paths.root.join("containers");
        let entries = std::fs::read_dir(&dir).map_err(StoreError::io("list", &dir))?;
        let mut ids = Vec::new();
        for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            if name.starts_with(GONE) {
                self.sweep_gone(&dir.join(&name));
            } else if let Ok(id) = ContainerId::try_from(name)
                && self.paths.container(&id).join("config.json").exists()
            {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// Returns all containers, newest first.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn list(&self) -> Result<Vec<Container>, EngineError> {
        let mut all = Vec::new();
        for id in self.ids()? {
            match self.observe(&id) {
                Ok(container) => all.push(container),
                // Removed while we were looking.
                Err(EngineError::NoContainer(_)) => {}
                Err(error) => return Err(error),
            }
        }
        all.sort_by_key(|container| std::cmp::Reverse(container.record.created));
        Ok(all)
    }

    /// Returns a container as it is now.
    ///
    /// A record that says running although no shim holds its lock belongs to a shim that was killed or to an earlier
    /// boot: what it left is taken down and the state set right before it is returned.
    ///
    /// # Errors
    /// When there is no such container or its record cannot be read.
    pub fn observe(&self, id: &ContainerId) -> Result<Container, EngineError> {
        let record = self.record(id)?;
        let state = self.state(&record)?;
        if !state.status.is_live() || self.has_shim(id) {
            return Ok(Container { record, state });
        }
        // Somebody else may be taking it down, or starting it again.
        let _lock = self.lock_container(id)?;
        self.observe_locked(id)
    }

    /// Waits for a container's lock.
    ///
    /// # Errors
    /// [`EngineError::NoContainer`] when it was removed meanwhile.
    pub(super) fn lock_container(&self, id: &ContainerId) -> Result<FileLock, EngineError> {
        match FileLock::acquire_dir(&self.paths.container(id)) {
            Err(error) if error.is_not_found() => Err(EngineError::NoContainer(id.to_string())),
            other => Ok(other?),
        }
    }

    /// As [`Engine::observe`], by whoever holds the container's lock.
    pub(super) fn observe_locked(&self, id: &ContainerId) -> Result<Container, EngineError> {
        let record = self.record(id)?;
        let alive = self.has_shim(id);
        // Read after the shim was looked for: one that ended in good order has written its last state before.
        let state = self.state(&record)?;
        if alive || !state.status.is_live() {
            return Ok(Container { record, state });
        }
        let state = self.recover(&record, state)?;
        Ok(Container { record, state })
    }

    /// Returns a container's record without looking at its state.
    ///
    /// # Errors
    /// When there is no such container.
    pub fn record(&self, id: &ContainerId) -> Result<ContainerRecord, EngineError> {
        ContainerRecord::load(&self.paths, id)
            .map_err(|error| if error.is_not_found() { EngineError::NoContainer(id.to_string()) } else { error.into() })
    }

    /// Tells whether a container's shim lives.
    pub fn has_shim(&self, id: &ContainerId) -> bool {
        shim::is_alive(&self.paths.container_run(id))
    }

    /// Returns the state that is written. A boot takes that of one that runs away, or cuts it short: what a start left beside the
    /// record tells that there was one. A shim that has written none yet is about to start the container.
    fn state(&self, record: &ContainerRecord) -> Result<State, EngineError> {
        let lost = || State { status: Status::Running, started_at: record.created, ..State::created() };
        match record.state_files(&self.paths).read()? {
            Some(state) => Ok(state),
            None if self.was_started(&record.id) && !self.has_shim(&record.id) => Ok(lost()),
            None => Ok(State::created()),
        }
    }

    /// Tells whether a start of the container has ever succeeded, or been cut off.
    fn was_started(&self, id: &ContainerId) -> bool {
        std::fs::metadata(self.paths.container(id)).is_ok_and(|found| found.mode() & STARTED != 0)
    }

    /// Notes beside the record that the container was started, or that a start failed.
    pub(super) fn mark_started(&self, id: &ContainerId, started: bool) -> Result<(), StoreError> {
        let dir = self.paths.container(id);
        let mode = UNSTARTED | if started { STARTED } else { 0 };
        std::fs::set_permissions(&dir, Permissions::from_mode(mode)).map_err(StoreError::io("set mode of", &dir))
    }
}

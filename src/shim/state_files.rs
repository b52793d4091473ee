//! Where a container's state lies: in memory while its shim lives, on the disk once it has ended.

use super::plan::State;
use crate::store::{Durability, StoreError, read_json, remove_file, reserve, write_json};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The files of a container's state. Only the last one outlives the boot: one that runs has no block on the disk to be freed, and
/// whoever finds none of a container that was started knows that it was cut off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFiles {
    /// While the shim lives; for a container that leaves none behind, afterwards too.
    pub live: PathBuf,
    /// The state of one that has ended; `None` leaves none behind (`--rm`, build steps).
    pub last: Option<LastState>,
}

/// The files of the state of a container that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastState {
    /// On the disk.
    pub file: PathBuf,
    /// In memory, for a disk that is full; it is lost with the boot.
    pub spare: PathBuf,
}

impl StateFiles {
    /// Reads the state; `None` when there is none, or a power cut left only a part of it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self) -> Result<Option<State>, StoreError> {
        let last = self.last.iter().flat_map(|last| [last.spare.as_path(), &last.file]);
        let live = || std::iter::once(self.live.as_path());
        // Once more: a start may have written the one and then removed the other.
        for path in live().chain(last).chain(live()) {
            match read(path) {
                Ok(None) => {}
                // Cut short by the power.
                Err(StoreError::Form { .. }) => return Ok(None),
                other => return other,
            }
        }
        Ok(None)
    }

    /// Reads the state that a container's end has left on the disk.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_last(&self) -> Result<Option<State>, StoreError> {
        self.last.as_ref().map_or(Ok(None), |last| read(&last.file))
    }

    /// Writes the state where its status belongs. On a full disk the last one is kept in memory.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write(&self, state: &State) -> Result<(), StoreError> {
        let Some(last) = self.last.as_ref().filter(|_| !state.status.is_live()) else {
            return write_json(&self.live, state, Durability::Atomic);
        };
        match write_json(&last.file, state, Durability::Synced) {
            Err(error) if reserve::is_full(&error) => write_json(&last.spare, state, Durability::Atomic)?,
            other => {
                other?;
                remove_file(&last.spare)?;
            }
        }
        // Only now: a reader that finds no live one finds the last.
        remove_file(&self.live)
    }

    /// Removes what the run before has left, once the live state of this one is written.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn begun(&self) -> Result<(), StoreError> {
        let Some(last) = &self.last else { return Ok(()) };
        remove_file(&last.file)?;
        remove_file(&last.spare)
    }
}

fn read(path: &Path) -> Result<Option<State>, StoreError> {
    match read_json(path) {
        Err(error) if error.is_not_found() => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::Status;

    fn files(dir: &Path) -> StateFiles {
        let last = LastState { file: dir.join("disk/state.json"), spare: dir.join("spare") };
        StateFiles { live: dir.join("live"), last: Some(last) }
    }

    fn state(status: Status, exit_code: i32) -> State {
        State { status, exit_code, ..State::created() }
    }

    #[test]
    fn each_state_lies_where_it_belongs_and_the_newest_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        let last = files.last.clone().unwrap();
        std::fs::create_dir(dir.path().join("disk")).unwrap();
        assert_eq!(files.read().unwrap(), None);
        let mut before = None;
        for code in [3, 4] {
            files.write(&state(Status::Running, 0)).unwrap();
            assert_eq!(files.read().unwrap().unwrap().status, Status::Running);
            assert_eq!(files.read_last().unwrap().map(|state| state.exit_code), before);
            files.begun().unwrap();
            assert!(files.live.exists() && !last.file.exists());
            files.write(&state(Status::Exited, code)).unwrap();
            assert!(!files.live.exists() && last.file.exists());
            assert_eq!(files.read().unwrap().unwrap().exit_code, code);
            before = Some(code);
        }
        crate::store::write_bytes(&last.file, b"{", crate::store::Durability::Atomic).unwrap();
        assert_eq!(files.read().unwrap(), None);
    }

    #[test]
    fn one_that_leaves_none_behind_has_its_end_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let files = StateFiles { last: None, ..files(dir.path()) };
        files.write(&state(Status::Exited, 3)).unwrap();
        assert!(files.live.exists());
        assert_eq!(files.read_last().unwrap(), None);
        assert_eq!(files.read().unwrap().unwrap().exit_code, 3);
    }
}

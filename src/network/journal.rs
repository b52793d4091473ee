//! The journal: what was done for whom, and what takes it back, written before it is done.
//!
//! One file for each owner, `$RUN/network/journal/<container id>.json` or `network-<name>.json`. Links, addresses and
//! nftables entries die with the boot, and so does the journal: it lies in `$RUN` and is never flushed to a disk.

use super::draft::{Inverse, Operation, Owner};
use super::error::NetworkError;
use crate::base::ContainerId;
use crate::store::{Durability, Paths, StoreError, read_json, remove_file, sweep_records, write_json};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Form of the records.
const SCHEMA: u32 = 1;

/// One operation and its inverse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub operation: Operation,
    pub inverse: Inverse,
}

/// Everything done for one owner, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    pub schema: u32,
    pub owner: Owner,
    pub entries: Vec<Entry>,
}

impl Journal {
    pub(super) fn new(owner: Owner, entries: Vec<Entry>) -> Self {
        Self { schema: SCHEMA, owner, entries }
    }

    /// Writes the journal in place of an older one.
    pub(super) fn write(&self, paths: &Paths) -> Result<(), NetworkError> {
        let path = file(paths, &self.owner);
        match write_json(&path, self, Durability::Atomic) {
            Err(error) if error.is_not_found() => {
                let parent = directory(paths);
                std::fs::create_dir_all(&parent).map_err(StoreError::io("create directory", &parent))?;
                Ok(write_json(&path, self, Durability::Atomic)?)
            }
            other => Ok(other?),
        }
    }

    /// Reads an owner's journal, if there is one.
    pub(super) fn read(paths: &Paths, owner: &Owner) -> Result<Option<Self>, NetworkError> {
        match read_json(&file(paths, owner)) {
            Ok(journal) => Ok(Some(journal)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads every journal.
    pub(super) fn all(paths: &Paths) -> Result<Vec<Self>, NetworkError> {
        owners(paths)?.iter().filter_map(|owner| Self::read(paths, owner).transpose()).collect()
    }

    /// Forgets the journal of an owner.
    pub(super) fn remove(paths: &Paths, owner: &Owner) -> Result<(), NetworkError> {
        sweep(paths);
        Ok(remove_file(&file(paths, owner))?)
    }
}

/// Returns everybody who has a journal.
pub(super) fn owners(paths: &Paths) -> Result<Vec<Owner>, NetworkError> {
    let path = directory(paths);
    let list = match std::fs::read_dir(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|source| NetworkError::List { path: path.clone(), source })?,
    };
    let mut owners = Vec::new();
    for entry in list {
        let entry = entry.map_err(|source| NetworkError::List { path: path.clone(), source })?;
        let name = entry.file_name();
        // Temporary files of writers are passed over.
        let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".json")) else {
            continue;
        };
        if let Some(network) = stem.strip_prefix("network-") {
            owners.push(Owner::Network(network.to_owned()));
        } else if let Ok(id) = ContainerId::try_from(stem.to_owned()) {
            owners.push(Owner::Container(id));
        }
    }
    Ok(owners)
}

/// Removes what was left by those who were killed while writing a journal.
pub(super) fn sweep(paths: &Paths) {
    sweep_records(&directory(paths));
}

fn directory(paths: &Paths) -> PathBuf {
    paths.run.join("network/journal")
}

fn file(paths: &Paths, owner: &Owner) -> PathBuf {
    directory(paths).join(match owner {
        Owner::Network(name) => format!("network-{name}.json"),
        Owner::Container(id) => format!("{id}.json"),
    })
}

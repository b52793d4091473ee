//! Volumes: named and anonymous directories of ours that outlive containers.
//!
//! Owns `volumes/<name>/{meta.json,_data}` and the filling of a new volume from an image. Knows nothing of containers:
//! the engine says which volumes are in use.

mod fill;

use crate::base::{ContainerId, Timestamp};
use crate::store::{Durability, Paths, StoreError, read_json, write_json};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

pub use fill::{FillError, fill};

/// Version of the record's form.
const SCHEMA: u32 = 1;

/// A volume's record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Version of this record's form.
    pub schema: u32,
    /// Name; 64 hexadecimal digits for an anonymous one.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether a container made it for itself.
    pub anonymous: bool,
}

/// A volume cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// There is none of this name.
    #[error("get {0}: no such volume")]
    NotFound(String),
    /// The name is not spelled as names are.
    #[error(
        "create {0}: {0:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed; if you intended to pass a host directory, use an absolute path"
    )]
    Spelling(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All volumes.
pub struct Volumes<'a> {
    paths: &'a Paths,
}

impl<'a> Volumes<'a> {
    /// Opens the directory of volumes.
    pub fn new(paths: &'a Paths) -> Self {
        Self { paths }
    }

    /// Checks a name's spelling.
    ///
    /// # Errors
    /// [`VolumeError::Spelling`].
    pub fn check(name: &str) -> Result<(), VolumeError> {
        let mut bytes = name.bytes();
        let good = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
            && name.len() >= 2
            && name.len() <= 255
            && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if good { Ok(()) } else { Err(VolumeError::Spelling(name.to_owned())) }
    }

    /// Makes a volume, or returns the one of that name; tells whether it is new.
    ///
    /// The record appears by rename after the directory, so a half-made volume has no record and is made again.
    ///
    /// # Errors
    /// When the name is misspelled or the store fails.
    pub fn create(&self, name: Option<&str>, labels: &BTreeMap<String, String>) -> Result<(Volume, bool), VolumeError> {
        if let Some(name) = name {
            Self::check(name)?;
            match self.get(name) {
                Err(VolumeError::NotFound(_)) => {}
                other => return other.map(|volume| (volume, false)),
            }
        }
        let volume = Volume {
            schema: SCHEMA,
            name: name.map_or_else(|| ContainerId::generate().to_string(), str::to_owned),
            created: Timestamp::now(),
            labels: labels.clone(),
            anonymous: name.is_none(),
        };
        let dir = self.paths.volume(&volume.name);
        for (path, mode) in [(dir.clone(), 0o700), (dir.join("_data"), 0o755)] {
            match DirBuilder::new().mode(mode).create(&path) {
                Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(StoreError::Io { action: "create directory", path, source }.into());
                }
                _ => {}
            }
        }
        let durability = if volume.anonymous { Durability::Atomic } else { Durability::Synced };
        write_json(&dir.join("meta.json"), &volume, durability)?;
        Ok((volume, true))
    }

    /// Returns a volume.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`] when there is none of that name.
    pub fn get(&self, name: &str) -> Result<Volume, VolumeError> {
        if Self::check(name).is_err() {
            return Err(VolumeError::NotFound(name.to_owned()));
        }
        read_json(&self.paths.volume(name).join("meta.json")).map_err(|error: StoreError| {
            if error.is_not_found() { VolumeError::NotFound(name.to_owned()) } else { error.into() }
        })
    }

    /// Returns all volumes by name.
    ///
    /// # Errors
    /// When the directory or a record cannot be read.
    pub fn list(&self) -> Result<Vec<Volume>, VolumeError> {
        let dir = self.paths.root.join("volumes");
        let entries = match std::fs::read_dir(&dir) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(StoreError::io("list", &dir))?,
        };
        let mut volumes = Vec::new();
        for entry in entries.flatten() {
            match self.get(&entry.file_name().to_string_lossy()) {
                Ok(volume) => volumes.push(volume),
                Err(VolumeError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// Removes a volume and what is in it; the record goes first, so a cut leaves no half volume that looks whole.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], or when the store fails.
    pub fn remove(&self, name: &str) -> Result<(), VolumeError> {
        self.get(name)?;
        let dir = self.paths.volume(name);
        crate::store::remove_file(&dir.join("meta.json"))?;
        std::fs::remove_dir_all(&dir).map_err(StoreError::io("remove", &dir))?;
        Ok(())
    }

    /// Returns the directory that is mounted.
    pub fn data(&self, name: &str) -> PathBuf {
        self.paths.volume(name).join("_data")
    }

    /// Tells whether nothing has been put into a volume yet.
    ///
    /// # Errors
    /// When its directory cannot be read.
    pub fn is_empty(&self, name: &str) -> Result<bool, VolumeError> {
        let dir = self.data(name);
        Ok(std::fs::read_dir(&dir).map_err(StoreError::io("list", &dir))?.next().is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_made_once_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { root: dir.path().join("root"), run: dir.path().join("run") };
        paths.create().unwrap();
        let volumes = Volumes::new(&paths);
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let (first, new) = volumes.create(Some("data"), &labels).unwrap();
        assert!(new);
        assert_eq!(volumes.create(Some("data"), &BTreeMap::new()).unwrap(), (first, false));
        let (anonymous, _) = volumes.create(None, &BTreeMap::new()).unwrap();
        assert!(anonymous.anonymous && anonymous.name.len() == 64);
        assert_eq!(volumes.list().unwrap().len(), 2);
        volumes.remove("data").unwrap();
        assert!(matches!(volumes.get("data"), Err(VolumeError::NotFound(_))));
        assert!(matches!(volumes.remove("../x"), Err(VolumeError::NotFound(_))));
        assert!(matches!(volumes.create(Some("../x"), &labels), Err(VolumeError::Spelling(_))));
    }
}

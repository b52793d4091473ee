//! Volumes: named and anonymous directories of ours that outlive containers.
//!
//! Owns `volumes/<name>/{meta.json,_data}` and the filling of a new volume from an image. Knows nothing of containers:
//! the engine says which volumes are in use.

mod fill;

use crate::base::{ContainerId, Timestamp};
use crate::store::{Durability, FileLock, Paths, StoreError, read_json, sync_parent, write_json};
use crate::sys::fault::{self, Point};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

pub use fill::{FillError, fill};

/// Version of the record's form.
const SCHEMA: u32 = 1;
/// Beginning of the names of directories that are no volume yet, or no more; no volume is called so.
const DRAFT: &str = ".draft-";

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
    /// The container an anonymous one was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<ContainerId>,
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

impl VolumeError {
    /// Tells whether there is no volume of that name.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }
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

    /// Makes a volume, or returns the one of that name; tells whether it is new. One without a name is anonymous, and
    /// belongs to `owner` if that is given.
    ///
    /// It is made beside its place and gets it by rename, so there is no half a volume.
    ///
    /// # Errors
    /// When the name is misspelled or the store fails.
    pub fn create(
        &self,
        name: Option<&str>,
        labels: &BTreeMap<String, String>,
        owner: Option<&ContainerId>,
    ) -> Result<(Volume, bool), VolumeError> {
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
            owner: owner.filter(|_| name.is_none()).cloned(),
        };
        let draft = self.paths.root.join("volumes").join(format!("{DRAFT}{}", ContainerId::generate()));
        let made = self.make(&draft, &volume);
        if !matches!(made, Ok(true)) {
            let _ = std::fs::remove_dir_all(&draft);
        }
        match made? {
            true => Ok((volume, true)),
            // Somebody else was quicker.
            false => Ok((self.get(&volume.name)?, false)),
        }
    }

    /// Makes a volume and puts it in place; `false` when there is one.
    fn make(&self, draft: &Path, volume: &Volume) -> Result<bool, VolumeError> {
        for (path, mode) in [(draft, 0o700), (&draft.join("_data"), 0o755)] {
            DirBuilder::new().mode(mode).create(path).map_err(StoreError::io("create directory", path))?;
        }
        let _lock = FileLock::acquire_dir(draft)?;
        fault::fail(Point::VolumeMade).map_err(StoreError::io("create directory", draft))?;
        let durability = if volume.anonymous { Durability::Atomic } else { Durability::Synced };
        write_json(&draft.join("meta.json"), volume, durability)?;
        let place = self.paths.volume(&volume.name);
        match std::fs::rename(draft, &place) {
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                return Ok(false);
            }
            other => other.map_err(StoreError::io("create volume", &place))?,
        }
        if durability == Durability::Synced {
            sync_parent(&place)?;
        }
        Ok(true)
    }

    /// Removes what killed processes left of a container's volumes: its anonymous ones, and what is on the way in or out.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn settle(&self, owner: &ContainerId) -> Result<(), VolumeError> {
        for volume in self.list()?.iter().filter(|volume| volume.owner.as_ref() == Some(owner)) {
            match self.remove(&volume.name) {
                Ok(()) | Err(VolumeError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
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

    /// Returns all volumes by name; what killed processes left on the way in or out goes.
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
            if entry.file_name().as_encoded_bytes().starts_with(DRAFT.as_bytes()) {
                if let Some(_lock) = FileLock::try_acquire_dir(&entry.path())? {
                    let _ = std::fs::remove_dir_all(entry.path());
                }
                continue;
            }
            match self.get(&entry.file_name().to_string_lossy()) {
                Ok(volume) => volumes.push(volume),
                Err(VolumeError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// Removes a volume and what is in it; it goes out of sight first, so a cut leaves no half volume that looks whole.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], or when the store fails.
    pub fn remove(&self, name: &str) -> Result<(), VolumeError> {
        self.get(name)?;
        let gone = self.paths.root.join("volumes").join(format!("{DRAFT}{}", ContainerId::generate()));
        let place = self.paths.volume(name);
        match fault::fail(Point::VolumeRemove).and_then(|()| std::fs::rename(&place, &gone)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(VolumeError::NotFound(name.to_owned()));
            }
            other => other.map_err(StoreError::io("remove", &place))?,
        }
        fault::cut(Point::VolumeGone);
        match std::fs::remove_dir_all(&gone) {
            // Somebody who settles came across it.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", &gone)(error).into()),
            _ => Ok(()),
        }
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
        let (first, new) = volumes.create(Some("data"), &labels, None).unwrap();
        assert!(new);
        assert_eq!(volumes.create(Some("data"), &BTreeMap::new(), None).unwrap(), (first, false));
        let (anonymous, _) = volumes.create(None, &BTreeMap::new(), None).unwrap();
        assert!(anonymous.anonymous && anonymous.name.len() == 64);
        assert_eq!(volumes.list().unwrap().len(), 2);
        volumes.remove("data").unwrap();
        assert!(matches!(volumes.get("data"), Err(VolumeError::NotFound(_))));
        assert!(matches!(volumes.remove("../x"), Err(VolumeError::NotFound(_))));
        assert!(matches!(volumes.create(Some("../x"), &labels, None), Err(VolumeError::Spelling(_))));
    }

    #[test]
    fn what_a_killed_process_left_is_settled_and_the_living_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { root: dir.path().join("root"), run: dir.path().join("run") };
        paths.create().unwrap();
        let volumes = Volumes::new(&paths);
        let (dead, other) = (ContainerId::generate(), ContainerId::generate());
        volumes.create(None, &BTreeMap::new(), Some(&dead)).unwrap();
        let (kept, _) = volumes.create(None, &BTreeMap::new(), Some(&other)).unwrap();
        volumes.create(Some("named"), &BTreeMap::new(), Some(&dead)).unwrap();
        let place = paths.root.join("volumes");
        std::fs::create_dir_all(place.join(format!("{DRAFT}1/_data"))).unwrap();
        std::fs::create_dir(place.join(format!("{DRAFT}2"))).unwrap();
        let _living = FileLock::acquire_dir(&place.join(format!("{DRAFT}2"))).unwrap();
        volumes.settle(&dead).unwrap();
        let mut left: Vec<_> =
            std::fs::read_dir(&place).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, [format!("{DRAFT}2"), kept.name, "named".to_owned()]);
    }
}

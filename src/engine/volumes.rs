//! Volumes as the doors see them: made, listed, found.

use super::{Engine, EngineError};
use crate::volume::{Volume, VolumeError, Volumes};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A volume and where its files lie.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumeEntry {
    /// Its record.
    pub record: Volume,
    /// The directory that is mounted.
    pub mountpoint: PathBuf,
}

impl Engine {
    /// Makes a volume, or returns the one of that name; without a name it is a new one that counts as anonymous.
    ///
    /// # Errors
    /// When the name is misspelled or the store fails.
    pub fn create_volume(
        &self,
        name: Option<&str>,
        labels: &BTreeMap<String, String>,
    ) -> Result<VolumeEntry, EngineError> {
        let (record, _) = Volumes::new(&self.paths).create(name, labels, None)?;
        Ok(self.entry(record))
    }

    /// Returns all volumes by name.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn volumes(&self) -> Result<Vec<VolumeEntry>, EngineError> {
        Ok(Volumes::new(&self.paths).list()?.into_iter().map(|record| self.entry(record)).collect())
    }

    /// Returns the volume of a name, `None` when there is none.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn find_volume(&self, name: &str) -> Result<Option<VolumeEntry>, EngineError> {
        match Volumes::new(&self.paths).get(name) {
            Err(VolumeError::NotFound(_)) => Ok(None),
            other => Ok(Some(self.entry(other?))),
        }
    }

    fn entry(&self, record: Volume) -> VolumeEntry {
        let mountpoint = Volumes::new(&self.paths).data(&record.name);
        VolumeEntry { record, mountpoint }
    }
}

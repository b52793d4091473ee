//! What steps led to, by key: `build/cache/<key>.json`.

use crate::base::{Digest, Timestamp};
use crate::step::CommittedLayer;
use crate::store::{Durability, StoreError, read_json, write_json};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Result of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CacheRecord {
    /// Version of this form.
    pub schema: u32,
    /// Top layer below the step. A parent that was built anew is another one, though its key is the same.
    pub parent: Option<Digest>,
    /// The layer; a step that changed nothing has none.
    pub layer: Option<CommittedLayer>,
    /// When the step was done.
    pub created: Timestamp,
    /// The step, for people.
    pub title: String,
}

/// The records of finished steps.
#[derive(Clone, Debug)]
pub struct BuildCache {
    directory: PathBuf,
}

impl BuildCache {
    /// Opens the cache in a directory (`build/cache` of the store).
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    fn path(&self, key: &Digest) -> PathBuf {
        self.directory.join(format!("{}.json", key.hex()))
    }

    /// Finds a record; a missing or damaged one is no hit, and neither is one made on another parent.
    pub fn get(&self, key: &Digest, parent: Option<&Digest>) -> Option<CacheRecord> {
        let record: CacheRecord = read_json(&self.path(key)).ok()?;
        (record.schema == 1 && record.parent.as_ref() == parent).then_some(record)
    }

    /// Keeps a record.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, key: &Digest, record: &CacheRecord) -> Result<(), StoreError> {
        write_json(&self.path(key), record, Durability::Atomic)
    }

    /// Returns every record with its key: the roots of garbage collection that the builder holds.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn records(&self) -> Result<Vec<(Digest, CacheRecord)>, StoreError> {
        let entries = match std::fs::read_dir(&self.directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(StoreError::io("read directory", &self.directory))?,
        };
        let mut records = Vec::new();
        for entry in entries.flatten() {
            let key =
                entry.file_name().to_str().and_then(|n| n.strip_suffix(".json")).and_then(|n| Digest::from_hex(n).ok());
            let Some(key) = key else { continue };
            if let Ok(record) = read_json(&entry.path()) {
                records.push((key, record));
            }
        }
        Ok(records)
    }

    /// Forgets a record.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remove(&self, key: &Digest) -> Result<(), StoreError> {
        crate::store::remove_file(&self.path(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_only_on_the_parent_it_was_made_on() {
        let dir = tempfile::tempdir().unwrap();
        let cache = BuildCache::new(dir.path());
        let (key, parent) = (Digest::of(b"key"), Digest::of(b"parent"));
        assert_eq!(cache.get(&key, None), None);
        let record = CacheRecord {
            schema: 1,
            parent: Some(parent.clone()),
            layer: None,
            created: Timestamp(5),
            title: "RUN x".into(),
        };
        cache.put(&key, &record).unwrap();
        assert_eq!(cache.get(&key, Some(&parent)), Some(record.clone()));
        assert_eq!(cache.get(&key, None), None);
        assert_eq!(cache.records().unwrap(), [(key.clone(), record)]);
        cache.remove(&key).unwrap();
        assert_eq!(cache.records().unwrap(), []);
    }
}

//! What steps led to, by key: `build/cache/<key>.json`. The file's time of modification is when the step was used last.
//!
//! Layers that a record names stay until the record goes: [`prune`] by the user's order, [`trim`] by itself, least recently
//! used first, once the cache holds more than the operator's limit.

mod evict;
mod parts;
mod prune;

pub use evict::{Layers, Policy, evict, held};
pub use parts::Parts;
pub use prune::{CacheUse, PruneError, Pruned, prune, trim, usage};

use crate::base::{Digest, Timestamp};
use crate::step::CommittedLayer;
use crate::store::{Durability, RangeLock, StoreError, read_json, remove_file, write_json};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};
use serde::{Deserialize, Serialize};
use std::fs::DirEntry;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

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

/// A step of the cache.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its key.
    pub key: Digest,
    /// What it led to.
    pub record: CacheRecord,
    /// When a build used it last.
    pub last_used: Timestamp,
}

impl Entry {
    /// Returns the top-most layer it keeps in the store.
    pub fn top(&self) -> Option<&Digest> {
        self.record.layer.as_ref().map(|layer| &layer.chain_id).or(self.record.parent.as_ref())
    }

    /// Tells whether the layers it stands on are all here.
    pub fn is_whole(&self, layers: &Layers) -> bool {
        let layer = self.record.layer.as_ref().map(|layer| &layer.chain_id);
        layer.into_iter().chain(&self.record.parent).all(|id| layers.contains_key(id))
    }

    /// Tells whether an image or a container needs its layers too.
    pub fn is_shared(&self, layers: &Layers) -> bool {
        self.top().and_then(|id| layers.get(id)).is_some_and(|layer| layer.needed)
    }
}

/// How long the sum of a stack's part is kept that nobody asks for.
const SUMS_KEPT: std::time::Duration = std::time::Duration::from_secs(14 * 86_400);

/// The records of finished steps.
#[derive(Debug)]
pub struct BuildCache {
    directory: PathBuf,
    grown: AtomicBool,
}

impl BuildCache {
    /// Opens the cache in a directory (`build/cache` of the store).
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), grown: AtomicBool::new(false) }
    }

    fn path(&self, key: &Digest) -> PathBuf {
        self.directory.join(format!("{}.json", key.hex()))
    }

    /// Finds a record; a missing or damaged one is no hit, and neither is one made on another parent.
    pub fn get(&self, key: &Digest, parent: Option<&Digest>) -> Option<CacheRecord> {
        self.any(key).filter(|record| record.parent.as_ref() == parent)
    }

    /// Finds a record, whatever parent it was made on.
    pub fn any(&self, key: &Digest) -> Option<CacheRecord> {
        read_json(&self.path(key)).ok().filter(|record: &CacheRecord| record.schema == 1)
    }

    /// Notes that a step is used now. One that cannot be noted only goes earlier.
    pub fn touch(&self, key: &Digest) {
        let time = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
        let times = Timestamps { last_access: time(UTIME_OMIT), last_modification: time(UTIME_NOW) };
        let _ = utimensat(CWD, self.path(key), &times, AtFlags::empty());
    }

    /// Keeps a record.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, key: &Digest, record: &CacheRecord) -> Result<(), StoreError> {
        self.grown.store(true, Ordering::Relaxed);
        write_json(&self.path(key), record, Durability::Atomic)
    }

    /// Takes the right to perform a step, so that one of several builds does it and the others find its record. `None` while
    /// another has it, in this process or another; it ends with its holder.
    ///
    /// # Errors
    /// When the lock's file cannot be made.
    pub fn claim(&self, key: &Digest) -> Result<Option<RangeLock>, StoreError> {
        let place = u64::from_str_radix(&key.hex()[..15], 16).unwrap_or_default();
        RangeLock::try_acquire(&self.directory.join("lock"), place)
    }

    /// Tells whether a record was added through this value.
    pub fn has_grown(&self) -> bool {
        self.grown.load(Ordering::Relaxed)
    }

    /// Finds what a part of a layer stack was found to hold: the digest that is in keys. Stacks never change, so it is always
    /// right.
    pub fn sum(&self, of: &Digest) -> Option<Digest> {
        let path = self.directory.join(format!("{}.sum", of.hex()));
        let sum = read_json(&path).ok()?;
        // Use is the time of the file.
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        let _ = utimensat(CWD, &path, &times, AtFlags::empty());
        Some(sum)
    }

    /// Keeps what a part of a layer stack holds. What cannot be kept is found out again.
    pub fn keep_sum(&self, of: &Digest, sum: &Digest) {
        let _ = write_json(&self.directory.join(format!("{}.sum", of.hex())), sum, Durability::Atomic);
    }

    /// Forgets sums that nobody has used for long.
    pub(super) fn forget_sums(&self) -> Result<(), StoreError> {
        for file in self.files()? {
            let old = || Some(file.metadata().ok()?.modified().ok()?.elapsed().ok()? > SUMS_KEPT);
            if file.path().extension().is_some_and(|extension| extension == "sum") && old() == Some(true) {
                remove_file(&file.path())?;
            }
        }
        Ok(())
    }

    fn files(&self) -> Result<Vec<DirEntry>, StoreError> {
        match std::fs::read_dir(&self.directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => Ok(entries.map_err(StoreError::io("read directory", &self.directory))?.flatten().collect()),
        }
    }

    /// Returns every step. A record that cannot be read is none.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let entry = |file: &DirEntry| {
            let key = Digest::from_hex(file.file_name().to_str()?.strip_suffix(".json")?).ok()?;
            let times = file.metadata().ok()?;
            let last_used = Timestamp(times.mtime().saturating_mul(1_000_000_000).saturating_add(times.mtime_nsec()));
            Some(Entry { key, record: read_json(&file.path()).ok()?, last_used })
        };
        Ok(self.files()?.iter().filter_map(entry).collect())
    }

    /// Returns the layers that must stay for the cache: chain ids; those below them are meant too.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn roots(&self) -> Result<Vec<Digest>, StoreError> {
        Ok(self.entries()?.iter().filter_map(|entry| entry.top().cloned()).collect())
    }

    /// Forgets a record.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remove(&self, key: &Digest) -> Result<(), StoreError> {
        self.forget_parts(key);
        remove_file(&self.path(key))
    }

    /// Removes what is no record of a step: digests of contexts' files, what a killed process left half-written.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn remove_remains(&self) -> Result<(), StoreError> {
        let steps: std::collections::BTreeSet<PathBuf> =
            self.entries()?.iter().map(|entry| self.path(&entry.key)).collect();
        self.files()?
            .iter()
            .map(DirEntry::path)
            .filter(|path| !steps.contains(&path.with_extension("json")))
            .try_for_each(|path| remove_file(&path))
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
        assert!(cache.has_grown() && !BuildCache::new(dir.path()).has_grown());
        let entries = cache.entries().unwrap();
        assert_eq!((entries.len(), &entries[0].key, &entries[0].record), (1, &key, &record));
        assert_eq!(cache.roots().unwrap(), [parent]);
        cache.remove(&key).unwrap();
        assert_eq!(cache.entries().unwrap(), []);
    }

    #[test]
    fn use_is_noted_and_remains_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = BuildCache::new(dir.path());
        let record = CacheRecord { schema: 1, parent: None, layer: None, created: Timestamp(5), title: "RUN x".into() };
        let keys = [Digest::of(b"one"), Digest::of(b"two")];
        for key in &keys {
            cache.put(key, &record).unwrap();
            let past = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
            std::fs::File::options().write(true).open(cache.path(key)).unwrap().set_modified(past).unwrap();
        }
        cache.touch(&keys[0]);
        let used = |key: &Digest| cache.entries().unwrap().into_iter().find(|e| e.key == *key).unwrap().last_used;
        assert!(used(&keys[0]).age().as_secs() < 60 && used(&keys[1]) == Timestamp(1_000_000_000));
        for name in
            ["stat-0123", &format!("{}.json.tmp1-0", keys[0].hex()), &format!("{}.json", Digest::of(b"torn").hex())]
        {
            crate::store::write_bytes(&dir.path().join(name), b"{", Durability::Atomic).unwrap();
        }
        cache.remove_remains().unwrap();
        assert_eq!((cache.entries().unwrap().len(), std::fs::read_dir(dir.path()).unwrap().count()), (2, 2));
    }
}

//! What is in files that have not changed since they were hashed last: a cached rebuild reads no content.

use crate::base::Timestamp;
use crate::store::{Durability, StoreError, write_bytes};
use blake3::Hash;
use rustix::fs::Stat;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A file changed this shortly before it was hashed may change again within the same tick of the clock, nanoseconds.
const SETTLED: i64 = 2_000_000_000;

/// Most files remembered.
const MAX_ENTRIES: usize = 2_000_000;

/// First line of the file.
const HEADER: &str = "bulkhead stat cache 2";

/// What tells that a file has not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Device and inode.
    pub file: (u64, u64),
    /// Bytes.
    pub size: u64,
    /// Change of content, nanoseconds.
    pub mtime: i64,
    /// Change of the inode, nanoseconds.
    pub ctime: i64,
}

impl Stamp {
    pub(super) fn of(stat: &Stat) -> Self {
        let nanos = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        Self {
            file: (stat.st_dev, stat.st_ino),
            size: stat.st_size.max(0) as u64,
            mtime: nanos(stat.st_mtime, stat.st_mtime_nsec as i64),
            ctime: nanos(stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }
}

/// Hashes by file; steps that run side by side share it.
#[derive(Debug, Default)]
pub struct StatCache {
    path: Option<PathBuf>,
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    known: HashMap<(u64, u64), (Stamp, Hash)>,
    changed: bool,
}

impl StatCache {
    /// Reads the cache of a context; a missing or damaged file is an empty cache.
    pub fn load(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut lines = text.lines();
        let known = if lines.next() == Some(HEADER) { lines.filter_map(read_line).collect() } else { HashMap::new() };
        Self { path: Some(path.to_owned()), files: Mutex::new(Files { known, changed: false }) }
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the hash of a file that has not changed.
    pub fn get(&self, stamp: &Stamp) -> Option<Hash> {
        self.files().known.get(&stamp.file).filter(|(known, _)| known == stamp).map(|(_, hash)| *hash)
    }

    /// Remembers a hash, unless the file changed a moment ago.
    pub fn put(&self, stamp: Stamp, hash: Hash) {
        let age = Timestamp::now().0.saturating_sub(stamp.mtime.max(stamp.ctime));
        let mut files = self.files();
        if age > SETTLED && files.known.len() < MAX_ENTRIES {
            files.known.insert(stamp.file, (stamp, hash));
            files.changed = true;
        }
    }

    /// Writes what is new.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self) -> Result<(), StoreError> {
        let mut files = self.files();
        let Some(path) = self.path.as_ref().filter(|_| files.changed) else { return Ok(()) };
        let mut text = format!("{HEADER}\n");
        for (stamp, hash) in files.known.values() {
            let _ = writeln!(
                text,
                "{} {} {} {} {} {}",
                stamp.file.0,
                stamp.file.1,
                stamp.size,
                stamp.mtime,
                stamp.ctime,
                hash.to_hex()
            );
        }
        write_bytes(path, text.as_bytes(), Durability::Atomic)?;
        files.changed = false;
        Ok(())
    }
}

fn read_line(line: &str) -> Option<((u64, u64), (Stamp, Hash))> {
    let mut words = line.split(' ');
    let file = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let size = words.next()?.parse().ok()?;
    let (mtime, ctime) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some((file, (Stamp { file, size, mtime, ctime }, Hash::from_hex(words.next()?).ok()?)))
}

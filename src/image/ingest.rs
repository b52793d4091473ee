//! Work in progress: `content/ingest/<name>/` with a lock its process holds, so that what a dead process left is known.

use super::error::{ImageError, Result};
use super::snapshot::make_directory;
use super::tree;
use crate::base::unique_name;
use crate::store::{FileLock, Paths, is_locked};
use crate::sys::fault::{self, Point};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory for one piece of work; removed when dropped.
#[derive(Debug)]
pub(super) struct Ingest {
    path: PathBuf,
    _lock: FileLock,
    next: AtomicU32,
}

impl Ingest {
    /// Begins; removes what dead processes left.
    pub(super) fn begin(paths: &Paths) -> Result<Self> {
        let all = paths.root.join("content/ingest");
        make_directory(&all, 0o700, true)?;
        // Between making a directory and locking it, another process must not take it for a dead one.
        let _gate = gate(paths)?;
        sweep(&all);
        let path = all.join(unique_name());
        make_directory(&path, 0o700, false)?;
        fault::fail(Point::IngestMade).map_err(ImageError::io("make directory", &path))?;
        let lock = FileLock::acquire(&path.join("lock"))?;
        fault::cut(Point::IngestHeld);
        Ok(Self { path, _lock: lock, next: AtomicU32::new(0) })
    }

    /// Removes what is in it, but its lock.
    pub(super) fn clear(&self) {
        let Ok(entries) = std::fs::read_dir(&self.path) else { return };
        for entry in entries.flatten().filter(|entry| entry.file_name() != "lock") {
            let _ = tree::remove_path(&entry.path());
        }
    }

    /// Makes a directory for one layer, with an empty `fs`.
    pub(super) fn layer(&self) -> Result<PathBuf> {
        let directory = self.fresh();
        make_directory(&directory, 0o700, false)?;
        make_directory(&directory.join("fs"), 0o755, false)?;
        Ok(directory)
    }

    /// Returns a path in it that is not used.
    pub(super) fn fresh(&self) -> PathBuf {
        self.path.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        let _ = tree::remove_path(&self.path);
    }
}

/// Removes the directories nobody holds the lock of.
fn sweep(all: &Path) {
    let Ok(entries) = std::fs::read_dir(all) else { return };
    for entry in entries.flatten() {
        if !is_locked(&entry.path().join("lock")) {
            let _ = tree::remove_path(&entry.path());
        }
    }
}

/// Makes sure that this is the only piece of work, in this process or another, and stays it: as long as the lock is held,
/// no other begins. `None` when there is another.
pub(super) fn alone(paths: &Paths, own: &Ingest) -> Result<Option<FileLock>> {
    let gate = gate(paths)?;
    let all = paths.root.join("content/ingest");
    let Ok(entries) = std::fs::read_dir(all) else { return Ok(Some(gate)) };
    let mut paths = entries.flatten().map(|entry| entry.path());
    let another = paths.any(|path| path != own.path && is_locked(&path.join("lock")));
    Ok((!another).then_some(gate))
}

/// The lock under which work begins.
fn gate(paths: &Paths) -> Result<FileLock> {
    Ok(FileLock::acquire(&paths.root.join("content/ingest.lock"))?)
}

//! Work in progress: `content/ingest/<name>/` with a lock its process holds, so that what a dead process left is known.

use super::error::{ImageError, Result};
use super::snapshot::make_directory;
use super::tree;
use crate::store::{FileLock, Paths, is_locked};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes the names of one process differ.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A directory for one piece of work; removed when dropped.
#[derive(Debug)]
pub(super) struct Ingest {
    path: PathBuf,
    _lock: FileLock,
    next: std::cell::Cell<u32>,
}

impl Ingest {
    /// Begins; removes what dead processes left.
    pub(super) fn begin(paths: &Paths) -> Result<Self> {
        let all = paths.root.join("content/ingest");
        make_directory(&all, 0o700, true)?;
        // Between making a directory and locking it, another process must not take it for a dead one.
        let _gate = FileLock::acquire(&paths.root.join("content/ingest.lock"))?;
        sweep(&all);
        let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = all.join(name);
        tree::remove_path(&path).map_err(ImageError::io("remove", &path))?;
        make_directory(&path, 0o700, false)?;
        let lock = FileLock::acquire(&path.join("lock"))?;
        Ok(Self { path, _lock: lock, next: std::cell::Cell::new(0) })
    }

    /// Returns the directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
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
        let number = self.next.get();
        self.next.set(number + 1);
        self.path.join(number.to_string())
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

/// Removes what dead processes left.
pub(super) fn collect(paths: &Paths) -> Result<()> {
    let _gate = FileLock::acquire(&paths.root.join("content/ingest.lock"))?;
    sweep(&paths.root.join("content/ingest"));
    Ok(())
}

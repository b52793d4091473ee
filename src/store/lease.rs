//! Leases: keep objects alive while a command works on them.
//!
//! A lease is a file under `leases/` whose lock is held by the process that works; garbage collection spares what was
//! written while any lease is held, and removes lease files nobody holds.

use super::lock::{FileLock, is_locked};
use super::record::StoreError;
use super::{Paths, remove_file};
use std::path::PathBuf;

/// A held lease; given back when dropped, or by the kernel when the process dies.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    _lock: FileLock,
}

impl Lease {
    /// Takes a lease for this process.
    ///
    /// # Errors
    /// When its file cannot be made.
    pub fn take(paths: &Paths) -> Result<Self, StoreError> {
        let path = paths.root.join("leases").join(format!("{}-{}", std::process::id(), crate::base::Timestamp::now().0));
        let lock = FileLock::acquire(&path)?;
        Ok(Self { path, _lock: lock })
    }

    /// Tells whether any living process holds a lease; removes the files of dead ones.
    pub fn any_held(paths: &Paths) -> bool {
        let Ok(entries) = std::fs::read_dir(paths.root.join("leases")) else { return false };
        let mut held = false;
        for entry in entries.flatten() {
            if is_locked(&entry.path()) {
                held = true;
            } else {
                let _ = remove_file(&entry.path());
            }
        }
        held
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_lease_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { root: dir.path().to_owned(), run: dir.path().to_owned() };
        let lease = Lease::take(&paths).unwrap();
        assert!(Lease::any_held(&paths));
        drop(lease);
        super::super::write_bytes(&dir.path().join("leases/dead"), b"", super::super::Durability::Atomic).unwrap();
        assert!(!Lease::any_held(&paths));
        assert!(!dir.path().join("leases/dead").exists());
    }
}

//! Drafts: files on their way to a place they get by rename.
//!
//! Whoever writes one holds its lock, so that what a killed process left is told from what a living one writes.

use super::lock::FileLock;
use super::record::StoreError;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Opens a draft, empty and locked.
///
/// # Errors
/// When it cannot be made or locked.
pub(super) fn open(path: &Path) -> Result<(File, FileLock), StoreError> {
    loop {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(path).map_err(StoreError::io("create", path))?;
        let same = file.try_clone().map_err(StoreError::io("create", path))?;
        let lock = FileLock::hold(same, path)?;
        // A sweep that came between the two calls took it for a dead one's.
        if file.metadata().map_err(StoreError::io("create", path))?.nlink() > 0 {
            return Ok((file, lock));
        }
    }
}

/// Removes the drafts in a directory that nobody writes any more; `is_draft` judges by the name. What cannot be removed
/// is left to the next sweep.
pub(super) fn sweep(directory: &Path, is_draft: impl Fn(&str) -> bool) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if !entry.file_name().to_str().is_some_and(&is_draft) {
            continue;
        }
        let path = entry.path();
        let Ok(file) = File::open(&path) else { continue };
        let Ok(opened) = file.metadata() else { continue };
        let Some(lock) = FileLock::try_hold(file) else { continue };
        // Under its lock the name can only lose this file to us; another file may have taken it before.
        if std::fs::symlink_metadata(&path)
            .is_ok_and(|named| (named.dev(), named.ino()) == (opened.dev(), opened.ino()))
        {
            let _ = std::fs::remove_file(&path);
        }
        drop(lock);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Durability, write_bytes};
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_sweep_takes_what_the_dead_left_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.tmp1-0", "b.tmp2-0", "record"] {
            std::fs::File::create(dir.path().join(name)).unwrap();
        }
        let living = open(&dir.path().join("b.tmp2-0")).unwrap();
        sweep(dir.path(), |name| name.contains(".tmp"));
        let mut left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["b.tmp2-0", "record"]);
        drop(living);
        sweep(dir.path(), |name| name.contains(".tmp"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn writers_and_sweeps_do_not_disturb_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        let over = AtomicBool::new(false);
        let written: Result<(), StoreError> = std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        super::super::sweep_records(dir.path());
                    }
                });
            }
            let written = (0..500).try_for_each(|_| write_bytes(&path, b"whole", Durability::Atomic));
            // Said before anything can panic: the sweeps would go on for ever.
            over.store(true, Ordering::Relaxed);
            written
        });
        written.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }
}

//! A place on the file system for one input of a fuzz target; see `fuzz/` and `crate::fuzz_tests`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A directory in memory, empty at first; what is in it when it is dropped is removed.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one.
    ///
    /// # Panics
    /// When `/dev/shm` cannot be written to.
    pub fn make() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = Path::new("/dev/shm").join(format!("bulkhead-fuzz-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("make a directory in /dev/shm");
        Self(path)
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A target that failed shows its failure, not this one.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

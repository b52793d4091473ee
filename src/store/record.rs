//! Records: whole files, read at once, written by temporary file and rename.

use crate::sys::fault::{self, Point};
use serde::{Serialize, de::DeserializeOwned};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Makes the names of temporary files of one process differ.
static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Largest record read, in bytes; anything larger is not ours.
const MAX_RECORD: u64 = 64 << 20;

/// What must be true of a record when the write returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It survives a power cut (file and directory are synced).
    Synced,
    /// Readers see the old or the new text; a power cut may lose it.
    Atomic,
}

/// A file of the store could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("{action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The text is no record of the expected form.
    #[error("read record {}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// Tells whether the file did not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads a record.
///
/// # Errors
/// When the file cannot be read, is larger than 64 MiB, or is not of the expected form.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, StoreError> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    let length = file.metadata().map_or(0, |data| data.len().min(MAX_RECORD));
    let mut text = Vec::with_capacity(length as usize + 1);
    file.take(MAX_RECORD).read_to_end(&mut text).map_err(StoreError::io("read", path))?;
    serde_json::from_slice(&text).map_err(|source| StoreError::Form { path: path.to_owned(), source })
}

/// Writes a record as JSON.
///
/// # Errors
/// When the value cannot be serialised or the system refuses; the old record is then still whole.
pub fn write_json<T: Serialize>(path: &Path, value: &T, durability: Durability) -> Result<(), StoreError> {
    let text = serde_json::to_vec(value).map_err(|source| StoreError::Form { path: path.to_owned(), source })?;
    write_bytes(path, &text, durability)
}

/// Writes a whole file: temporary file beside it (mode 0600), rename.
///
/// # Errors
/// When the system refuses; the old file is then still whole and the temporary one is gone.
pub fn write_bytes(path: &Path, bytes: &[u8], durability: Durability) -> Result<(), StoreError> {
    let mut temporary = path.as_os_str().to_owned();
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    temporary.push(format!(".tmp{}-{number}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let write = || -> Result<(), StoreError> {
        fault::fail(Point::RecordWrite).map_err(StoreError::io("create", &temporary))?;
        let (mut file, _lock) = super::draft::open(&temporary)?;
        file.write_all(bytes).map_err(StoreError::io("write", &temporary))?;
        if durability == Durability::Synced {
            file.sync_all().map_err(StoreError::io("sync", &temporary))?;
        }
        fault::fail(Point::RecordReplace)
            .and_then(|()| std::fs::rename(&temporary, path))
            .map_err(StoreError::io("replace", path))?;
        fault::cut(Point::RecordReplaced);
        if durability == Durability::Synced {
            sync_parent(path)?;
        }
        Ok(())
    };
    write().inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
}

/// Removes what processes that were killed while they wrote records left in a directory.
pub fn sweep_records(directory: &Path) {
    super::draft::sweep(directory, |name| name.contains(".tmp"));
}

/// Flushes the directory a file lies in, so that its name survives a power cut.
///
/// # Errors
/// When the system refuses.
pub fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(StoreError::io("sync", parent))
}

/// Removes a file; one that is already gone is no error.
///
/// # Errors
/// When the system refuses.
pub fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fault::fail(Point::RecordRemove).and_then(|()| std::fs::remove_file(path)) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::Io { action: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_keeps_the_old_record_and_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        write_json(&path, &1, Durability::Synced).unwrap();
        let unwritable = std::collections::HashMap::from([(vec![1], 2)]);
        assert!(write_json(&path, &unwritable, Durability::Atomic).is_err());
        std::fs::create_dir(dir.path().join("taken")).unwrap();
        assert!(write_json(&dir.path().join("taken"), &2, Durability::Atomic).is_err());
        assert_eq!(read_json::<i32>(&path).unwrap(), 1);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_torn_record_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("torn");
        write_bytes(&path, b"{\"a\":", Durability::Atomic).unwrap();
        let error = read_json::<serde_json::Value>(&path).unwrap_err();
        assert!(error.to_string().contains("torn"), "{error}");
    }
}

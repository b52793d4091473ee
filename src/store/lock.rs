//! Advisory locks that die with their holder (*flock(2)*).

use super::record::StoreError;
use rustix::fs::FlockOperation;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// An exclusive lock on a file, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

fn open(path: &Path) -> Result<File, StoreError> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(StoreError::io("create directory", parent))?;
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(StoreError::io("open lock", path))
}

impl FileLock {
    /// Waits for the lock.
    ///
    /// # Errors
    /// When the file cannot be opened or locked.
    pub fn acquire(path: &Path) -> Result<Self, StoreError> {
        Self::hold(open(path)?, path)
    }

    /// Waits for the lock of a file that is open already.
    pub(super) fn hold(file: File, path: &Path) -> Result<Self, StoreError> {
        loop {
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(StoreError::io("lock", path)(errno.into())),
                Ok(()) => return Ok(Self { file }),
            }
        }
    }

    /// Waits for the lock of a directory, which leaves no file behind.
    ///
    /// # Errors
    /// When the directory does not exist or cannot be locked.
    pub fn acquire_dir(path: &Path) -> Result<Self, StoreError> {
        Self::hold(File::open(path).map_err(StoreError::io("open", path))?, path)
    }

    /// Takes the lock of a directory if it is free; `None` when somebody else holds it or it is gone.
    ///
    /// # Errors
    /// When the directory cannot be opened.
    pub fn try_acquire_dir(path: &Path) -> Result<Option<Self>, StoreError> {
        match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            other => Ok(Self::try_hold(other.map_err(StoreError::io("open", path))?)),
        }
    }

    /// Takes the lock of a directory together with others if nobody holds it alone; `None` when somebody does or it is gone.
    ///
    /// # Errors
    /// When the directory cannot be opened.
    pub fn try_share_dir(path: &Path) -> Result<Option<Self>, StoreError> {
        match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            other => {
                let file = other.map_err(StoreError::io("open", path))?;
                let taken = rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared);
                Ok(taken.is_ok().then_some(Self { file }))
            }
        }
    }

    /// Lets others share a lock that is held alone. Somebody who wants it alone may come first and is waited for.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn share(&self, path: &Path) -> Result<(), StoreError> {
        loop {
            match rustix::fs::flock(&self.file, FlockOperation::LockShared) {
                Err(rustix::io::Errno::INTR) => continue,
                other => return other.map_err(|errno| StoreError::io("lock", path)(errno.into())),
            }
        }
    }

    /// Tells whether a path still leads to what is locked.
    pub fn is_of(&self, path: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        let place = |found: std::fs::Metadata| (found.dev(), found.ino());
        match (self.file.metadata(), path.metadata()) {
            (Ok(held), Ok(there)) => place(held) == place(there),
            _ => false,
        }
    }

    /// Takes the lock of an open file if it is free; `None` when somebody else holds it.
    pub(super) fn try_hold(file: File) -> Option<Self> {
        let taken = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        taken.is_ok().then_some(Self { file })
    }
}

/// An exclusive lock on one byte of a file, the byte standing for something: any number of things share the file. Held until
/// it is dropped or the process ends (*fcntl(2)*, "Open file description locks").
#[derive(Debug)]
pub struct RangeLock {
    _file: File,
}

impl RangeLock {
    /// Takes the lock of a byte, below 2^63, if it is free; `None` when somebody else holds it, in this process or another.
    ///
    /// # Errors
    /// When the file cannot be opened or locked.
    pub fn try_acquire(path: &Path, byte: u64) -> Result<Option<Self>, StoreError> {
        let file = open(path)?;
        let whole = libc::flock {
            l_type: libc::F_WRLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: i64::try_from(byte).unwrap_or(i64::MAX - 1),
            l_len: 1,
            l_pid: 0,
        };
        match nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_OFD_SETLK(&whole)) {
            Ok(_) => Ok(Some(Self { _file: file })),
            Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(None),
            Err(errno) => Err(StoreError::io("lock", path)(errno.into())),
        }
    }
}

/// Tells whether a living process holds the lock of this file; a file that does not exist is not locked.
pub fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_locked_apart_from_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let take = |byte| RangeLock::try_acquire(&dir.path().join("lock"), byte).unwrap();
        let (held, other) = (take(7), take(1 << 60));
        assert!(held.is_some() && other.is_some());
        assert!(take(7).is_none(), "another descriptor of the same process waits as well");
        drop(held);
        assert!(take(7).is_some());
    }

    #[test]
    fn a_lock_excludes_and_ends_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(!is_locked(&path));
        let held = FileLock::acquire(&path).unwrap();
        assert!(is_locked(&path));
        drop(held);
        assert!(!is_locked(&path));
    }

    #[test]
    fn a_lock_is_shared_by_some_or_held_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let (share, alone) = (|| FileLock::try_share_dir(dir.path()), || FileLock::try_acquire_dir(dir.path()));
        let (one, two) = (share().unwrap(), share().unwrap());
        assert!(one.is_some() && two.is_some() && alone().unwrap().is_none());
        drop((one, two));
        let held = alone().unwrap().unwrap();
        assert!(share().unwrap().is_none() && held.is_of(dir.path()) && !held.is_of(Path::new("/")));
        held.share(dir.path()).unwrap();
        assert!(share().unwrap().is_some() && alone().unwrap().is_none());
        assert!(FileLock::try_share_dir(&dir.path().join("none")).unwrap().is_none());
    }
}

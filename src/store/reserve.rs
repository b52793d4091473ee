//! The store's reserve: room that is given up on a full disk, so that what makes room can write the little it needs.

use super::Paths;
use rustix::fs::{FallocateFlags, fallocate};
use std::error::Error;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Bytes set aside: a lease, a directory for work and a list of a thousand images, with file systems' own blocks.
const SIZE: u64 = 512 << 10;

fn path(paths: &Paths) -> PathBuf {
    paths.root.join("reserve")
}

/// Sets the reserve aside unless it is. Where there is no room, or the file system cannot promise any (*fallocate(2)*), there
/// is none until the next try.
pub fn keep(paths: &Paths) {
    let path = path(paths);
    if std::fs::symlink_metadata(&path).is_ok_and(|found| found.len() >= SIZE) {
        return;
    }
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let kept = file.and_then(|file| Ok(fallocate(file, FallocateFlags::empty(), 0, SIZE)?));
    if kept.is_err() {
        let _ = std::fs::remove_file(&path);
    }
}

/// Gives the reserve up; `false` when there was none.
pub fn give(paths: &Paths) -> bool {
    std::fs::remove_file(path(paths)).is_ok()
}

/// Tells whether an error comes of a full disk or a quota that is used up.
pub fn is_full(error: &(dyn Error + 'static)) -> bool {
    let full = |error: &(dyn Error + 'static)| {
        let kind = error.downcast_ref().map(io::Error::kind);
        matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    };
    let mut next = Some(error);
    while let Some(error) = next {
        if full(error) {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::StoreError;
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    #[test]
    fn the_reserve_is_real_room_and_given_up_once() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { root: dir.path().to_owned(), run: dir.path().to_owned() };
        // What a process that was killed in between left.
        std::fs::File::create(path(&paths)).unwrap();
        keep(&paths);
        assert!(path(&paths).metadata().unwrap().blocks() * 512 >= SIZE);
        keep(&paths);
        assert!(give(&paths) && !give(&paths));
    }

    #[test]
    fn a_full_disk_is_told_from_other_troubles_however_deep_it_lies() {
        for (errno, full) in
            [(rustix::io::Errno::NOSPC, true), (rustix::io::Errno::DQUOT, true), (rustix::io::Errno::IO, false)]
        {
            let error = StoreError::io("write", Path::new("/x"))(errno.into());
            let error = crate::store::NameError::Store(error);
            assert_eq!(is_full(&error), full, "{error}");
        }
    }
}

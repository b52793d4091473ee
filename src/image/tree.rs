//! Walks trees whose content nobody vouches for: by descriptor, inside their root, at any depth; sends them to the disk early.

use crate::sys::fault::{self, Point};
use crate::sys::writeback::start_writeback;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, fstat, openat, openat2, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Depth at which directories are brought up to the top instead of being entered, so that descriptors suffice.
const MAX_DEPTH: usize = 24;

/// Tries after which an open that always meets a rename elsewhere is given up.
const MAX_TRIES: usize = 10_000;

/// Files of at least so many bytes go to the disk as soon as they are complete; the many small ones go in one sweep at the end.
pub(super) const EARLY: u64 = 64 << 10;

/// Starts writing a part of a file to the disk, so that what the sync before the image's record waits for is mostly there. A
/// file system that cannot do so does it all at the end.
pub(super) fn write_back(file: BorrowedFd<'_>, from: u64, to: u64) -> Result<(), Errno> {
    match start_writeback(file, from, to.saturating_sub(from)) {
        Err(errno @ (Errno::IO | Errno::NOSPC | Errno::DQUOT)) => Err(errno),
        _ => Ok(()),
    }
}

/// Opens a path below a directory as if that were the root; the empty path is the directory itself.
///
/// While anything is renamed or mounted anywhere, the kernel answers EAGAIN to a path that needs `..` (*openat2(2)*).
pub(super) fn open_in(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if tries < MAX_TRIES => tries += 1,
            other => return other,
        }
    }
}

/// Removes a file or a whole tree; what is gone already is no error.
pub(super) fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Ok(unlinkat(parent, name, AtFlags::empty())?);
    }
    let top = open(parent, name)?;
    let mut risen = 0u64;
    // Every pass removes all down to MAX_DEPTH and lifts what is deeper into the top directory.
    loop {
        let before = risen;
        clear(&top, top.as_fd(), 0, &mut risen)?;
        if risen == before {
            break;
        }
    }
    Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// Removes the tree at a path of our own; what is gone already is no error.
///
/// # Errors
/// When the system refuses.
pub fn remove_path(path: &std::path::Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    fault::fail(Point::TreeRemove)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(parent, flags, Mode::empty()) {
        Err(Errno::NOENT) => Ok(()),
        other => remove(other?.as_fd(), name.as_encoded_bytes()),
    }
}

fn open(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    Ok(openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

fn clear(directory: &OwnedFd, top: BorrowedFd<'_>, depth: usize, risen: &mut u64) -> io::Result<()> {
    for (name, is_directory) in list(directory)? {
        if !is_directory {
            unlinkat(directory, &name[..], AtFlags::empty())?;
        } else if unlinkat(directory, &name[..], AtFlags::REMOVEDIR) == Ok(()) {
            // It was empty, as most of a container's are.
        } else if depth < MAX_DEPTH {
            let child = open(directory.as_fd(), &name)?;
            clear(&child, top, depth + 1, risen)?;
            unlinkat(directory, &name[..], AtFlags::REMOVEDIR)?;
        } else {
            loop {
                *risen += 1;
                match renameat(directory, &name[..], top, format!(".risen-{risen}")) {
                    Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                    other => break other?,
                }
            }
        }
    }
    Ok(())
}

/// Lists a directory: names, and whether each is a directory itself.
pub(super) fn list(directory: &OwnedFd) -> io::Result<Vec<(Vec<u8>, bool)>> {
    let mut buffer = [MaybeUninit::uninit(); 32 << 10];
    let mut entries = Vec::new();
    rustix::fs::seek(directory, rustix::fs::SeekFrom::Start(0))?;
    let mut iterator = RawDir::new(directory, &mut buffer);
    while let Some(entry) = iterator.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let is_directory = match entry.file_type() {
            FileType::Unknown => {
                let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            }
            kind => kind == FileType::Directory,
        };
        entries.push((name.to_vec(), is_directory));
    }
    Ok(entries)
}

/// Returns the bytes a tree holds on disk by the files' lengths; unreadable parts count as nothing.
pub(super) fn usage(directory: &OwnedFd) -> u64 {
    let mut sum = 0u64;
    let Ok(entries) = list(directory) else { return 0 };
    for (name, is_directory) in entries {
        if is_directory {
            if let Ok(child) = open(directory.as_fd(), &name) {
                sum = sum.saturating_add(usage(&child));
            }
        } else if let Ok(stat) = statat(directory, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
            let links = stat.st_nlink.max(1);
            sum = sum.saturating_add(stat.st_size as u64 / links);
        }
    }
    sum
}

/// Tells whether a descriptor is a directory.
pub(super) fn is_directory(fd: &OwnedFd) -> bool {
    fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_of_any_depth_goes_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("keep")).unwrap();
        std::fs::File::create(dir.path().join("keep/canary")).unwrap();
        std::fs::create_dir(dir.path().join("tree")).unwrap();
        std::os::unix::fs::symlink("../keep", dir.path().join("tree/link")).unwrap();
        let mut at = open(rustix::fs::CWD, dir.path().join("tree").as_os_str().as_encoded_bytes()).unwrap();
        for _ in 0..1500 {
            rustix::fs::mkdirat(&at, "d", Mode::from(0o700)).unwrap();
            at = open(at.as_fd(), b"d").unwrap();
        }
        drop(at);
        remove_path(&dir.path().join("tree")).unwrap();
        assert!(!dir.path().join("tree").exists());
        assert!(dir.path().join("keep/canary").exists());
        remove_path(&dir.path().join("tree")).unwrap();
    }
}

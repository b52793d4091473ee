//! Paths inside a tree, walked by descriptor: nothing resolved here can leave the tree it starts in.

use super::Result;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Attempts of openat2(2) that were disturbed by renames before giving up.
const TRIES: usize = 64;

/// Opens `path` with `root` as its root: absolute links and `..` stay inside; magic links (`/proc/self/fd/3`) fail.
///
/// # Errors
/// `ELOOP` for a magic link; otherwise as openat2(2).
pub fn open_in_root(root: BorrowedFd<'_>, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd> {
    open(root, path.as_ref(), flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Opens `path` below `root` without following any link.
///
/// # Errors
/// `ELOOP` when a part is a link; otherwise as openat2(2).
pub fn open_no_links(root: BorrowedFd<'_>, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd> {
    open(root, path.as_ref(), flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS)
}

fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd> {
    // The kernel asks for a repetition when a rename elsewhere made a `..` step uncertain.
    for _ in 0..TRIES {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// What [`ensure`] makes when nothing is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// An empty file.
    File,
}

/// Opens `path` inside `root` (`O_PATH`), first making what is missing of it: directories 0755, the last part as `kind`.
///
/// Links are followed inside the root; a dangling link is an error, nothing is made behind it.
///
/// # Errors
/// `EEXIST` for a dangling link; otherwise as openat2(2) and mkdirat(2).
pub fn ensure(root: BorrowedFd<'_>, path: impl AsRef<Path>, kind: Kind) -> Result<OwnedFd> {
    let path = path.as_ref();
    match open_in_root(root, path, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::NOENT) };
    let parent = if parent.as_os_str().is_empty() {
        root.try_clone_to_owned().map_err(|_| Errno::MFILE)?
    } else {
        ensure(root, parent, Kind::Directory)?
    };
    match kind {
        Kind::Directory => match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {}
            // Made meanwhile by someone who shares a volume: fine when it is a directory, which the open below checks.
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        },
        Kind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            match rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644)) {
                Ok(_) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
    }
    let flags = if kind == Kind::Directory { OFlags::PATH | OFlags::DIRECTORY } else { OFlags::PATH };
    open_no_links(parent.as_fd(), name, flags).map_err(|e| if e == Errno::LOOP { Errno::EXIST } else { e })
}

/// Reads a regular file inside `root` whole, at most `limit` bytes; never waits (a FIFO is refused, not opened).
///
/// # Errors
/// `EINVAL` when it is not a regular file, `EFBIG` when it is longer; otherwise as openat2(2) and read(2).
pub fn read_regular(root: BorrowedFd<'_>, path: impl AsRef<Path>, limit: usize) -> Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = open_in_root(root, path, flags)?;
    let found = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    if usize::try_from(found.st_size).map_or(true, |size| size > limit) {
        return Err(Errno::FBIG);
    }
    let mut content = Vec::with_capacity(found.st_size as usize + 1);
    let mut chunk = [0u8; 4096];
    loop {
        match rustix::io::read(&file, &mut chunk) {
            Ok(0) => return Ok(content),
            // A file that grows, or one of a file system that lies about sizes.
            Ok(n) if content.len() + n > limit => return Err(Errno::FBIG),
            Ok(n) => content.extend_from_slice(&chunk[..n]),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let fd = rustix::fs::open(dir.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        (dir, fd)
    }

    #[test]
    fn links_stay_inside_the_root() {
        let (dir, fd) = root();
        std::os::unix::fs::symlink("/etc", dir.path().join("abs")).unwrap();
        std::os::unix::fs::symlink("../../../../etc/passwd", dir.path().join("up")).unwrap();
        assert!(open_in_root(fd.as_fd(), "abs/passwd", OFlags::PATH).is_err());
        assert!(read_regular(fd.as_fd(), "up", 1 << 20).is_err());
        ensure(fd.as_fd(), "etc/x", Kind::File).unwrap();
        assert!(open_in_root(fd.as_fd(), "abs/x", OFlags::PATH).is_ok());
        assert_eq!(open_no_links(fd.as_fd(), "abs/x", OFlags::PATH).unwrap_err(), Errno::LOOP);
    }

    #[test]
    fn nothing_is_made_behind_a_dangling_link() {
        let (dir, fd) = root();
        std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
        assert_eq!(ensure(fd.as_fd(), "link", Kind::Directory).unwrap_err(), Errno::EXIST);
        assert_eq!(ensure(fd.as_fd(), "link/below", Kind::Directory).unwrap_err(), Errno::EXIST);
        assert!(!dir.path().join("nowhere").exists());
    }

    #[test]
    fn only_bounded_regular_files_are_read() {
        let (dir, fd) = root();
        rustix::fs::mknodat(&fd, "fifo", FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
        assert_eq!(read_regular(fd.as_fd(), "fifo", 10).unwrap_err(), Errno::INVAL);
        let file = std::fs::File::create(dir.path().join("big")).unwrap();
        file.set_len(1 << 40).unwrap();
        assert_eq!(read_regular(fd.as_fd(), "big", 1 << 20).unwrap_err(), Errno::FBIG);
    }
}

//! Filling a new volume with what the image has at the mount point (*docker docs "Populate a volume using a container"*).
//!
//! The tree is walked by descriptor and symbolic links are copied, never followed: the source is an image's content.

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Directories nested deeper than this are refused.
const MAX_DEPTH: u32 = 200;

/// A volume could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// The system refused.
    #[error("{action} {name:?} while copying the image's content into the volume")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which entry.
        name: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The tree is too deep.
    #[error("the image's content for the volume is nested deeper than {MAX_DEPTH} directories")]
    TooDeep,
}

fn failed(action: &'static str, name: &CStr) -> impl FnOnce(Errno) -> FillError {
    move |errno| FillError::Io { action, name: name.to_string_lossy().into_owned(), source: errno.into() }
}

/// Copies what lies at `target` inside `root` into the directory `data`, owner and mode of the directory included.
///
/// Does nothing when the image has no directory there. Ids are copied as they are on disk.
///
/// # Errors
/// When an entry cannot be read or written.
pub fn fill(root: BorrowedFd<'_>, target: &str, data: &Path) -> Result<(), FillError> {
    let inside = CString::new(target.trim_start_matches('/')).unwrap_or_default();
    let name = if inside.is_empty() { c"." } else { inside.as_c_str() };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let Ok(source) = rustix::fs::openat2(root, name, flags, Mode::empty(), resolve) else { return Ok(()) };
    let destination =
        rustix::fs::openat(CWD, data, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(failed("open", c"_data"))?;
    copy_metadata(source.as_fd(), destination.as_fd(), c"_data")?;
    copy_directory(source, destination.as_fd(), 0)
}

fn copy_directory(source: OwnedFd, destination: BorrowedFd<'_>, depth: u32) -> Result<(), FillError> {
    if depth > MAX_DEPTH {
        return Err(FillError::TooDeep);
    }
    let mut entries =
        Dir::new(rustix::io::dup(&source).map_err(failed("open", c"."))?).map_err(failed("list", c"."))?;
    while let Some(entry) = entries.read() {
        let entry = entry.map_err(failed("list", c"."))?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_entry(source.as_fd(), destination, name, depth)?;
        }
    }
    Ok(())
}

fn copy_entry(source: BorrowedFd<'_>, destination: BorrowedFd<'_>, name: &CStr, depth: u32) -> Result<(), FillError> {
    let stat = rustix::fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("look at", name))?;
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(destination, name, Mode::RWXU).map_err(failed("make directory", name))?;
            let from = rustix::fs::openat(source, name, read | OFlags::DIRECTORY, Mode::empty())
                .map_err(failed("open", name))?;
            let to = rustix::fs::openat(destination, name, read | OFlags::DIRECTORY, Mode::empty())
                .map_err(failed("open", name))?;
            copy_metadata(from.as_fd(), to.as_fd(), name)?;
            copy_directory(from, to.as_fd(), depth + 1)
        }
        FileType::RegularFile => {
            let from = rustix::fs::openat(source, name, read, Mode::empty()).map_err(failed("open", name))?;
            let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let to = rustix::fs::openat(destination, name, create, Mode::RUSR | Mode::WUSR)
                .map_err(failed("create", name))?;
            let (mut from, mut to) = (File::from(from), File::from(to));
            std::io::copy(&mut from, &mut to).map_err(|source| FillError::Io {
                action: "copy",
                name: name.to_string_lossy().into_owned(),
                source,
            })?;
            copy_metadata(from.as_fd(), to.as_fd(), name)
        }
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(source, name, Vec::new()).map_err(failed("read link", name))?;
            rustix::fs::symlinkat(&link, destination, name).map_err(failed("make link", name))?;
            let (uid, gid) = owner(&stat);
            rustix::fs::chownat(destination, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(failed("change owner of", name))
        }
        FileType::Fifo => {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            rustix::fs::mknodat(destination, name, FileType::Fifo, mode, 0).map_err(failed("make fifo", name))?;
            let (uid, gid) = owner(&stat);
            rustix::fs::chownat(destination, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(failed("change owner of", name))
        }
        // Sockets are leftovers and device nodes never come out of an image.
        _ => Ok(()),
    }
}

fn owner(stat: &rustix::fs::Stat) -> (Option<rustix::fs::Uid>, Option<rustix::fs::Gid>) {
    (Some(rustix::fs::Uid::from_raw(stat.st_uid)), Some(rustix::fs::Gid::from_raw(stat.st_gid)))
}

/// Copies owner, mode, times and `user.*` attributes; the mode comes after the owner, which clears set-uid bits.
fn copy_metadata(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<(), FillError> {
    let stat = rustix::fs::fstat(from).map_err(failed("look at", name))?;
    let (uid, gid) = owner(&stat);
    rustix::fs::fchown(to, uid, gid).map_err(failed("change owner of", name))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(failed("change mode of", name))?;
    let time = |sec, nsec| rustix::fs::Timespec { tv_sec: sec, tv_nsec: nsec as _ };
    let times = rustix::fs::Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    rustix::fs::futimens(to, &times).map_err(failed("set times of", name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn content_owner_and_links_are_copied_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (root, data) = (dir.path().join("root"), dir.path().join("data"));
        std::fs::create_dir_all(root.join("srv/sub")).unwrap();
        std::fs::create_dir(&data).unwrap();
        std::fs::create_dir(dir.path().join("secret")).unwrap();
        File::create(dir.path().join("secret/canary")).unwrap();
        File::create(root.join("srv/sub/file")).unwrap();
        std::fs::set_permissions(root.join("srv/sub/file"), std::fs::Permissions::from_mode(0o640)).unwrap();
        symlink("../../../secret", root.join("srv/out")).unwrap();
        symlink("/srv", root.join("alias")).unwrap();
        let fd = File::open(&root).unwrap();
        fill(fd.as_fd(), "/alias", &data).unwrap();
        assert_eq!(data.join("sub/file").metadata().unwrap().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_link(data.join("out")).unwrap(), Path::new("../../../secret"));
        fill(fd.as_fd(), "/missing", &data).unwrap();
    }

    #[test]
    fn a_link_at_the_mount_point_cannot_lead_out_of_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let (root, data) = (dir.path().join("root"), dir.path().join("data"));
        std::fs::create_dir(&root).unwrap();
        std::fs::create_dir(&data).unwrap();
        std::fs::create_dir(dir.path().join("secret")).unwrap();
        File::create(dir.path().join("secret/canary")).unwrap();
        symlink("../secret", root.join("srv")).unwrap();
        symlink(dir.path().join("secret"), root.join("abs")).unwrap();
        let fd = File::open(&root).unwrap();
        for target in ["/srv", "/abs", "/../secret"] {
            fill(fd.as_fd(), target, &data).unwrap();
        }
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
    }
}

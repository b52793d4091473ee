//! Owners, modes, attributes and times of what was unpacked.

use super::extract::{Extractor, Step, failed, split};
use crate::image::tar::{Entry, Kind};
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown, fsetxattr, futimens,
    openat, utimensat,
};
use rustix::io::Errno;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

impl<R: Read, W: Write> Extractor<R, W> {
    /// Notes a directory's time for the end, and sets the rest.
    pub(super) fn directory_metadata(&mut self, path: &[u8], entry: &Entry) -> Step<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (parent, name) = if path.is_empty() { (&self.root, &b"."[..]) } else { (self.parent_fd(), split(path).1) };
        let fd = openat(parent, name, flags, Mode::empty()).map_err(failed(entry, "open directory"))?;
        self.directories.push((path.to_vec(), entry.mtime));
        self.open_metadata(entry, path, &fd)
    }

    /// Sets owner, mode, attributes and time of what is open. Owner first: changing it drops set-id bits.
    pub(super) fn open_metadata(&mut self, entry: &Entry, path: &[u8], fd: &OwnedFd) -> Step<()> {
        let (uid, gid) = ids(entry);
        if entry.kind == Kind::Directory || entry.uid != 0 || entry.gid != 0 {
            fchown(fd, Some(uid), Some(gid)).map_err(failed(entry, "set owner"))?;
        }
        fchmod(fd, Mode::from(entry.mode)).map_err(failed(entry, "set mode"))?;
        for (name, value) in &entry.xattrs {
            match attribute(name) {
                Attribute::Set => match fsetxattr(fd, &name[..], value, XattrFlags::empty()) {
                    // Some programs write attributes that the file system does not know; Docker skips them too.
                    Ok(()) | Err(Errno::NOTSUP) => {}
                    Err(errno) => return Err(failed(entry, "set attribute")(errno)),
                },
                Attribute::Capability if entry.kind == Kind::File => {
                    self.report.capabilities.push((path.to_vec(), value.clone()));
                }
                _ => {}
            }
        }
        futimens(fd, &times(entry.mtime)).map_err(failed(entry, "set time"))
    }

    /// Sets owner and time of a link or pipe by name.
    pub(super) fn plain_metadata(&mut self, entry: &Entry, name: &[u8]) -> Step<()> {
        let (uid, gid) = ids(entry);
        chownat(self.parent_fd(), name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed(entry, "set owner"))?;
        utimensat(self.parent_fd(), name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed(entry, "set time"))
    }
}

enum Attribute {
    Set,
    Capability,
    Skip,
}

/// Sorts attributes: `trusted.*` and the overlay's own steer the kernel and never come from an archive.
fn attribute(name: &[u8]) -> Attribute {
    match name {
        b"security.capability" => Attribute::Capability,
        b"system.posix_acl_access" | b"system.posix_acl_default" => Attribute::Set,
        _ if name.contains(&0) || name.len() > 255 || name.starts_with(b"user.overlay.") => Attribute::Skip,
        _ if name.starts_with(b"user.") => Attribute::Set,
        _ => Attribute::Skip,
    }
}

/// Returns the owner and group of an entry, whose range was checked.
fn ids(entry: &Entry) -> (Uid, Gid) {
    (Uid::from_raw(entry.uid as u32), Gid::from_raw(entry.gid as u32))
}

/// Spells a modification time for *utimensat(2)*.
pub(super) fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanos) };
    Timestamps { last_access: time, last_modification: time }
}

//! What is in a file: its bytes and the attributes that come along.

use super::progress::Progress;
use rustix::fs::{XattrFlags, copy_file_range, fgetxattr, flistxattr, fsetxattr};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

/// Files of at most so many bytes are copied through memory.
const SMALL: u64 = 256 << 10;
/// Bytes of a larger one that are copied before that is told.
const PART: u64 = 8 << 20;

/// Copies a file of at most [`SMALL`] bytes: one read and one write, where asking the kernel to copy costs more calls than
/// that and is refused anyway between a directory and an overlay.
fn copy_small(source: &OwnedFd, target: &OwnedFd, size: u64) -> io::Result<()> {
    let mut content = vec![0; size as usize];
    let mut filled = 0;
    while filled < content.len() {
        match rustix::io::read(source, &mut content[filled..]) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the source became shorter")),
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let mut left = &content[..];
    while !left.is_empty() {
        match rustix::io::write(target, left) {
            Ok(count) => left = &left[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Copies inside the kernel where it can, else through a buffer.
pub(super) fn copy_content(source: &OwnedFd, target: &OwnedFd, size: u64, progress: &Progress<'_>) -> io::Result<()> {
    if size <= SMALL {
        copy_small(source, target, size)?;
        progress.add(size);
        return Ok(());
    }
    let shorter = || io::Error::new(io::ErrorKind::UnexpectedEof, "the source became shorter");
    let mut left = size;
    while left > 0 {
        let part = left.min(PART);
        match copy_file_range(source, None, target, None, part as usize) {
            Ok(0) => return Err(shorter()),
            Ok(n) => {
                left -= n as u64;
                progress.add(n as u64);
            }
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM) => {
                let (source, target) = (rustix::io::dup(source)?, rustix::io::dup(target)?);
                if io::copy(&mut File::from(source).take(part), &mut File::from(target))? != part {
                    return Err(shorter());
                }
                left -= part;
                progress.add(part);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Copies `user.*` and file capabilities; the latter not when the owner changes, as `chown` drops them.
pub(super) fn copy_attributes(source: &OwnedFd, target: &OwnedFd, owner_changes: bool) -> Result<(), Errno> {
    for (name, value) in attributes(source)? {
        if name.starts_with(b"user.") || !owner_changes {
            fsetxattr(target, &name[..], &value, XattrFlags::empty())?;
        }
    }
    Ok(())
}

/// Name and value of an extended attribute.
pub(super) type Attribute = (Vec<u8>, Vec<u8>);

/// Reads the attributes that come along: `user.*` and file capabilities.
pub(super) fn attributes(source: &OwnedFd) -> Result<Vec<Attribute>, Errno> {
    let mut list = vec![0u8; 64 * 1024];
    let length = match flistxattr(source, &mut list[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    };
    let mut found = Vec::new();
    for name in list[..length].split(|b| *b == 0) {
        if name.starts_with(b"user.") || name == b"security.capability" {
            let mut value = vec![0u8; 64 * 1024];
            let length = fgetxattr(source, name, &mut value[..])?;
            value.truncate(length);
            found.push((name.to_vec(), value));
        }
    }
    Ok(found)
}

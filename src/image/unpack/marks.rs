//! What only the host may set on an unpacked tree, done by descriptor from the unpacker's report.

use super::report::Report;
use super::{UnpackError, failed, printable};
use crate::image::tree::open_in;
use rustix::fs::{OFlags, XattrFlags, fsetxattr};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::BorrowedFd;

/// Sets what only the host may set, on what the report names, wherever that is a file of the right type in the tree.
pub(super) fn finish_tree(tree: BorrowedFd<'_>, report: &Report) -> Result<(), UnpackError> {
    for path in &report.opaque {
        match open_in(tree, path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::DIRECTORY) {
            Ok(fd) => fsetxattr(fd, "trusted.overlay.opaque", b"y", XattrFlags::empty())
                .map_err(|e| failed("mark a directory opaque")(e.into()))?,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(failed("open an opaque directory")(errno.into())),
        }
    }
    for (path, value) in &report.capabilities {
        let Some(value) = plain_capability(value) else {
            return Err(UnpackError::Refused(printable(&format!(
                "entry {:?}: malformed file capability",
                String::from_utf8_lossy(path)
            ))));
        };
        match open_in(tree, path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK) {
            Ok(fd)
                if File::from(fd.try_clone().map_err(failed("open a file"))?).metadata().is_ok_and(|m| m.is_file()) =>
            {
                fsetxattr(fd, "security.capability", &value, XattrFlags::empty())
                    .map_err(|e| failed("set a file capability")(e.into()))?;
            }
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => {}
            Err(errno) => return Err(failed("open a file")(errno.into())),
        }
    }
    Ok(())
}

/// Brings a capability attribute into version 2, which names no root user; `None` when it has no known form (*capabilities(7)*).
fn plain_capability(value: &[u8]) -> Option<Vec<u8>> {
    let magic = u32::from_le_bytes(*value.first_chunk()?);
    match (magic >> 24, value.len()) {
        (2, 20) => Some(value.to_vec()),
        (3, 24) => {
            let magic = (magic & 0x00ff_ffff) | (2 << 24);
            Some([&magic.to_le_bytes()[..], &value[4..20]].concat())
        }
        _ => None,
    }
}

//! A layer once more, on top of others: the same files under another chain id, as hard links, so that nothing is copied.

use super::error::{ImageError, Result};
use super::import::{layer_of, open_directory};
use super::index::{Layer, next_chain_id};
use super::ingest::Ingest;
use super::snapshot::LayerMeta;
use super::store::Images;
use crate::base::Digest;
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, fchmod, fchown, fgetxattr,
    flistxattr, fsetxattr, fstat, futimens, linkat, mkdirat, openat, statat,
};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};

/// Deepest directory of a layer that is put elsewhere; each level holds two descriptors.
const MAX_DEPTH: usize = 400;

impl Images {
    /// Puts a layer that is here on top of `parent` as well. Its files are shared: layers are never written to.
    ///
    /// # Errors
    /// When there is no such layer, or the system refuses; nothing is left then.
    pub fn rebase_layer(&self, chain_id: &Digest, parent: &Digest) -> Result<Layer> {
        let gone = || ImageError::NotFound(format!("layer {chain_id}"));
        let meta = self.snapshots().layer(chain_id)?.ok_or_else(gone)?;
        let target = next_chain_id(Some(parent), &meta.diff_id);
        if let Some(there) = self.snapshots().layer(&target)? {
            return Ok(layer_of(&there));
        }
        let ingest = Ingest::begin(&self.paths)?;
        let (from, to) = (self.snapshots().directory(chain_id.hex()), ingest.layer()?);
        let failed = |errno: Errno| ImageError::io("link the files of layer", &from)(errno.into());
        let (files, copy) = (open_directory(&from.join("fs"))?, open_directory(&to.join("fs"))?);
        link_tree(files.as_fd(), copy.as_fd(), 0).map_err(failed)?;
        let (from_dir, to_dir) = (open_directory(&from)?, open_directory(&to)?);
        // Which of them there is depends on the archive that the layer came from.
        for name in ["split", "tar.zst"] {
            match linkat(&from_dir, name, &to_dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        let meta = LayerMeta { chain_id: target, parent: Some(parent.clone()), ..meta };
        let layer = layer_of(&meta);
        self.snapshots().put(&to, meta)?;
        Ok(layer)
    }
}

/// Makes a directory's content again below another: directories anew, everything else as a further link.
fn link_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> Result<(), Errno> {
    if depth > MAX_DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            let below = openat(to, name, flags, Mode::empty())?;
            link_tree(openat(from, name, flags, Mode::empty())?.as_fd(), below.as_fd(), depth + 1)?;
        } else {
            linkat(from, name, to, name, AtFlags::empty())?;
        }
    }
    // Last: what is made in a directory changes its time.
    same(from, to)
}

/// Gives a directory the owner, mode, attributes and time of another.
fn same(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let stat = fstat(from)?;
    fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut names = vec![0u8; 64 << 10];
    let length = match flistxattr(from, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0u8; 64 << 10];
        let length = fgetxattr(from, name, &mut value[..])?;
        fsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    let time = |seconds, nanos| Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as i64),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as i64),
    };
    futimens(to, &times)
}

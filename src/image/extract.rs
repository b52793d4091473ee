//! Unpacking an archive that is no layer (`ADD`): into a directory of its own, in the same jail.

use super::error::{ImageError, Result};
use super::import::{create, magic, open_directory, sniff};
use super::ingest::Ingest;
use super::store::Images;
use super::tar::is_tar;
use super::unpack::{Compression, Limits, Source, beginning, unpack};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The files of an archive; removed when dropped.
#[derive(Debug)]
pub struct Extracted {
    root: OwnedFd,
    path: PathBuf,
    _ingest: Ingest,
}

impl Extracted {
    /// Returns the directory they lie in.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Returns its path, for programs that are given one.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Images {
    /// Makes an empty directory for work of this process; what a killed one leaves goes with the next work on layers.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn workspace(&self) -> Result<Extracted> {
        let ingest = Ingest::begin(&self.paths)?;
        let path = ingest.layer()?.join("fs");
        Ok(Extracted { root: open_directory(&path)?, path, _ingest: ingest })
    }

    /// Unpacks a tar, plain or compressed with gzip, zstd, bzip2 or xz; owners are the archive's.
    ///
    /// # Errors
    /// When the archive is damaged or refused, or the store cannot be written; nothing is left then.
    pub fn extract(&self, archive: &File) -> Result<Extracted> {
        let ingest = Ingest::begin(&self.paths)?;
        let mut head = Vec::new();
        let source = sniff(archive, &mut head)?;
        let directory = ingest.layer()?;
        let split = create(&directory.join("split"))?;
        let path = directory.join("fs");
        let root = open_directory(&path)?;
        unpack(source, Compression::of(&magic(source)?), root.as_fd(), &split, Limits::default())?;
        Ok(Extracted { root, path, _ingest: ingest })
    }

    /// Tells whether a file, not a pipe, is an archive that [`Self::extract`] takes. Its content is judged, not its name; what is
    /// compressed is looked into by an unprivileged process. A damaged stream is no archive, as in Docker.
    ///
    /// # Errors
    /// When it cannot be read, or the process cannot be started.
    pub fn is_archive(&self, file: &File) -> Result<bool> {
        let mut head = Vec::new();
        let source = sniff(file, &mut head)?;
        let Source::Region { offset, length, .. } = source else { return Ok(false) };
        let compression = Compression::of(&magic(source)?);
        let head = match compression {
            Compression::None => {
                let mut head = vec![0; usize::try_from(length.min(HEAD as u64)).unwrap_or(HEAD)];
                file.read_exact_at(&mut head, offset).map_err(ImageError::stream("read"))?;
                head
            }
            _ => beginning(source, compression, HEAD)?,
        };
        Ok(is_tar(&head))
    }
}

/// Bytes that tell a tar.
const HEAD: usize = 512;

/// Tells by its first 512 bytes whether something is, or may be, an archive: compressed, or a tar.
pub fn may_be_archive(head: &[u8]) -> bool {
    Compression::of(head) != Compression::None || is_tar(&head[..head.len().min(HEAD)])
}

//! Unpacking an archive that is no layer (`ADD`): into a directory of its own, in the same jail.

use super::error::{ImageError, Result};
use super::import::{create, magic, open_directory, sniff};
use super::ingest::Ingest;
use super::store::Images;
use super::unpack::{Compression, Limits, unpack};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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

    /// Unpacks a tar, plain or compressed with gzip or zstd; owners are the archive's.
    ///
    /// # Errors
    /// When the archive is damaged or refused, or the store cannot be written; nothing is left then.
    pub fn extract(&self, archive: &File) -> Result<Extracted> {
        let ingest = Ingest::begin(&self.paths)?;
        let mut head = Vec::new();
        let source = sniff(archive, &mut head)?;
        let magic = magic(source)?;
        if magic.starts_with(b"BZh") || magic.starts_with(b"\xfd7zXZ") {
            return Err(ImageError::Invalid {
                document: "archive".to_owned(),
                what: "is compressed with bzip2 or xz; gzip, zstd and plain tars are unpacked",
            });
        }
        let directory = ingest.layer()?;
        let split = create(&directory.join("split"))?;
        let path = directory.join("fs");
        let root = open_directory(&path)?;
        unpack(source, Compression::of(&magic), root.as_fd(), &split, Limits::default())?;
        Ok(Extracted { root, path, _ingest: ingest })
    }
}

//! Taking layers in: one layer of an image, or a whole root file system as an image of one layer.

use super::error::{ImageError, Result};
use super::index::{Layer, next_chain_id};
use super::ingest::Ingest;
use super::snapshot::LayerMeta;
use super::store::{Image, Images};
use super::unpack::{Compression, Limits, Source, Unpacked, copy_tar, unpack};
use super::{diff, tree};
use crate::base::{Digest, Timestamp};
use crate::oci::{ContainerConfig, History, ImageConfig, Platform, Reference};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How an imported root file system becomes an image.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Its name.
    pub reference: Option<Reference>,
    /// `--message`, or where it came from (`Imported from -`).
    pub message: String,
    /// What containers of it run with, `--change` already applied.
    pub config: ContainerConfig,
    /// Its platform; `None` is this machine's.
    pub platform: Option<Platform>,
}

/// What a layer must be, where it is known beforehand.
#[derive(Clone, Copy, Default)]
pub(super) struct Expected<'a> {
    /// Digest of the uncompressed tar.
    pub(super) diff_id: Option<&'a Digest>,
    /// Digest of the bytes as they lie in the archive.
    pub(super) blob: Option<&'a Digest>,
}

impl Images {
    /// Takes in a root file system: a tar, plain or compressed with gzip, zstd, bzip2 or xz.
    ///
    /// # Errors
    /// When the archive is damaged or refused, or the store cannot be written; nothing is left then.
    pub fn import(&self, archive: &File, options: &ImportOptions) -> Result<Image> {
        let ingest = Ingest::begin(&self.paths)?;
        let mut head = Vec::new();
        let source = sniff(archive, &mut head)?;
        let layer = self.ingest_layer(&ingest, source, None, Expected::default())?;
        let chain = [layer.chain_id.clone()];
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let created = Some(Timestamp::now());
        let config = ImageConfig {
            architecture: platform.architecture,
            os: platform.os,
            variant: platform.variant,
            comment: options.message.clone(),
            config: options.config.clone(),
            created,
            history: vec![History { created, comment: options.message.clone(), ..History::default() }],
            ..ImageConfig::default()
        };
        let references: Vec<Reference> = options.reference.iter().cloned().collect();
        self.create_image(config, &[layer], &references)
            .inspect_err(|_| drop(self.remove_unused_layers(&chain, &ingest, &|| Ok(Vec::new()))))
    }

    /// Unpacks a layer, checks it, and puts it on top of `parent`; one that is there already is not unpacked again.
    pub(super) fn ingest_layer(
        &self,
        ingest: &Ingest,
        source: Source<'_>,
        parent: Option<&Digest>,
        expected: Expected<'_>,
    ) -> Result<Layer> {
        if let Some(diff_id) = expected.diff_id
            && let Some(meta) = self.snapshots.layer(&next_chain_id(parent, diff_id))?
        {
            return Ok(layer_of(&meta));
        }
        let directory = ingest.layer()?;
        let split = create(&directory.join("split"))?;
        let tree = open_directory(&directory.join("fs"))?;
        let compression = Compression::of(&magic(source)?);
        let mut unpacked = unpack(source, compression, tree.as_fd(), &split, Limits::default())?;
        check("layer", expected.blob, unpacked.source_digest.as_ref())?;
        check("uncompressed layer", expected.diff_id, Some(&unpacked.diff_id))?;
        if !unpacked.exact {
            self.keep_tar(&directory, source, compression, &mut unpacked)?;
        }
        self.place_layer(&directory, parent, unpacked)
    }

    /// Puts an unpacked layer in place.
    pub(super) fn place_layer(&self, directory: &Path, parent: Option<&Digest>, unpacked: Unpacked) -> Result<Layer> {
        let meta = LayerMeta {
            chain_id: next_chain_id(parent, &unpacked.diff_id),
            diff_id: unpacked.diff_id,
            parent: parent.cloned(),
            tar_size: unpacked.tar_size,
            size: unpacked.size,
            exact: unpacked.exact,
            devices: unpacked.devices,
        };
        let layer = layer_of(&meta);
        self.snapshots.put(directory, meta)?;
        Ok(layer)
    }

    /// For an archive that overwrites its own entries: keeps the tar itself when it can be read again, else makes the layer
    /// one of what was unpacked, under the digest of that.
    fn keep_tar(
        &self,
        directory: &Path,
        source: Source<'_>,
        compression: Compression,
        unpacked: &mut Unpacked,
    ) -> Result<()> {
        if let Source::Region { .. } = source {
            let path = directory.join("tar.zst");
            let encoder = zstd::Encoder::new(create(&path)?, 1).map_err(ImageError::io("compress", &path))?;
            let mut encoder = encoder;
            let found = copy_tar(source, compression, &mut encoder)?;
            encoder.finish().map_err(ImageError::io("write", &path))?;
            return check("layer read again", Some(&unpacked.diff_id), Some(&found));
        }
        let made = self.record_diff(directory, &diff::Options::default())?;
        (unpacked.diff_id, unpacked.tar_size, unpacked.exact) = (made.diff_id, made.tar_size, true);
        Ok(())
    }

    /// Writes the split form of a directory's `fs` and returns the digest of its tar.
    fn record_diff(&self, directory: &Path, options: &diff::Options) -> Result<diff::Diff> {
        let split = create(&directory.join("split"))?;
        let tree = open_directory(&directory.join("fs"))?;
        diff::record(&tree, split, options).map_err(ImageError::io("read layer", directory))
    }

    /// Makes the upper directory of a writable snapshot a layer on top of its parents: a rename, nothing is copied.
    ///
    /// The snapshot is gone afterwards, also when the same layer was there already.
    ///
    /// # Errors
    /// When there is no such snapshot, or the system refuses; the snapshot is then still there.
    pub fn commit_layer(&self, key: &str, options: &diff::Options) -> Result<Layer> {
        let active = self.snapshots.mounts(key)?;
        let directory = self.snapshots.directory(key);
        let made = self.record_diff(&directory, options)?;
        let parent = active.lowers.first().and_then(|lower| lower.parent()).and_then(|key| key.to_str());
        let parent = parent.and_then(|hex| Digest::from_hex(hex).ok());
        let meta = LayerMeta {
            chain_id: next_chain_id(parent.as_ref(), &made.diff_id),
            diff_id: made.diff_id,
            parent,
            tar_size: made.tar_size,
            size: made.size,
            exact: true,
            devices: Vec::new(),
        };
        let layer = layer_of(&meta);
        self.snapshots.put(&directory, meta)?;
        Ok(layer)
    }

    /// Makes a layer of a tar (plain or compressed) on top of `parent`, which no image names yet.
    #[cfg(test)]
    pub(super) fn layer_from_tar(&self, archive: &File, parent: Option<&Digest>) -> Result<Layer> {
        let ingest = Ingest::begin(&self.paths)?;
        let mut head = Vec::new();
        let source = sniff(archive, &mut head)?;
        self.ingest_layer(&ingest, source, parent, Expected::default())
    }

    /// Makes a layer of a copy of a writable snapshot's upper directory, which stays as it is (`commit` of a container).
    ///
    /// # Errors
    /// When there is no such snapshot or the system refuses.
    pub fn copy_layer(&self, key: &str, options: &diff::Options) -> Result<Layer> {
        let active = self.snapshots.mounts(key)?;
        let ingest = Ingest::begin(&self.paths)?;
        let path = ingest.fresh();
        let mut tar = create(&path)?;
        let tree = open_directory(&active.store.join(&active.upper))?;
        diff::write(&tree, &[], &mut tar, options).map_err(ImageError::io("read container's files", &path))?;
        tar.rewind().map_err(ImageError::io("rewind", &path))?;
        let parent = active.lowers.first().and_then(|lower| lower.parent()).and_then(|key| key.to_str());
        let parent = parent.and_then(|hex| Digest::from_hex(hex).ok());
        let length = tar.metadata().map_err(ImageError::io("look at", &path))?.len();
        let source = Source::Region { file: &tar, offset: 0, length };
        self.ingest_layer(&ingest, source, parent.as_ref(), Expected::default())
    }
}

/// Turns a layer's record into what images list.
pub(super) fn layer_of(meta: &LayerMeta) -> Layer {
    Layer { diff_id: meta.diff_id.clone(), chain_id: meta.chain_id.clone(), size: meta.size, tar_size: meta.tar_size }
}

pub(super) fn check(what: &str, expected: Option<&Digest>, found: Option<&Digest>) -> Result<()> {
    match (expected, found) {
        (Some(expected), Some(found)) if expected != found => {
            Err(ImageError::Digest { what: what.to_owned(), expected: expected.clone(), found: found.clone() })
        }
        _ => Ok(()),
    }
}

/// Makes a source of a file from its present position, or of a pipe with the first bytes read.
pub(super) fn sniff<'a>(archive: &'a File, head: &'a mut Vec<u8>) -> Result<Source<'a>> {
    let mut position = archive;
    if let Some((offset, length)) = region(archive)? {
        return Ok(Source::Region { file: archive, offset, length });
    }
    while head.len() < 6 {
        let mut bytes = [0; 6];
        let wanted = 6 - head.len();
        match position.read(&mut bytes[..wanted]) {
            Ok(0) => break,
            Ok(count) => head.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ImageError::stream("read")(error)),
        }
    }
    Ok(Source::Stream { file: archive, head, length: None })
}

/// Returns position and remaining length of a file that can be read at any place; `None` for pipes.
fn region(mut archive: &File) -> Result<Option<(u64, u64)>> {
    let metadata = archive.metadata().map_err(ImageError::stream("look at"))?;
    if !metadata.is_file() {
        return Ok(None);
    }
    let offset = archive.stream_position().map_err(ImageError::stream("find the position in"))?;
    Ok(Some((offset, metadata.len().saturating_sub(offset))))
}

/// Returns the first bytes of a source.
pub(super) fn magic(source: Source<'_>) -> Result<Vec<u8>> {
    match source {
        Source::Stream { head, .. } => Ok(head.to_vec()),
        Source::Region { file, offset, length } => {
            let mut bytes = vec![0; usize::try_from(length.min(6)).unwrap_or(6)];
            file.read_exact_at(&mut bytes, offset).map_err(ImageError::stream("read"))?;
            Ok(bytes)
        }
    }
}

pub(super) fn create(path: &Path) -> Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
    file.map_err(ImageError::io("create", path))
}

pub(super) fn open_directory(path: &Path) -> Result<std::os::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| ImageError::io("open", path)(e.into()))?;
    debug_assert!(tree::is_directory(&fd));
    Ok(fd)
}

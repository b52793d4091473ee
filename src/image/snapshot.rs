//! Snapshots: committed layers and the writable trees on top of them.
//!
//! `snapshots/<key>/{meta.json,fs,work}`; the key of a committed layer is the hexadecimal part of its chain id, other keys
//! are chosen by the caller (a container's id). Ids on disk are plain. A layer is only ever put in place by a rename.

use super::error::{ImageError, Result};
use super::index::Index;
use super::tree;
use crate::base::{Digest, Timestamp};
use crate::store::{Durability, Paths, StoreError, read_json, write_json};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Most layers of an image (`OVL_MAX_STACK` of overlayfs is 500, the upper one among them).
pub(super) const MAX_LAYERS: usize = 499;

/// What is known of a committed layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerMeta {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Digest of the stack up to here.
    pub chain_id: Digest,
    /// The layer below.
    pub parent: Option<Digest>,
    /// Length of the uncompressed tar in bytes.
    pub tar_size: u64,
    /// Bytes of file content.
    pub size: u64,
    /// Whether `split` gives the tar back; else `tar.zst` holds it whole.
    pub exact: bool,
    /// Device nodes of the archive that were left out, some of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
}

/// `meta.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Meta {
    /// A committed layer.
    Layer(LayerMeta),
    /// A writable tree.
    Active {
        /// Layers below it, bottom first.
        chain: Vec<Digest>,
        /// When it was prepared.
        created: Timestamp,
    },
}

/// A record with the version of its form.
#[derive(Serialize, Deserialize)]
struct Record {
    schema: u32,
    #[serde(flatten)]
    meta: Meta,
}

/// A writable snapshot, ready to be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    /// Directory that holds all snapshots; the other paths are relative to it.
    pub store: PathBuf,
    /// Lower directories, top-most first.
    pub lowers: Vec<PathBuf>,
    /// Upper directory.
    pub upper: PathBuf,
    /// Work directory.
    pub work: PathBuf,
}

/// Keeps the snapshots.
#[derive(Clone, Debug)]
pub struct Snapshotter {
    store: PathBuf,
    paths: Paths,
}

impl Snapshotter {
    /// Opens the snapshotter of a store.
    pub fn new(paths: &Paths) -> Self {
        Self { store: paths.snapshots(), paths: paths.clone() }
    }

    /// Returns a snapshot's directory.
    pub(super) fn directory(&self, key: &str) -> PathBuf {
        self.store.join(key)
    }

    /// Makes a writable snapshot on top of an image or of layers (chain ids, bottom first).
    ///
    /// # Errors
    /// When the key is no plain name or taken, a layer is missing, or the system refuses; nothing is left then.
    pub fn prepare(&self, key: &str, parent: impl AsRef<[Digest]>) -> Result<Active> {
        check_key(key)?;
        let chain = parent.as_ref();
        let active = self.active(key, chain);
        // Under the lock that removals hold: a layer seen here is in use before anybody can find it unused.
        let _lock = Index::lock(&self.paths)?;
        for lower in &active.lowers {
            let path = self.store.join(lower);
            if !path.is_dir() {
                return Err(ImageError::NotFound(format!("layer {}", path.display())));
            }
        }
        let directory = self.directory(key);
        // The record comes first: a snapshot without one is what an interrupted prepare leaves, and may be collected.
        make_directory(&self.store, 0o700, true)?;
        make_directory(&directory, 0o700, false)?;
        let make = || {
            let meta = Meta::Active { chain: chain.to_vec(), created: Timestamp::now() };
            write_meta(&directory, meta, Durability::Atomic)?;
            make_directory(&directory.join("fs"), 0o755, false)?;
            make_directory(&directory.join("work"), 0o700, false)
        };
        make().inspect_err(|_| {
            let _ = tree::remove_path(&directory);
        })?;
        Ok(active)
    }

    fn active(&self, key: &str, chain: &[Digest]) -> Active {
        Active {
            store: self.store.clone(),
            lowers: chain.iter().rev().map(|id| Path::new(id.hex()).join("fs")).collect(),
            upper: Path::new(key).join("fs"),
            work: Path::new(key).join("work"),
        }
    }

    /// Returns the mounts of a writable snapshot made earlier.
    ///
    /// # Errors
    /// When there is none of that key.
    pub fn mounts(&self, key: &str) -> Result<Active> {
        check_key(key)?;
        match self.meta(key)? {
            Meta::Active { chain, .. } => Ok(self.active(key, &chain)),
            Meta::Layer(_) => Err(ImageError::NotFound(format!("writable snapshot {key}"))),
        }
    }

    /// Reads a snapshot's record.
    pub(super) fn meta(&self, key: &str) -> Result<Meta> {
        let record: Record = read_json(&self.directory(key).join("meta.json"))?;
        Ok(record.meta)
    }

    /// Returns what is known of a committed layer; `None` when it is not here.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn layer(&self, chain_id: &Digest) -> Result<Option<LayerMeta>> {
        match self.meta(chain_id.hex()) {
            Ok(Meta::Layer(meta)) => Ok(Some(meta)),
            Ok(Meta::Active { .. }) => Ok(None),
            Err(ImageError::Store(error)) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts a finished layer in place: the directory (with `fs` and its tar's record) is renamed to the chain id.
    ///
    /// The directory may be an active snapshot's or one of an ingest. A layer that is there already is kept, and the
    /// directory removed.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn put(&self, directory: &Path, meta: LayerMeta) -> Result<()> {
        make_directory(&self.store, 0o700, true)?;
        let target = self.directory(meta.chain_id.hex());
        tree::remove_path(&directory.join("work")).map_err(ImageError::io("remove", directory))?;
        // The image record that names the layer is synced, and with it the journal that holds this rename.
        write_meta(directory, Meta::Layer(meta), Durability::Atomic)?;
        match std::fs::rename(directory, &target) {
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::DirectoryNotEmpty | std::io::ErrorKind::AlreadyExists
                ) =>
            {
                tree::remove_path(directory).map_err(ImageError::io("remove", directory))
            }
            other => other.map_err(ImageError::io("commit snapshot", &target)),
        }
    }

    /// Removes a writable snapshot; one that is not there is no error.
    ///
    /// # Errors
    /// When the key names a layer, or the system refuses.
    pub fn remove(&self, key: &str) -> Result<()> {
        check_key(key)?;
        if matches!(self.meta(key), Ok(Meta::Layer(_))) {
            return Err(ImageError::Invalid {
                document: format!("snapshot {key}"),
                what: "is a layer, not a writable snapshot",
            });
        }
        let directory = self.directory(key);
        tree::remove_path(&directory).map_err(ImageError::io("remove snapshot", &directory))
    }

    /// Returns the bytes a writable snapshot has of its own.
    ///
    /// # Errors
    /// When there is none of that key.
    pub fn usage(&self, key: &str) -> Result<u64> {
        check_key(key)?;
        let path = self.directory(key).join("fs");
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, rustix::fs::Mode::empty())
            .map_err(|e| ImageError::io("open snapshot", &path)(e.into()))?;
        Ok(tree::usage(&fd))
    }

    /// Lists the keys of all snapshots.
    pub(super) fn keys(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.store) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

/// Callers choose plain names; a container's id is one, and no more likely to be a chain id than two digests to be equal.
fn check_key(key: &str) -> Result<()> {
    let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if key.is_empty() || key.len() > 200 || !plain {
        return Err(ImageError::Invalid { document: format!("snapshot key {key:?}"), what: "must be a plain name" });
    }
    Ok(())
}

fn write_meta(directory: &Path, meta: Meta, durability: Durability) -> Result<(), StoreError> {
    write_json(&directory.join("meta.json"), &Record { schema: 1, meta }, durability)
}

pub(super) fn make_directory(path: &Path, mode: u32, parents: bool) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let result = std::fs::DirBuilder::new().mode(mode).recursive(parents).create(path);
    result.map_err(ImageError::io("make directory", path))?;
    if mode & 0o077 != 0 {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .map_err(ImageError::io("set mode of", path))?;
    }
    Ok(())
}

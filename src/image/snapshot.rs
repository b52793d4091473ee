//! Snapshots: committed layers and the writable trees on top of them.
//!
//! `snapshots/<key>/{meta.json,fs,work}`, where a writable tree has its record as an attribute of its directory instead; the key of
//! a committed layer is the hexadecimal part of its chain id, other keys are chosen by the caller (a container's id). Ids on disk are plain. A layer is only ever put in place by a rename.

use super::durable::{Moment, Synced};
use super::error::{ImageError, Result};
use super::index::{Index, Layer};
use super::tree;
use crate::base::{Digest, hex};
use crate::store::{Durability, Paths, StoreError, read_json, write_json};
use crate::sys::fault::{self, Point};
use rustix::fs::{CWD, RenameFlags, XattrFlags, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

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
    },
}

/// A record with the version of its form.
#[derive(Serialize, Deserialize)]
struct Record {
    schema: u32,
    /// When a layer was put in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written: Option<Moment>,
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
    /// What earlier boots synced; no later one changes that.
    earlier: OnceLock<Synced>,
}

impl Snapshotter {
    /// Opens the snapshotter of a store.
    pub fn new(paths: &Paths) -> Self {
        Self { store: paths.snapshots(), paths: paths.clone(), earlier: OnceLock::new() }
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
            fault::fail(Point::SnapshotMade).map_err(ImageError::io("make directory", &directory))?;
            write_chain(&directory, chain)?;
            make_directory(&directory.join("fs"), 0o755, false)?;
            make_directory(&directory.join("work"), 0o700, false)
        };
        make().inspect_err(|_| {
            let _ = tree::remove_path(&directory);
        })?;
        fault::cut(Point::SnapshotReady);
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
        match self.record(key) {
            Err(ImageError::Store(error)) if error.is_not_found() => match read_chain(&self.directory(key)) {
                Some(chain) => Ok(Meta::Active { chain }),
                None => Err(error.into()),
            },
            other => Ok(other?.meta),
        }
    }

    fn record(&self, key: &str) -> Result<Record> {
        Ok(read_json(&self.directory(key).join("meta.json"))?)
    }

    /// Returns what is known of a committed layer; `None` when it is not here, or only what a power cut left of it.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn layer(&self, chain_id: &Digest) -> Result<Option<LayerMeta>> {
        Ok(self.layer_record(chain_id)?.map(|(meta, _)| meta))
    }

    fn layer_record(&self, chain_id: &Digest) -> Result<Option<(LayerMeta, Option<Moment>)>> {
        match self.record(chain_id.hex()) {
            Ok(Record { meta: Meta::Layer(meta), written, .. }) => {
                Ok(self.survived(written.as_ref())?.then_some((meta, written)))
            }
            Ok(_) | Err(ImageError::Store(StoreError::Form { .. })) => Ok(None),
            Err(ImageError::Store(error)) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tells whether the files of a layer put in place at some moment are whole.
    fn survived(&self, written: Option<&Moment>) -> Result<bool> {
        let Some(moment) = written.filter(|moment| !moment.is_of_this_boot()) else { return Ok(true) };
        if let Some(earlier) = self.earlier.get() {
            return Ok(earlier.covers(moment));
        }
        let read = Index::read(&self.paths)?.synced;
        Ok(self.earlier.get_or_init(|| read).covers(moment))
    }

    /// Makes layers survive a power cut; returns up to which moment everything does now, `None` when it did already. The
    /// caller notes that in the index with whatever names the layers.
    ///
    /// # Errors
    /// When a layer is missing, or the system could not write what is in memory.
    pub(super) fn sync(&self, layers: &[Layer]) -> Result<Option<Moment>> {
        let synced = Index::read(&self.paths)?.synced;
        let mut whole = true;
        for layer in layers {
            let Some((_, written)) = self.layer_record(&layer.chain_id)? else {
                return Err(ImageError::NotFound(format!("layer {}", layer.chain_id)));
            };
            whole &= written.is_none_or(|moment| synced.covers(&moment));
        }
        if whole {
            return Ok(None);
        }
        let until = {
            // A layer is dated and put in place under this lock: it is there before the sync begins, or dated later.
            let _lock = Index::lock(&self.paths)?;
            Moment::now()
        };
        // Outside the lock: starts of containers wait for that, and this may take as long as the disk wants.
        let failed = || ImageError::io("sync the file system of", &self.store);
        let directory = File::open(&self.store).map_err(failed())?;
        rustix::fs::syncfs(&directory).map_err(|errno| failed()(errno.into()))?;
        Ok(Some(until))
    }

    /// Puts a finished layer in place: the directory (with `fs` and its tar's record) is renamed to the chain id.
    ///
    /// The directory may be an active snapshot's or one of an ingest. A layer that is there already is kept, and the
    /// directory removed; what a power cut left of one is replaced.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn put(&self, directory: &Path, meta: LayerMeta) -> Result<()> {
        make_directory(&self.store, 0o700, true)?;
        let chain_id = meta.chain_id.clone();
        let target = self.directory(chain_id.hex());
        tree::remove_path(&directory.join("work")).map_err(ImageError::io("remove", directory))?;
        let failed = || ImageError::io("commit snapshot", &target);
        let lock = Index::lock(&self.paths)?;
        write_meta(directory, Meta::Layer(meta), Some(Moment::now()))?;
        // One that was a writable tree is none any more; another has no such attribute.
        let _ = rustix::fs::removexattr(directory, CHAIN);
        fault::fail(Point::LayerPut).map_err(failed())?;
        match renameat_with(CWD, directory, CWD, &target, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST | Errno::NOTEMPTY) => {
                if self.layer(&chain_id)?.is_none() {
                    renameat_with(CWD, directory, CWD, &target, RenameFlags::EXCHANGE)
                        .map_err(|errno| failed()(errno.into()))?;
                }
                drop(lock);
                tree::remove_path(directory).map_err(ImageError::io("remove", directory))
            }
            other => {
                fault::cut(Point::LayerInPlace);
                other.map_err(|errno| failed()(errno.into()))
            }
        }
    }

    /// Removes a writable snapshot; one that is not there is no error.
    ///
    /// # Errors
    /// When the key names a layer, or the system refuses.
    pub fn remove(&self, key: &str) -> Result<()> {
        check_key(key)?;
        // Under another key lies what an interrupted commit left of a layer.
        if matches!(self.meta(key), Ok(Meta::Layer(meta)) if meta.chain_id.hex() == key) {
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

    /// Returns the boots in which the layers here were put in place.
    pub(super) fn boots(&self) -> BTreeSet<String> {
        let written = |key: &String| self.record(key).ok()?.written;
        self.keys().iter().filter_map(written).map(|moment| moment.boot().to_owned()).collect()
    }

    /// Lists the keys of all snapshots.
    pub(super) fn keys(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.store) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        // The layer of places is nobody's.
        names.filter(|name| !name.starts_with('.')).collect()
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

/// The attribute of a writable snapshot's directory that is its record: the digests of the layers below it, bottom first, 32
/// bytes each (*xattr(7)*, "Trusted extended attributes"). ext4 and xfs keep a short one in the inode, and ext4 one block for
/// all that are equal, where a file would cost each container an inode and a block.
const CHAIN: &str = "trusted.bulkhead.chain";
/// Length of a digest, bytes.
const DIGEST: usize = 32;

/// Writes a writable snapshot's record: as an attribute, or as a file where the file system takes none, or none so long.
fn write_chain(directory: &Path, chain: &[Digest]) -> Result<(), StoreError> {
    let bytes: Option<Vec<u8>> = chain.iter().map(raw).collect::<Option<Vec<_>>>().map(|parts| parts.concat());
    let set = |bytes: Vec<u8>| rustix::fs::setxattr(directory, CHAIN, &bytes, XattrFlags::empty()).is_ok();
    if bytes.is_some_and(set) {
        return Ok(());
    }
    write_meta(directory, Meta::Active { chain: chain.to_vec() }, None)
}

/// Reads the attribute that [`write_chain`] wrote.
fn read_chain(directory: &Path) -> Option<Vec<Digest>> {
    let mut bytes = vec![0; MAX_LAYERS * DIGEST];
    let length = rustix::fs::getxattr(directory, CHAIN, &mut bytes[..]).ok()?;
    let parts = bytes.get(..length)?.chunks(DIGEST);
    parts.map(|part| Digest::from_hex(&hex(part)).ok()).collect()
}

/// Returns the bytes of a digest.
fn raw(digest: &Digest) -> Option<Vec<u8>> {
    let digits = digest.hex().as_bytes();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn write_meta(directory: &Path, meta: Meta, written: Option<Moment>) -> Result<(), StoreError> {
    write_json(&directory.join("meta.json"), &Record { schema: 1, written, meta }, Durability::Atomic)
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

//! `images/references.json`: which images are here and what they are called. Written under `images/lock`.

use super::durable::Synced;
use super::error::{ImageError, Result};
use crate::base::{Digest, Timestamp};
use crate::store::{Durability, FileLock, Paths, read_json, sweep_records, write_json};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The record.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Index {
    /// Version of this record's form.
    schema: u32,
    /// Images by id.
    pub(super) images: BTreeMap<Digest, ImageRecord>,
    /// Complete references and the image each names.
    pub(super) references: BTreeMap<String, Digest>,
    /// Which layers survive a power cut.
    #[serde(default, skip_serializing_if = "Synced::is_empty")]
    pub(super) synced: Synced,
}

/// What is kept of an image besides its config.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ImageRecord {
    /// Its manifest: the one it came with, or the one we made.
    pub(super) manifest: Digest,
    /// Its layers, bottom first.
    pub(super) layers: Vec<Layer>,
    /// Bytes of all its layers' files.
    pub(super) size: u64,
    /// When it was taken in.
    pub(super) added: Timestamp,
    /// What registries call it: complete names with the digest of an index or a manifest, one for each repository.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) digests: Vec<String>,
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Digest of the stack up to here; the key of its snapshot.
    pub chain_id: Digest,
    /// Bytes of file content.
    pub size: u64,
    /// Length of the uncompressed tar in bytes.
    pub tar_size: u64,
}

impl Index {
    fn path(paths: &Paths) -> PathBuf {
        paths.root.join("images/references.json")
    }

    /// Reads the record; a store without one is empty.
    pub(super) fn read(paths: &Paths) -> Result<Self> {
        match read_json::<Self>(&Self::path(paths)) {
            Err(error) if error.is_not_found() => Ok(Self::default()),
            other => Ok(other?),
        }
    }

    /// Changes the record under its lock.
    pub(super) fn update<T>(paths: &Paths, change: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let _lock = Self::lock(paths)?;
        let mut index = Self::read(paths)?;
        let outcome = change(&mut index)?;
        index.write(paths)?;
        Ok(outcome)
    }

    /// Takes the lock.
    pub(super) fn lock(paths: &Paths) -> Result<FileLock> {
        Ok(FileLock::acquire(&paths.root.join("images/lock"))?)
    }

    /// Writes the record; the caller holds the lock.
    pub(super) fn write(&mut self, paths: &Paths) -> Result<()> {
        self.schema = 1;
        sweep_records(&paths.root.join("images"));
        Ok(write_json(&Self::path(paths), self, Durability::Synced)?)
    }

    /// Returns the names of an image, in order.
    pub(super) fn names(&self, id: &Digest) -> Vec<String> {
        self.references.iter().filter(|(_, image)| *image == id).map(|(name, _)| name.clone()).collect()
    }

    /// Finds an image by the beginning of its id.
    pub(super) fn by_prefix(&self, text: &str) -> Result<Digest> {
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        let hexadecimal = !prefix.is_empty() && prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !hexadecimal {
            return Err(ImageError::NotFound(text.to_owned()));
        }
        let found: Vec<&Digest> = self.images.keys().filter(|id| id.hex().starts_with(prefix)).collect();
        match found.as_slice() {
            [] => Err(ImageError::NotFound(text.to_owned())),
            [id] => Ok((*id).clone()),
            many => {
                let matches = many.iter().take(4).map(|id| id.short().to_owned()).collect();
                Err(ImageError::Ambiguous { prefix: prefix.to_owned(), matches })
            }
        }
    }
}

/// Returns the chain ids of a stack of layers (*OCI image-spec "Layer ChainID"*), bottom first.
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = next_chain_id(chain.last(), diff_id);
        chain.push(next);
    }
    chain
}

/// Returns the chain id of a layer on top of a stack.
pub fn next_chain_id(parent: Option<&Digest>, diff_id: &Digest) -> Digest {
    parent.map_or_else(|| diff_id.clone(), |parent| Digest::of(format!("{parent} {diff_id}").as_bytes()))
}

//! Removing images, and collecting what nobody needs any more.

use super::error::{ImageError, Result};
use super::index::{Index, Layer};
use super::ingest::{self, Ingest};
use super::snapshot::Meta;
use super::store::{Images, find};
use super::tree;
use crate::base::Digest;
use crate::oci::Reference;
use crate::store::{StoreError, reserve};
use crate::sys::fault::{self, Point};
use std::collections::BTreeSet;

/// What a removal did, in order; `rmi` prints a line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// `Untagged: name`.
    Untagged(Reference),
    /// `Deleted: sha256:...`: an image or one of its layers.
    Deleted(Digest),
}

/// What a collection took out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Layers.
    pub layers: u64,
    /// Writable snapshots.
    pub snapshots: u64,
    /// Documents.
    pub blobs: u64,
    /// Bytes of the layers' files.
    pub bytes: u64,
}

/// Reads the chain ids that others than images and containers need (the build cache). Called while nobody else takes layers
/// in: what was read before could lack the step that a build has just finished.
pub type Roots<'a> = &'a dyn Fn() -> std::result::Result<Vec<Digest>, StoreError>;

impl Images {
    /// Takes a name from an image, or with an id all of them; the image goes with its last name.
    ///
    /// `in_use` tells which containers were made from an image; `roots` tells which layers stay all the same.
    ///
    /// # Errors
    /// When there is no such image, when a container uses it, or when an id has names in several repositories (the last
    /// two unless `force`).
    pub fn remove(
        &self,
        name: &str,
        force: bool,
        in_use: &dyn Fn(&Digest) -> Vec<String>,
        roots: Roots<'_>,
    ) -> Result<Vec<Removed>> {
        // Whatever needs room comes before the first change: one who is refused can ask again.
        let own = Ingest::begin(&self.paths)?;
        let (removed, layers) = Index::update(&self.paths, |index| {
            let id = find(index, name)?;
            let names = index.names(&id);
            let by_name: Option<String> =
                name.parse::<Reference>().ok().map(|r| r.to_string()).filter(|name| names.contains(name));
            let going: Vec<String> = by_name.as_ref().map_or_else(|| names.clone(), |name| vec![name.clone()]);
            let parsed: Vec<Reference> = going.iter().filter_map(|name| name.parse().ok()).collect();
            let repositories: BTreeSet<String> = parsed.iter().map(Reference::name).collect();
            if by_name.is_none() && repositories.len() > 1 && !force {
                return Err(ImageError::ManyNames {
                    image: id,
                    names: parsed.iter().map(Reference::familiar).collect(),
                });
            }
            let last = going.len() == names.len();
            let containers = if last && !force { in_use(&id) } else { Vec::new() };
            if !containers.is_empty() {
                return Err(ImageError::InUse { name: name.to_owned(), image: id, containers });
            }
            for name in &going {
                index.references.remove(name);
            }
            let mut removed: Vec<Removed> = parsed.into_iter().map(Removed::Untagged).collect();
            let mut layers = Vec::new();
            if last && let Some(record) = index.images.remove(&id) {
                layers = record.layers;
                removed.push(Removed::Deleted(id));
            }
            Ok((removed, layers))
        })?;
        let chain: Vec<Digest> = layers.into_iter().rev().map(|layer: Layer| layer.chain_id).collect();
        let deleted = if chain.is_empty() { Vec::new() } else { self.remove_unused_layers(&chain, &own, roots)? };
        self.remove_unused_blobs(&own)?;
        Ok(removed.into_iter().chain(deleted.into_iter().map(Removed::Deleted)).collect())
    }

    /// Removes those of the layers that no image, no writable snapshot and none of the `roots` needs; returns them.
    ///
    /// While another process takes layers in, none is removed: it may be about to use them. A later collection does.
    pub(super) fn remove_unused_layers(&self, chain: &[Digest], own: &Ingest, roots: Roots<'_>) -> Result<Vec<Digest>> {
        let mut removed = Vec::new();
        {
            let _lock = Index::lock(&self.paths)?;
            let Some(_alone) = ingest::alone(&self.paths, own)? else { return Ok(removed) };
            let used = self.used(&Index::read(&self.paths)?, &|_| true, &roots()?);
            for id in chain.iter().filter(|id| !used.contains(*id)) {
                // A rename takes it out of sight at once; a crash then leaves only what a sweep removes.
                if std::fs::rename(self.snapshots.directory(id.hex()), own.fresh()).is_ok() {
                    fault::cut(Point::LayerTaken);
                    removed.push(id.clone());
                }
            }
        }
        own.clear();
        Ok(removed)
    }

    /// Returns the layers in use: by images, by writable snapshots that `in_use` knows, by `roots` and what lies below them.
    pub(super) fn used(&self, index: &Index, in_use: &dyn Fn(&str) -> bool, roots: &[Digest]) -> BTreeSet<Digest> {
        let mut used: BTreeSet<Digest> =
            index.images.values().flat_map(|record| &record.layers).map(|layer| layer.chain_id.clone()).collect();
        for key in self.snapshots.keys() {
            if let Ok(Meta::Active { chain, .. }) = self.snapshots.meta(&key)
                && in_use(&key)
            {
                used.extend(chain);
            }
        }
        for root in roots {
            let mut next = Some(root.clone());
            while let Some(id) = next.take().filter(|id| used.insert(id.clone())) {
                next = self.snapshots.layer(&id).ok().flatten().and_then(|meta| meta.parent);
            }
        }
        used
    }

    /// Removes all layers, writable snapshots and documents nobody needs, and what dead processes left.
    ///
    /// `in_use` tells whether a writable snapshot belongs to somebody; `roots` tells which layers stay all the same. While
    /// another process takes layers in, only what dead processes left is removed.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn collect(&self, in_use: &dyn Fn(&str) -> bool, roots: Roots<'_>) -> Result<Collected> {
        let own = Ingest::begin(&self.paths)?;
        let mut collected = Collected::default();
        {
            let _lock = Index::lock(&self.paths)?;
            let Some(_alone) = ingest::alone(&self.paths, &own)? else { return Ok(collected) };
            let mut index = Index::read(&self.paths)?;
            let used = self.used(&index, in_use, &roots()?);
            for key in self.snapshots.keys() {
                let layer = match self.snapshots.meta(&key) {
                    // What a power cut left of a layer is of no use to those who need it.
                    Ok(Meta::Layer(meta))
                        if used.contains(&meta.chain_id) && self.snapshots.layer(&meta.chain_id)?.is_some() =>
                    {
                        continue;
                    }
                    Ok(Meta::Layer(meta)) => Some(meta),
                    _ if in_use(&key) => continue,
                    _ => None,
                };
                if std::fs::rename(self.snapshots.directory(&key), own.fresh()).is_ok() {
                    fault::cut(Point::LayerTaken);
                    collected.snapshots += u64::from(layer.is_none());
                    collected.layers += u64::from(layer.is_some());
                    collected.bytes += layer.map_or(0, |layer| layer.size);
                }
            }
            let boots = self.snapshots.boots();
            if index.synced.keep(|boot| boots.contains(boot)) {
                match index.write(&self.paths) {
                    // What is kept of boots that nothing is left of does no harm.
                    Err(error) if reserve::is_full(&error) => {}
                    other => other?,
                }
            }
        }
        own.clear();
        collected.blobs = self.remove_unused_blobs(&own)?;
        Ok(collected)
    }

    /// Removes documents no image names.
    fn remove_unused_blobs(&self, own: &Ingest) -> Result<u64> {
        let _lock = Index::lock(&self.paths)?;
        let Some(_alone) = ingest::alone(&self.paths, own)? else { return Ok(0) };
        let index = Index::read(&self.paths)?;
        let used: BTreeSet<&str> =
            index.images.iter().flat_map(|(id, record)| [id.hex(), record.manifest.hex()]).collect();
        let directory = self.paths.root.join("content/blobs/sha256");
        let Ok(entries) = std::fs::read_dir(&directory) else { return Ok(0) };
        let mut removed = 0;
        for entry in entries.flatten() {
            let known = entry.file_name().to_str().is_some_and(|name| used.contains(name));
            if !known && tree::remove_path(&entry.path()).is_ok() {
                removed += 1;
            }
        }
        Ok(removed)
    }
}

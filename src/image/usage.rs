//! Which layers are here, how large they are, and whether an image or a container needs them.

use super::error::Result;
use super::index::Index;
use super::store::Images;
use crate::base::Digest;

/// A layer of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerUse {
    /// Digest of the stack up to here.
    pub chain_id: Digest,
    /// The layer below.
    pub parent: Option<Digest>,
    /// Bytes of its files' content.
    pub size: u64,
    /// Whether an image or a writable snapshot needs it.
    pub needed: bool,
}

impl Images {
    /// Lists all layers; `in_use` tells whether a writable snapshot belongs to somebody.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn layers(&self, in_use: &dyn Fn(&str) -> bool) -> Result<Vec<LayerUse>> {
        let used = self.used(&Index::read(&self.paths)?, in_use, &[]);
        let mut layers = Vec::new();
        for id in self.snapshots().keys().iter().filter_map(|key| Digest::from_hex(key).ok()) {
            if let Some(meta) = self.snapshots().layer(&id)? {
                let needed = used.contains(&id);
                layers.push(LayerUse { chain_id: id, parent: meta.parent, size: meta.size, needed });
            }
        }
        Ok(layers)
    }
}

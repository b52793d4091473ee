//! Images that carry the steps that made their layers: what build caches are exchanged as.
//!
//! The steps stand in a member of the configuration that is ours and that other engines do not read. A cache is one such image, or
//! an index of several, on a registry or in a directory (*OCI image-spec "Image Layout"*). Digests, lengths and chains
//! are checked; that a key leads to its layer cannot be, and is believed of whoever the user named. Layers are taken in like
//! those of any image, on top of the chain that the caller stands on.

mod layout;
mod read;
mod table;
mod write;

pub use table::{KnownStep, StepTable};

pub(super) use read::read_steps;
pub(super) use write::documents;

use super::error::{ImageError, Result};
use super::import::layer_of;
use super::index::Layer;
use super::store::Images;
use crate::base::{Digest, Timestamp};
use crate::oci::{ImageConfig, Platform, Reference};
use serde::{Deserialize, Serialize};

/// Member of an image's configuration that holds the steps; of a layout's index, the annotation that it is a cache.
pub const CACHE_FIELD: &str = "io.bulkhead.cache.v1";

/// A build step, as an image carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Digest of all that the step is made of.
    pub key: Digest,
    /// Number of layers it stands on; the one it made is the next.
    pub below: usize,
    /// Whether it made a layer.
    #[serde(default, skip_serializing_if = "is_false")]
    pub layer: bool,
    /// Whether it was performed on nothing, and its layer put on the others afterwards.
    #[serde(default, skip_serializing_if = "is_false")]
    pub detached: bool,
    /// When it was done.
    pub created: Timestamp,
    /// The step, for people.
    pub title: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// What is given out of one stage.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheImage {
    /// What it was built for.
    pub platform: Platform,
    /// Chain ids of its layers, bottom first.
    pub chain: Vec<Digest>,
    /// The steps that made them, bottom first.
    pub steps: Vec<StepRecord>,
}

/// Makes a configuration carry steps.
pub fn attach_steps(config: &mut ImageConfig, steps: &[StepRecord]) {
    config.extra.insert(CACHE_FIELD.to_owned(), serde_json::json!({ "steps": steps }));
}

impl Images {
    /// Reads the steps that an image of the store carries.
    ///
    /// # Errors
    /// When there is no such image, or what it carries makes no sense.
    pub fn carried_steps(&self, name: &Reference) -> Result<StepTable> {
        let image = self.resolve(&name.to_string())?;
        let mut table = StepTable::default();
        table.add(&self.blob(&image.id)?, None)?;
        Ok(table)
    }

    /// Returns what the store knows of the layers of a chain.
    pub(super) fn layers_of(&self, chain: &[Digest]) -> Result<Vec<Layer>> {
        let layer = |id: &Digest| {
            let meta = self.snapshots().layer(id)?.ok_or_else(|| ImageError::NotFound(format!("layer {id}")))?;
            Ok(layer_of(&meta))
        };
        chain.iter().map(layer).collect()
    }
}

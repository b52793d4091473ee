//! Images: content store, snapshotter, layers in and out, load, save and import.
//!
//! An image is a config document (its digest is the id), a manifest, and a stack of layers. Documents are blobs; a layer is
//! an unpacked directory (`snapshots/<chain id>/fs`, plain ids, overlay's own marks) beside the *split form* of its tar,
//! from which the tar is put together again byte by byte. Archives are parsed by the jailed processes of [`unpack`] only,
//! but for the plain outer tar and the JSON documents of `load`, which are read by bounded code. Registries are asked by
//! [`registry`] alone; `cached` reads and writes images that carry build steps. Never mounts, never prints.

mod archive;
mod attest;
mod cached;
mod choose;
pub mod diff;
mod documents;
mod durable;
mod early;
mod error;
mod extract;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod hasher;
mod import;
mod index;
mod ingest;
mod layout;
mod load;
mod rebase;
pub mod registry;
mod remove;
mod save;
mod snapshot;
mod split;
mod store;
mod tar;
mod tree;
pub mod unpack;
mod usage;

pub use attest::{Attestation, image_url};
pub use cached::{CACHE_FIELD, CacheImage, KnownStep, StepRecord, StepTable, attach_steps};
pub use error::ImageError;
pub use extract::{Extracted, may_be_archive};
pub use import::ImportOptions;
pub use index::{Layer, chain_ids, next_chain_id};
pub use layout::{Layout, LayoutImage, LayoutLayers};
pub use load::{Hold, LoadProgress, Loaded};
pub use remove::{Collected, Removed, Roots};
pub use snapshot::{Active, LayerMeta, Snapshotter};
pub use store::{Image, Images};
pub use tree::remove_path as remove_tree;
pub use usage::LayerUse;

#[cfg(test)]
mod archive_tests;
#[cfg(test)]
mod durable_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod store_tests;
#[cfg(test)]
mod testing;

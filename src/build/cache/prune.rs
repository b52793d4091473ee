//! Keeping the cache small: performs what `evict` chose, and takes out the layers nobody needs then.

use super::{BuildCache, Entry, Layers, Policy, evict};
use crate::base::Digest;
use crate::engine::{Engine, EngineError};
use crate::store::StoreError;

/// The cache could not be pruned.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// Its records cannot be read or removed.
    #[error(transparent)]
    Cache(#[from] StoreError),
    /// The layers cannot be looked at or removed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What pruning took out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Keys of the steps that were forgotten.
    pub keys: Vec<Digest>,
    /// Bytes of the layers and caches of `RUN --mount` that are gone.
    pub bytes: u64,
    /// Names of the caches of `RUN --mount` that are gone.
    pub mounts: Vec<String>,
}

/// What the cache holds.
#[derive(Debug)]
pub struct CacheUse {
    /// Its steps.
    pub entries: Vec<Entry>,
    /// The layers of the store.
    pub layers: Layers,
}

/// Looks at the cache and at the layers it stands on.
///
/// # Errors
/// When either cannot be read.
pub fn usage(engine: &Engine, cache: &BuildCache) -> Result<CacheUse, PruneError> {
    // In this order: what a build makes meanwhile is in the second list at least.
    let entries = cache.entries()?;
    let layers = engine.layers()?.into_iter().map(|layer| (layer.chain_id.clone(), layer)).collect();
    Ok(CacheUse { entries, layers })
}

/// Forgets steps by a policy, and removes the layers that no image, no container and no other step needs. While a build or
/// a load is under way its layers stay, whoever made them; the next one takes them out.
///
/// # Errors
/// When the store cannot be read or written.
pub fn prune(engine: &Engine, cache: &BuildCache, policy: &Policy) -> Result<Pruned, PruneError> {
    let CacheUse { entries, layers } = usage(engine, cache)?;
    let keys = evict(&entries, &layers, policy);
    for key in &keys {
        cache.remove(key)?;
    }
    if policy.all && policy.unused_since.is_none() && policy.keep.is_none() {
        cache.remove_remains()?;
    }
    cache.forget_sums()?;
    let bytes = engine.collect_images(&|| cache.roots())?.bytes;
    let (mounts, more) = prune_mounts(engine, policy)?;
    Ok(Pruned { keys, bytes: bytes + more, mounts })
}

/// Removes caches of `RUN --mount` that no step uses, the least recently used first, until no more than the policy's limit is
/// held; all of them without one.
fn prune_mounts(engine: &Engine, policy: &Policy) -> Result<(Vec<String>, u64), PruneError> {
    let mut found = engine.cache_mounts()?;
    found.sort_by_key(|mount| mount.last_used);
    let mut held: u64 = found.iter().map(|mount| mount.size.0).sum();
    let (mut names, mut bytes) = (Vec::new(), 0);
    for mount in found {
        let kept = policy.keep.is_some_and(|keep| held <= keep);
        if kept || policy.unused_since.is_some_and(|since| mount.last_used >= since) {
            continue;
        }
        if engine.remove_cache_mount(&mount)? {
            held -= mount.size.0;
            bytes += mount.size.0;
            names.push(mount.id);
        }
    }
    Ok((names, bytes))
}

/// Brings the cache down to the operator's limit, after a build that added to it.
///
/// # Errors
/// As [`prune`].
pub fn trim(engine: &Engine, cache: &BuildCache) -> Result<Pruned, PruneError> {
    if !cache.has_grown() {
        return Ok(Pruned::default());
    }
    prune(engine, cache, &Policy { keep: Some(engine.build_cache_limit()?), ..Policy::default() })
}

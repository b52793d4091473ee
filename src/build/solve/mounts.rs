//! The trees and caches behind the mounts of a `RUN`.

use super::StepError;
use crate::base::Digest;
use crate::build::context::Context;
use crate::build::files::{CopyOptions, Destination, Picked, Progress, Source};
use crate::build::graph::{CopyFrom, MountFrom, PlannedMount};
use crate::step::{BuildHost, CacheTree, CacheWish, StepMount, StepSource, Tree};
use std::os::fd::BorrowedFd;

type Made<T, H> = Result<T, StepError<<H as BuildHost>::Error>>;

/// Chain ids of a finished stage, by its position.
pub(super) type Chains<'a> = &'a dyn Fn(usize) -> Vec<Digest>;

/// What stands behind one mount.
enum Behind<H: BuildHost> {
    Tree(H::Active, String),
    Cache(H::Cache),
    Tmpfs(Option<u64>),
}

/// The mounts of a step; dropping them lets their trees and caches go.
pub(super) struct Mounts<'a, H: BuildHost> {
    all: Vec<(&'a PlannedMount, Behind<H>)>,
}

impl<'a, H: BuildHost> Mounts<'a, H> {
    /// Makes what the mounts show. Caches are taken in order of their keys, so that steps that want the same ones never wait
    /// for each other.
    pub(super) fn make(host: &H, context: &Context, chains: Chains<'_>, planned: &'a [PlannedMount]) -> Made<Self, H> {
        let mut all = Vec::new();
        let mut caches = Vec::new();
        for mount in planned {
            match &mount.source {
                MountFrom::Bind { from, path } => all.push((mount, bind(host, context, chains, from, path)?)),
                MountFrom::Tmpfs(size) => all.push((mount, Behind::Tmpfs(*size))),
                MountFrom::Cache { id, sharing, access, seed } => {
                    let seed = seed.as_ref();
                    let begun = seed.map(|(from, path)| (chain(from, chains), path));
                    let key = serde_json::json!({ "id": id, "access": access, "seed": begun });
                    let key = Digest::of(key.to_string().as_bytes());
                    let filled = seed.is_some();
                    let wish = CacheWish { key, id: id.clone(), sharing: *sharing, access: *access, filled };
                    caches.push((wish, seed, mount));
                }
            }
        }
        caches.sort_by(|(one, ..), (other, ..)| one.key.cmp(&other.key));
        for (wish, seed, mount) in caches {
            let cache = host.cache(&wish).map_err(StepError::Host)?;
            if let (true, Some((from, path))) = (cache.is_new(), seed) {
                fill(host, context, chains, from, path, &cache)?;
                host.filled(&cache).map_err(StepError::Host)?;
            }
            all.push((mount, Behind::Cache(cache)));
        }
        Ok(Self { all })
    }

    /// Returns the mounts as the host takes them.
    pub(super) fn list(&self) -> Vec<StepMount<'_, H>> {
        let list = self.all.iter().map(|(planned, behind)| StepMount {
            target: planned.target.clone(),
            readonly: planned.readonly,
            source: match behind {
                Behind::Tree(tree, path) => StepSource::Tree(tree, path.clone()),
                Behind::Cache(cache) => StepSource::Cache(cache),
                Behind::Tmpfs(size) => StepSource::Tmpfs(*size),
            },
        });
        list.collect()
    }
}

/// A tree for one step alone: layers with nothing on top, or a copy of the context's files.
fn bind<H: BuildHost>(
    host: &H,
    context: &Context,
    chains: Chains<'_>,
    from: &CopyFrom,
    path: &str,
) -> Made<Behind<H>, H> {
    let tree = host.prepare(&chain(from, chains)).map_err(StepError::Host)?;
    let Some(source) = context.tree(from) else { return Ok(Behind::Tree(tree, path.to_owned())) };
    let name = copy_one(source.root, &source.exactly(path)?, tree.root().map_err(StepError::Tree)?, false)?;
    Ok(Behind::Tree(tree, name))
}

/// Copies what a path names below a root: the content of a directory, or a file, whose name is returned.
fn copy_one<E: std::error::Error + Send + Sync>(
    from: BorrowedFd<'_>,
    picked: &[Picked],
    root: BorrowedFd<'_>,
    keep: bool,
) -> Result<String, StepError<E>> {
    let target = Destination { root, options: CopyOptions { keep, ..CopyOptions::default() } };
    let mut name = "/".to_owned();
    for source in picked {
        target.copy(from, source, "/", false, &Progress::untold())?;
        if !source.is_directory() {
            name = format!("/{}", source.name.to_string_lossy());
        }
    }
    Ok(name)
}

/// The layers behind a `from`; those of the context are none.
fn chain(from: &CopyFrom, chains: Chains<'_>) -> Vec<Digest> {
    match from {
        CopyFrom::Stage(stage) => chains(*stage),
        CopyFrom::Image(chain) => chain.clone(),
        CopyFrom::Context | CopyFrom::Named(_) => Vec::new(),
    }
}

/// Copies into a new cache what it begins with.
fn fill<H: BuildHost>(
    host: &H,
    context: &Context,
    chains: Chains<'_>,
    from: &CopyFrom,
    path: &str,
    cache: &H::Cache,
) -> Made<(), H> {
    let into = cache.root().map_err(StepError::Tree)?;
    if let Some(source) = context.tree(from) {
        return copy_one(source.root, &source.exactly(path)?, into, false).map(drop);
    }
    let view = host.view(&chain(from, chains)).map_err(StepError::Host)?;
    let source = Source { root: view.root().map_err(StepError::Tree)?, ignore: None, exclude: None };
    copy_one(source.root, &source.exactly(path)?, into, true).map(drop)
}

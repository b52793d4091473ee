//! The solver: performs a graph, step by step, through the engine.
//!
//! A node's key is the digest of its operation, the key below it and the content it reads. A key with a record whose
//! layer is still here is not performed again. Stages, and steps of one while another is not done yet, go side by side in
//! as many threads as there are processors; a key that is being performed, by another stage or another build, is waited
//! for. The first failure ends the rest.

mod error;
mod event;
mod explain;
mod key;
mod kinds;
mod mounts;
mod record;
mod schedule;
mod step;
#[cfg(test)]
mod tests;
mod work;

pub use error::{BuildError, StepError};
pub use event::{BuildEvent, StepLabel};
pub use explain::{Change, How, Reason};

use super::cache::{BuildCache, CacheRecord};
use super::context::Context;
use super::dockerfile::parse;
use super::graph::{Graph, Settings, plan};
use crate::base::{Digest, Timestamp};
use crate::image::{CacheImage, StepRecord, attach_steps};
use crate::oci::{History, ImageConfig};
use crate::step::{BaseImage, BuildHost, CommittedLayer};
use std::collections::BTreeMap;
use work::Solver;

/// A build to do.
#[derive(Debug)]
pub struct BuildRequest {
    /// Target, arguments, platforms, labels.
    pub settings: Settings,
    /// `-t`.
    pub tags: Vec<String>,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--no-cache-filter`: stages that are built without the cache.
    pub no_cache_stages: Vec<String>,
    /// Says of each step why it was or was not in the cache.
    pub explain: bool,
    /// `SOURCE_DATE_EPOCH`, seconds since 1970: when everything is said to have been made.
    pub epoch: Option<i64>,
    /// Whether an image is stored; without it only its layers are there.
    pub image: bool,
    /// `--annotation`: for the image's manifest.
    pub annotations: BTreeMap<String, String>,
    /// `--cache-to type=inline`: the image carries the steps that made its layers.
    pub inline: bool,
    /// Most steps that are performed side by side; 0 is as many as there are processors.
    pub parallel: usize,
}

/// What a build led to.
#[derive(Clone, Debug, PartialEq)]
pub struct Built {
    /// Image id; none where none was asked for.
    pub image: Option<Digest>,
    /// Its configuration.
    pub config: ImageConfig,
    /// Chain ids of its layers, bottom first.
    pub chain: Vec<Digest>,
    /// What a cache is made of: the target first, then the other stages, but those that one of them stands on.
    pub stages: Vec<CacheImage>,
}

/// A stage, as far as it is done.
#[derive(Clone, Debug, Default)]
struct Done {
    key: Option<Digest>,
    chain: Vec<Digest>,
    diff_ids: Vec<Digest>,
    history: Vec<History>,
    /// Planned entries of the history that are in `history`.
    noted: usize,
    /// When its last layer was made.
    created: Option<Timestamp>,
    /// The steps that made its layers, but those of an image.
    steps: Vec<StepRecord>,
}

/// Where events go; one at a time, from any thread.
pub type Events<'a> = &'a mut (dyn FnMut(BuildEvent<'_>) + Send);

/// Builds an image.
///
/// # Errors
/// When the Dockerfile cannot be parsed or planned, an image is missing, or a step fails; layers of finished steps stay
/// in the cache.
pub fn build<H: BuildHost>(
    host: &H,
    context: &Context,
    cache: &BuildCache,
    request: &BuildRequest,
    events: Events<'_>,
) -> Result<Built, BuildError<H::Error>> {
    let file = parse(&context.dockerfile)?;
    let graph = plan_with(host, &file, &request.settings)?;
    for text in &graph.warnings {
        events(BuildEvent::Warning { text });
    }
    let total = graph.stages.iter().map(|s| s.nodes.len() as u32 + 1).sum();
    events(BuildEvent::Planned { steps: total });
    let done = Solver::new(host, context, cache, request, &graph, events).run();
    // What was hashed stays known even when a step failed; the cache is no part of the result.
    let saved = context.stats.save();
    let mut stages = done?;
    saved?;
    let mut done = std::mem::take(&mut stages[graph.target]);
    let target = &graph.stages[graph.target];
    let mut config = target.config.clone();
    config.created = Some(created(host, cache, request, &graph, &mut done)?);
    config.history = std::mem::take(&mut done.history);
    config.rootfs.diff_ids = std::mem::take(&mut done.diff_ids);
    if request.inline {
        attach_steps(&mut config, &done.steps);
    }
    let image = match request.image {
        true => Some(
            host.create_image(&config, &done.chain, &request.tags, &request.annotations).map_err(BuildError::Host)?,
        ),
        false => None,
    };
    if let Some(image) = &image {
        events(BuildEvent::Finished { image, tags: &request.tags });
    }
    let chain = done.chain.clone();
    stages[graph.target] = done;
    Ok(Built { image, config, chain, stages: cached_stages(&graph, stages) })
}

/// Makes what caches are made of: of stages that another stands on, or that are the same, one will do.
fn cached_stages(graph: &Graph, stages: Vec<Done>) -> Vec<CacheImage> {
    let image = |(planned, done): (&super::graph::PlannedStage, Done)| CacheImage {
        platform: planned.config.platform(),
        chain: done.chain,
        steps: done.steps,
    };
    let mut images: Vec<CacheImage> = graph.stages.iter().zip(stages).map(image).collect();
    let target = images.remove(graph.target);
    images.insert(0, target);
    let stands_on = |above: &CacheImage, below: &CacheImage| {
        above.chain.starts_with(&below.chain) && above.steps.starts_with(&below.steps)
    };
    let needed = |at: usize| {
        let image = &images[at];
        let covered = |(other, above): (usize, &CacheImage)| {
            other != at && stands_on(above, image) && (other < at || !stands_on(image, above))
        };
        at == 0 || (!image.steps.is_empty() && !images.iter().enumerate().any(covered))
    };
    (0..images.len()).filter(|at| needed(*at)).map(|at| images[at].clone()).collect()
}

fn plan_with<H: BuildHost>(
    host: &H,
    file: &super::dockerfile::Dockerfile,
    settings: &Settings,
) -> Result<Graph, BuildError<H::Error>> {
    let mut found: Vec<(String, String, BaseImage)> = Vec::new();
    let mut failure = None;
    let graph = plan(file, settings, &mut |reference, platform| {
        let platform_text = platform.to_string();
        if let Some((_, _, image)) = found.iter().find(|(r, p, _)| r == reference && *p == platform_text) {
            return Some(image.clone());
        }
        match host.resolve_image(reference, platform) {
            Ok(image) => {
                found.push((reference.to_owned(), platform_text, image.clone()));
                Some(image)
            }
            Err(error) => {
                failure = Some((reference.to_owned(), error));
                None
            }
        }
    });
    match (graph, failure) {
        (Err(error), Some((reference, source))) => Err(BuildError::Image { reference, lines: error.lines, source }),
        (graph, _) => Ok(graph?),
    }
}

/// When the image was made: with its last layer, so that a cached build gives the same image again. A build that only
/// changes the configuration is remembered for that.
fn created<H: BuildHost>(
    host: &H,
    cache: &BuildCache,
    request: &BuildRequest,
    graph: &Graph,
    done: &mut Done,
) -> Result<Timestamp, BuildError<H::Error>> {
    if let Some(epoch) = request.epoch {
        return Ok(Timestamp(epoch.saturating_mul(1_000_000_000)));
    }
    let target = &graph.stages[graph.target];
    if let (Some(created), false) = (done.created, target.nodes.is_empty()) {
        return Ok(created);
    }
    let text = serde_json::json!({ "image": target.config, "key": done.key }).to_string();
    let key = Digest::of(text.as_bytes());
    let parent = done.chain.last();
    let known = cache.get(&key, parent).filter(|_| !request.no_cache);
    let created = match known {
        Some(record) => {
            cache.touch(&key);
            record.created
        }
        None => {
            let foreign = match request.no_cache {
                true => None,
                false => host.import(&key, parent, None, &|_| {}).map_err(BuildError::Host)?,
            };
            let created = foreign.map_or_else(Timestamp::now, |foreign| foreign.created);
            let record =
                CacheRecord { schema: 1, parent: parent.cloned(), layer: None, created, title: "image".into() };
            cache.put(&key, &record)?;
            created
        }
    };
    done.steps.push(StepRecord {
        key,
        below: done.chain.len(),
        layer: false,
        detached: false,
        created,
        title: "image".into(),
    });
    Ok(created)
}

impl Done {
    /// Adds a history entry; metadata takes the time of the layer before it.
    fn note(&mut self, created_by: &str, layer: Option<&CommittedLayer>, created: Option<Timestamp>) {
        self.created = created.or(self.created);
        self.history.push(History {
            created: self.created,
            created_by: created_by.to_owned(),
            comment: "buildkit.dockerfile.v0".into(),
            empty_layer: layer.is_none(),
            ..History::default()
        });
    }
}

//! The solver: performs a graph, step by step, through the engine.
//!
//! A node's key is the digest of its operation, the key below it and the content it reads. A key with a record whose
//! layer is still here is not performed again. Stages, and steps of one while another is not done yet, go side by side in
//! as many threads as there are processors; a key that is being performed, by another stage or another build, is waited
//! for. The first failure ends the rest.

mod error;
mod event;
mod explain;
mod kinds;
mod mounts;
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
    let done = done?;
    saved?;
    let target = &graph.stages[graph.target];
    let mut config = target.config.clone();
    config.created = Some(created(cache, request, &graph, &done)?);
    config.history = done.history;
    config.rootfs.diff_ids = done.diff_ids;
    let image = match request.image {
        true => Some(
            host.create_image(&config, &done.chain, &request.tags, &request.annotations).map_err(BuildError::Host)?,
        ),
        false => None,
    };
    if let Some(image) = &image {
        events(BuildEvent::Finished { image, tags: &request.tags });
    }
    Ok(Built { image, config, chain: done.chain })
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
fn created<E: std::error::Error + Send + Sync>(
    cache: &BuildCache,
    request: &BuildRequest,
    graph: &Graph,
    done: &Done,
) -> Result<Timestamp, BuildError<E>> {
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
    if let (Some(record), false) = (cache.get(&key, parent), request.no_cache) {
        cache.touch(&key);
        return Ok(record.created);
    }
    let record = CacheRecord {
        schema: 1,
        parent: parent.cloned(),
        layer: None,
        created: Timestamp::now(),
        title: "image".into(),
    };
    cache.put(&key, &record)?;
    Ok(record.created)
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

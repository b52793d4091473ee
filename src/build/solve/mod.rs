//! The solver: performs a graph, step by step, through the engine.
//!
//! A node's key is the digest of its operation, the key below it and the content it reads. A key with a record whose
//! layer is still here is not performed again. Stages are taken as they become ready; one runs at a time for now.

mod error;
mod event;
mod step;
#[cfg(test)]
mod tests;

pub use error::{BuildError, StepError};
pub use event::{BuildEvent, StepLabel};

use super::cache::{BuildCache, CacheRecord};
use super::context::Context;
use super::dockerfile::{LineRange, parse};
use super::graph::{CopyFrom, CopyPlan, Graph, Operation, PlannedStage, Settings, Start, plan};
use crate::base::{Digest, Timestamp};
use crate::oci::{History, ImageConfig};
use crate::step::{BaseImage, BuildHost, CommittedLayer};
use std::collections::BTreeMap;
use std::time::Instant;

/// A build to do.
#[derive(Debug)]
pub struct BuildRequest {
    /// Target, arguments, platforms, labels.
    pub settings: Settings,
    /// `-t`.
    pub tags: Vec<String>,
    /// `--no-cache`.
    pub no_cache: bool,
}

/// What a build led to.
#[derive(Clone, Debug, PartialEq)]
pub struct Built {
    /// Image id.
    pub image: Digest,
    /// Its configuration.
    pub config: ImageConfig,
    /// Chain ids of its layers, bottom first.
    pub chain: Vec<Digest>,
}

/// A finished stage.
#[derive(Clone, Debug, Default)]
struct Done {
    key: Option<Digest>,
    chain: Vec<Digest>,
    diff_ids: Vec<Digest>,
    history: Vec<History>,
    /// When its last layer was made.
    created: Option<Timestamp>,
}

/// Builds an image.
///
/// # Errors
/// When the Dockerfile cannot be parsed or planned, an image is missing, or a step fails; layers of finished steps stay
/// in the cache.
pub fn build<H: BuildHost>(
    host: &H,
    context: &mut Context,
    cache: &BuildCache,
    request: &BuildRequest,
    events: &mut dyn FnMut(BuildEvent<'_>),
) -> Result<Built, BuildError<H::Error>> {
    let file = parse(&context.dockerfile)?;
    let graph = plan_with(host, &file, &request.settings)?;
    for text in &graph.warnings {
        events(BuildEvent::Warning { text });
    }
    let total = graph.stages.iter().map(|s| s.nodes.len() as u32 + 1).sum();
    events(BuildEvent::Planned { steps: total });
    let mut solver = Solver { host, context, cache, request, graph: &graph, done: BTreeMap::new(), id: 0 };
    let result = solver.run(events);
    // What was hashed stays known even when a step failed; the cache is no part of the result.
    let saved = solver.context.stats.save();
    let built = result?;
    saved?;
    Ok(built)
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

struct Solver<'a, H: BuildHost> {
    host: &'a H,
    context: &'a mut Context,
    cache: &'a BuildCache,
    request: &'a BuildRequest,
    graph: &'a Graph,
    /// By position of the stage.
    done: BTreeMap<usize, Done>,
    /// Number of the step shown last.
    id: u32,
}

impl<H: BuildHost> Solver<'_, H> {
    fn run(&mut self, events: &mut dyn FnMut(BuildEvent<'_>)) -> Result<Built, BuildError<H::Error>> {
        while let Some(stage) = self.ready() {
            let done = self.stage(&self.graph.stages[stage], events)?;
            self.done.insert(stage, done);
        }
        let target = &self.graph.stages[self.graph.target];
        let done = self.done.remove(&self.graph.target).unwrap_or_default();
        let mut config = target.config.clone();
        config.created = Some(self.created(&done, &config)?);
        config.history = done.history;
        config.rootfs.diff_ids = done.diff_ids;
        let image = self.host.create_image(&config, &done.chain, &self.request.tags).map_err(BuildError::Host)?;
        events(BuildEvent::Finished { image: &image, tags: &self.request.tags });
        Ok(Built { image, config, chain: done.chain })
    }

    /// Returns a stage that is not done and all of whose inputs are.
    fn ready(&self) -> Option<usize> {
        (0..self.graph.stages.len()).find(|i| {
            !self.done.contains_key(i) && needs(&self.graph.stages[*i]).all(|need| self.done.contains_key(&need))
        })
    }

    fn stage(
        &mut self,
        stage: &PlannedStage,
        events: &mut dyn FnMut(BuildEvent<'_>),
    ) -> Result<Done, BuildError<H::Error>> {
        let mut done = self.start(stage, events);
        let mut entries = stage.history.iter();
        for (index, node) in stage.nodes.iter().enumerate() {
            let label = self.label(stage, index as u32 + 2, &node.title, node.lines);
            events(BuildEvent::StepStarted(&label));
            let started = Instant::now();
            let at = |error: StepError<H::Error>| BuildError::Step {
                title: node.title.clone(),
                lines: node.lines,
                source: error,
            };
            let key = self.key(&node.operation, &done).map_err(at)?;
            let hit = self.lookup(&key, &done).map_err(BuildError::Host)?;
            let cached = hit.is_some();
            let record = match hit {
                Some(record) => {
                    events(BuildEvent::Cached { id: label.id });
                    record
                }
                None => {
                    let layer = match self.perform(&node.operation, &done, label.id, events) {
                        Err(StepError::Exit { code, tail }) => {
                            events(BuildEvent::StepFailed { id: label.id });
                            return Err(BuildError::Failed {
                                title: node.title.clone(),
                                lines: node.lines,
                                code,
                                tail,
                            });
                        }
                        result => result.map_err(at)?,
                    };
                    let parent = done.chain.last().cloned();
                    let record =
                        CacheRecord { schema: 1, parent, layer, created: Timestamp::now(), title: node.title.clone() };
                    self.cache.put(&key, &record)?;
                    record
                }
            };
            if !cached {
                events(BuildEvent::StepDone { id: label.id, elapsed: started.elapsed() });
            }
            // Metadata in front of this step, then the step itself.
            for entry in entries.by_ref() {
                done.note(&entry.created_by, entry.node.and(record.layer.as_ref()), entry.node.map(|_| record.created));
                if entry.node.is_some() {
                    break;
                }
            }
            if let Some(layer) = record.layer {
                done.chain.push(layer.chain_id);
                done.diff_ids.push(layer.diff_id);
            }
            done.key = Some(key);
        }
        for entry in entries {
            done.note(&entry.created_by, None, None);
        }
        Ok(done)
    }

    /// The state a stage begins with.
    fn start(&mut self, stage: &PlannedStage, events: &mut dyn FnMut(BuildEvent<'_>)) -> Done {
        let label = self.label(stage, 1, &stage.title, stage.lines);
        events(BuildEvent::StepStarted(&label));
        let platform = stage.config.platform().to_string();
        let done = match &stage.start {
            Start::Scratch => {
                Done { key: Some(Digest::of(format!("scratch {platform}").as_bytes())), ..Done::default() }
            }
            Start::Image(image) => {
                let layers: Vec<&str> = image.chain.iter().map(Digest::as_str).collect();
                Done {
                    key: Some(Digest::of(format!("image {platform} {}", layers.join(" ")).as_bytes())),
                    chain: image.chain.clone(),
                    diff_ids: image.config.rootfs.diff_ids.clone(),
                    history: image.config.history.clone(),
                    created: image.config.created,
                }
            }
            Start::Stage(stage) => self.done.get(stage).cloned().unwrap_or_default(),
        };
        events(BuildEvent::Cached { id: label.id });
        done
    }

    fn label<'e>(&mut self, stage: &'e PlannedStage, number: u32, text: &'e str, lines: LineRange) -> StepLabel<'e> {
        self.id += 1;
        StepLabel { id: self.id, stage: &stage.label, number, total: stage.nodes.len() as u32 + 1, text, lines }
    }

    /// Digest of the operation, what is below it, and what it reads.
    fn key(&mut self, operation: &Operation, done: &Done) -> Result<Digest, StepError<H::Error>> {
        let content = match operation {
            Operation::Copy(CopyPlan { from: CopyFrom::Stage(stage), .. }) => {
                self.done.get(stage).and_then(|d| d.key.clone())
            }
            Operation::Copy(copy) if copy.from == CopyFrom::Context => Some(step::context_digest(self.context, copy)?),
            _ => None,
        };
        let parts = serde_json::json!({ "operation": operation, "parent": done.key, "content": content });
        Ok(Digest::of(parts.to_string().as_bytes()))
    }

    fn lookup(&self, key: &Digest, done: &Done) -> Result<Option<CacheRecord>, H::Error> {
        if self.request.no_cache {
            return Ok(None);
        }
        let Some(record) = self.cache.get(key, done.chain.last()) else { return Ok(None) };
        if let Some(layer) = &record.layer
            && !self.host.has_layer(&layer.chain_id)?
        {
            return Ok(None);
        }
        self.cache.touch(key);
        Ok(Some(record))
    }

    fn perform(
        &mut self,
        operation: &Operation,
        done: &Done,
        id: u32,
        events: &mut dyn FnMut(BuildEvent<'_>),
    ) -> Result<Option<CommittedLayer>, StepError<H::Error>> {
        match operation {
            Operation::Run(run) => {
                step::run(self.host, run, &done.chain, &mut |bytes| events(BuildEvent::Output { id, bytes })).map(Some)
            }
            Operation::Workdir { path, user } => step::workdir(self.host, path, user, &done.chain),
            Operation::Copy(copy) => match &copy.from {
                CopyFrom::Context => step::copy_context(self.host, self.context, copy, &done.chain).map(Some),
                CopyFrom::Stage(stage) => {
                    let from = self.done.get(stage).map(|d| d.chain.clone()).unwrap_or_default();
                    step::copy_layers(self.host, &from, copy, &done.chain).map(Some)
                }
                CopyFrom::Image(from) => step::copy_layers(self.host, from, copy, &done.chain).map(Some),
            },
        }
    }

    /// When the image was made: with its last layer, so that a cached build gives the same image again. A build that
    /// only changes the configuration is remembered for that.
    fn created(&self, done: &Done, config: &ImageConfig) -> Result<Timestamp, BuildError<H::Error>> {
        let target = &self.graph.stages[self.graph.target];
        if let (Some(created), false) = (done.created, target.nodes.is_empty()) {
            return Ok(created);
        }
        let text = serde_json::json!({ "image": config, "key": done.key }).to_string();
        let key = Digest::of(text.as_bytes());
        let parent = done.chain.last();
        if let (Some(record), false) = (self.cache.get(&key, parent), self.request.no_cache) {
            self.cache.touch(&key);
            return Ok(record.created);
        }
        let record = CacheRecord {
            schema: 1,
            parent: parent.cloned(),
            layer: None,
            created: Timestamp::now(),
            title: "image".into(),
        };
        self.cache.put(&key, &record)?;
        Ok(record.created)
    }
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

fn needs(stage: &PlannedStage) -> impl Iterator<Item = usize> + '_ {
    let base = match stage.start {
        Start::Stage(stage) => Some(stage),
        _ => None,
    };
    let copied = stage.nodes.iter().filter_map(|node| match &node.operation {
        Operation::Copy(CopyPlan { from: CopyFrom::Stage(stage), .. }) => Some(*stage),
        _ => None,
    });
    base.into_iter().chain(copied)
}

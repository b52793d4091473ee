//! The threads that perform what the schedule gives out.

use super::key::Known;
use super::record::Step;
use super::schedule::{Job, Schedule};
use super::{BuildError, BuildEvent, BuildRequest, Done, Events, StepLabel};
use crate::base::{Digest, Timestamp};
use crate::build::cache::{BuildCache, CacheRecord};
use crate::build::context::Context;
use crate::build::graph::{Graph, PlannedStage, Start};
use crate::image::StepRecord;
use crate::step::BuildHost;
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// Stack of a thread, bytes: directories are walked 400 deep.
const STACK: usize = 8 << 20;

/// A build under way.
pub(super) struct Solver<'a, H: BuildHost> {
    pub(super) host: &'a H,
    pub(super) context: &'a Context,
    pub(super) cache: &'a BuildCache,
    pub(super) request: &'a BuildRequest,
    pub(super) graph: &'a Graph,
    /// Stages that are done, by position.
    done: Vec<OnceLock<Done>>,
    state: Mutex<State<'a, H>>,
    /// Something in the state has changed.
    changed: Condvar,
    reporter: Mutex<Reporter<'a>>,
}

pub(super) struct State<'a, H: BuildHost> {
    schedule: Schedule<'a>,
    /// Stages that are under way, by position.
    parts: Vec<Part<H::View>>,
    /// Records of the steps performed by this build: with `--no-cache`, too, the same step is done once.
    pub(super) made: BTreeMap<Digest, CacheRecord>,
    failure: Option<BuildError<H::Error>>,
    /// Nothing more is begun.
    stopped: bool,
}

/// A stage under way.
struct Part<V> {
    done: Done,
    /// The step that was put back, as it was shown.
    begun: Option<Begun<V>>,
}

impl<V> Default for Part<V> {
    fn default() -> Self {
        Self { done: Done::default(), begun: None }
    }
}

/// A step that was announced.
struct Begun<V> {
    id: u32,
    at: Instant,
    /// Once it is known.
    key: Option<Known<V>>,
}

/// What became of a job.
enum Outcome<V> {
    /// The stage, one step further, and the key that was claimed.
    Done(Done, Option<Digest>),
    /// Another step has the same key: the job is put back.
    Waits(Box<Begun<V>>),
}

struct Reporter<'a> {
    events: Events<'a>,
    /// Number of the step announced last.
    last: u32,
}

/// Ends the others when a thread panics: they would wait for it.
struct Alarm<'s, 'a, H: BuildHost>(&'s Solver<'a, H>);

impl<H: BuildHost> Drop for Alarm<'_, '_, H> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.state().stopped = true;
            self.0.changed.notify_all();
        }
    }
}

impl<'a, H: BuildHost> Solver<'a, H> {
    pub(super) fn new(
        host: &'a H,
        context: &'a Context,
        cache: &'a BuildCache,
        request: &'a BuildRequest,
        graph: &'a Graph,
        events: Events<'a>,
    ) -> Self {
        let count = graph.stages.len();
        let state = State {
            schedule: Schedule::new(graph),
            parts: std::iter::repeat_with(Part::default).take(count).collect(),
            made: BTreeMap::new(),
            failure: None,
            stopped: false,
        };
        Self {
            host,
            context,
            cache,
            request,
            graph,
            done: std::iter::repeat_with(OnceLock::new).take(count).collect(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            reporter: Mutex::new(Reporter { events, last: 0 }),
        }
    }

    /// Performs everything; returns the stages.
    pub(super) fn run(self) -> Result<Vec<Done>, BuildError<H::Error>> {
        let processors = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let most = if self.request.parallel == 0 { processors() } else { self.request.parallel };
        let threads = most.min(self.state().schedule.width());
        std::thread::scope(|scope| {
            // This thread is one of them. One that cannot be had is done without.
            for _ in 1..threads {
                let thread = std::thread::Builder::new().stack_size(STACK);
                let _ = thread.spawn_scoped(scope, || self.work());
            }
            self.work();
        });
        if let Some(failure) = self.state().failure.take() {
            return Err(failure);
        }
        Ok(self.done.into_iter().map(|done| done.into_inner().unwrap_or_default()).collect())
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State<'a, H>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self, event: BuildEvent<'_>) {
        (self.reporter.lock().unwrap_or_else(PoisonError::into_inner).events)(event);
    }

    /// Takes jobs until there will be none.
    fn work(&self) {
        let _alarm = Alarm(self);
        let mut state = self.state();
        while !state.stopped && !state.schedule.is_finished() {
            let Some(job) = state.schedule.take() else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let part = std::mem::take(&mut state.parts[job.stage]);
            drop(state);
            let outcome = self.perform(job, part.done.clone(), part.begun);
            state = self.state();
            match outcome {
                Ok(Outcome::Waits(begun)) => state.parts[job.stage] = Part { done: part.done, begun: Some(*begun) },
                Ok(Outcome::Done(done, key)) => {
                    state.schedule.finish(job, key.as_ref());
                    if state.schedule.is_done(job.stage) {
                        let _ = self.done[job.stage].set(done);
                    } else {
                        state.parts[job.stage] = Part { done, begun: None };
                    }
                }
                Err(error) => {
                    // Those that end because of the first are not told of.
                    if !state.stopped {
                        (state.failure, state.stopped) = (Some(error), true);
                        self.host.halt();
                    }
                }
            }
            self.changed.notify_all();
        }
    }

    fn perform(
        &self,
        job: Job,
        mut done: Done,
        begun: Option<Begun<H::View>>,
    ) -> Result<Outcome<H::View>, BuildError<H::Error>> {
        let stage = &self.graph.stages[job.stage];
        let Some(number) = job.node else {
            let begun = self.announce(stage, 1, &stage.title, stage.lines);
            let mut done = self.start(stage);
            if stage.nodes.is_empty() {
                done.end(stage);
            }
            self.tell(BuildEvent::Cached { id: begun.id });
            return Ok(Outcome::Done(done, None));
        };
        let node = &stage.nodes[number];
        let mut begun = begun.unwrap_or_else(|| self.announce(stage, number as u32 + 2, &node.title, node.lines));
        let at = |source| BuildError::Step { title: node.title.clone(), lines: node.lines, source };
        let known = match begun.key.take() {
            Some(known) => known,
            None => self.key(stage, number, &done, begun.id).map_err(at).inspect_err(|_| self.failed(begun.id))?,
        };
        if !self.state().schedule.claim(job, &known.key) {
            begun.key = Some(known);
            return Ok(Outcome::Waits(Box::new(begun)));
        }
        let job = Step { stage, node, known: &known, done: &done, id: begun.id };
        let (record, cached) = self.record(&job).inspect_err(|_| self.failed(begun.id))?;
        self.tell(match cached {
            true => BuildEvent::Cached { id: begun.id },
            false => BuildEvent::StepDone { id: begun.id, elapsed: begun.at.elapsed() },
        });
        let record = match record.layer {
            Some(layer) if node.operation.is_detached() => {
                let rebased = self.host.rebase(&layer, &done.chain).map_err(BuildError::Host);
                let layer = Some(rebased.inspect_err(|_| self.failed(begun.id))?);
                CacheRecord { layer, ..record }
            }
            layer => CacheRecord { layer, ..record },
        };
        let key = known.key;
        let created = self.request.epoch.map_or(record.created, |epoch| Timestamp(epoch.saturating_mul(1_000_000_000)));
        // What stands on it stands on what is below it, too.
        let whole = match (&done.key, node.operation.is_detached()) {
            (Some(below), true) => Digest::of(format!("{below} {key}").as_bytes()),
            _ => key.clone(),
        };
        done.steps.push(StepRecord {
            key: key.clone(),
            below: done.chain.len(),
            layer: record.layer.is_some(),
            detached: node.operation.is_detached(),
            created,
            title: node.title.clone(),
        });
        done.add(stage, whole, record, created);
        if number + 1 == stage.nodes.len() {
            done.end(stage);
        }
        Ok(Outcome::Done(done, Some(key)))
    }

    /// Says that a step has failed, or was ended because another has.
    fn failed(&self, id: u32) {
        let canceled = self.state().stopped;
        self.tell(if canceled { BuildEvent::StepCanceled { id } } else { BuildEvent::StepFailed { id } });
    }

    fn announce(
        &self,
        stage: &PlannedStage,
        number: u32,
        text: &str,
        lines: crate::build::dockerfile::LineRange,
    ) -> Begun<H::View> {
        // Numbered as they are told, so that the numbers ascend.
        let mut reporter = self.reporter.lock().unwrap_or_else(PoisonError::into_inner);
        reporter.last += 1;
        let (id, total) = (reporter.last, stage.nodes.len() as u32 + 1);
        (reporter.events)(BuildEvent::StepStarted(&StepLabel { id, stage: &stage.label, number, total, text, lines }));
        Begun { id, at: Instant::now(), key: None }
    }

    /// The state a stage begins with.
    fn start(&self, stage: &PlannedStage) -> Done {
        let platform = stage.config.platform().to_string();
        match &stage.start {
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
                    noted: 0,
                    created: image.config.created,
                    steps: Vec::new(),
                }
            }
            Start::Stage(stage) => Done { noted: 0, ..self.stage(*stage).cloned().unwrap_or_default() },
        }
    }

    pub(super) fn stage(&self, stage: usize) -> Option<&Done> {
        self.done.get(stage).and_then(OnceLock::get)
    }

    /// Chain ids of a finished stage.
    pub(super) fn chain(&self, stage: usize) -> Vec<Digest> {
        self.stage(stage).map(|done| done.chain.clone()).unwrap_or_default()
    }
}

impl Done {
    /// Adds a step: the metadata in front of it, then the step itself, made at `created`.
    fn add(&mut self, stage: &PlannedStage, key: Digest, record: CacheRecord, created: Timestamp) {
        for entry in stage.history.iter().skip(self.noted) {
            self.noted += 1;
            self.note(&entry.created_by, entry.node.and(record.layer.as_ref()), entry.node.map(|_| created));
            if entry.node.is_some() {
                break;
            }
        }
        if let Some(layer) = record.layer {
            self.chain.push(layer.chain_id);
            self.diff_ids.push(layer.diff_id);
        }
        self.key = Some(key);
    }

    /// Adds the metadata behind the last step.
    fn end(&mut self, stage: &PlannedStage) {
        for entry in stage.history.iter().skip(self.noted) {
            self.noted += 1;
            self.note(&entry.created_by, None, None);
        }
    }
}

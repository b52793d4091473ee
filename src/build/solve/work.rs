//! The threads that perform what the schedule gives out.

use super::explain::compare;
use super::kinds::{View, kind};
use super::schedule::{Job, Schedule};
use super::step::{Sources, context_sources, layer_sources, look};
use super::{BuildError, BuildEvent, BuildRequest, Done, Events, Reason, StepError, StepLabel};
use crate::base::{Digest, Timestamp};
use crate::build::cache::{BuildCache, CacheRecord, Parts};
use crate::build::context::Context;
use crate::build::graph::{CopyFrom, CopyPlan, Graph, Node, Operation, PlannedStage, Start};
use crate::image::StepRecord;
use crate::step::{BuildHost, CommittedLayer, ImportEvent, Imported};
use crate::store::RangeLock;
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Stack of a thread, bytes: directories are walked 400 deep.
const STACK: usize = 8 << 20;
/// Between two looks whether another build has performed a step.
const LOOK: Duration = Duration::from_millis(20);

/// A build under way.
pub(super) struct Solver<'a, H: BuildHost> {
    host: &'a H,
    context: &'a Context,
    cache: &'a BuildCache,
    request: &'a BuildRequest,
    graph: &'a Graph,
    /// Stages that are done, by position.
    done: Vec<OnceLock<Done>>,
    state: Mutex<State<'a, H>>,
    /// Something in the state has changed.
    changed: Condvar,
    reporter: Mutex<Reporter<'a>>,
}

struct State<'a, H: BuildHost> {
    schedule: Schedule<'a>,
    /// Stages that are under way, by position.
    parts: Vec<Part<H::View>>,
    /// Records of the steps performed by this build: with `--no-cache`, too, the same step is done once.
    made: BTreeMap<Digest, CacheRecord>,
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

/// What is known of a step before it is performed.
struct Known<V> {
    key: Digest,
    parts: Parts,
    sources: Sources<V>,
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

    fn state(&self) -> MutexGuard<'_, State<'a, H>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: BuildEvent<'_>) {
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

    fn stage(&self, stage: usize) -> Option<&Done> {
        self.done.get(stage).and_then(OnceLock::get)
    }

    /// Chain ids of a finished stage.
    fn chain(&self, stage: usize) -> Vec<Digest> {
        self.stage(stage).map(|done| done.chain.clone()).unwrap_or_default()
    }

    /// Digest of the operation, what is below it, and what it reads.
    fn key(
        &self,
        stage: &PlannedStage,
        number: usize,
        done: &Done,
        id: u32,
    ) -> Result<Known<H::View>, StepError<H::Error>> {
        let node = &stage.nodes[number];
        let operation = &node.operation;
        let mut inputs = kind::<H>(operation).inputs();
        let mut sources = match copied_stack(operation, &|stage| self.chain(stage)) {
            Some((plan, from)) => layer_sources(self.host, self.cache, &from, plan)?,
            None => context_sources(self.context, &inputs)?,
        };
        let mut moved = |bytes, of| self.tell(BuildEvent::Moved { id, bytes, of });
        sources.remotes = look(self.host, std::mem::take(&mut inputs.remotes), &mut moved)?;
        let remotes: Vec<&str> = sources.remotes.iter().map(|(_, found)| found.state.as_str()).collect();
        let own = sources.known.then(|| sources.content.digest.clone());
        // What a stage is, not what it was made of: made anew, it may be another. Of a copy it is the files.
        let copies = matches!(operation, Operation::Copy(_));
        let stages = operation.stages().filter(|_| !copies).map(|stage| self.stage(stage)?.chain.last().cloned());
        let content: Vec<Option<Digest>> = std::iter::once(own).chain(stages).collect();
        let parent = done.key.as_ref().filter(|_| !operation.is_detached());
        let mut text = serde_json::json!({ "operation": operation, "parent": parent, "content": content });
        if let Operation::Copy(CopyPlan { from: CopyFrom::Stage(_) | CopyFrom::Image(_), .. }) = operation {
            text["operation"]["copy"]["from"] = "layers".into();
        }
        if let Some(epoch) = self.request.epoch {
            text["epoch"] = epoch.into();
        }
        if !remotes.is_empty() {
            text["remotes"] = remotes.into();
        }
        let key = Digest::of(text.to_string().as_bytes());
        let reads = content.iter().any(Option::is_some) || !sources.remotes.is_empty();
        let parts = Parts {
            file: Digest::of(self.context.dockerfile_path.as_os_str().as_encoded_bytes()).short().to_owned(),
            stage: stage.label.clone(),
            number: number as u32 + 2,
            title: node.title.clone(),
            parent: parent.cloned(),
            below: number.checked_sub(1).map_or(&stage.title, |below| &stage.nodes[below].title).clone(),
            content: reads.then(|| Digest::of(format!("{}{}", text["content"], text["remotes"]).as_bytes())),
            reads: operation
                .stages()
                .map(|stage| self.graph.stages[stage].label.as_str())
                .collect::<Vec<_>>()
                .join(", "),
            files: BTreeMap::new(),
            operation: text["operation"].take(),
        };
        Ok(Known { key, parts, sources })
    }

    /// Returns a step's record, and whether it was there: from this build, the cache, or another build that is at it.
    fn record(&self, step: &Step<'_, H::View>) -> Result<(CacheRecord, bool), BuildError<H::Error>> {
        let (node, key) = (step.node, &step.known.key);
        let made = self.state().made.get(key).cloned();
        // On another parent it is another layer: a stage without the cache may have made what is below anew.
        if let Some(record) = made.filter(|record| record.parent.as_ref() == step.parent()) {
            self.explain(step, || Reason::Shared);
            return Ok((record, true));
        }
        if let Some(record) = self.lookup(step).map_err(BuildError::Host)? {
            self.explain(step, || Reason::Cached);
            return Ok((record, true));
        }
        let claim = self.claim(step)?;
        // Whoever had the claim has left its record.
        if claim.waited
            && let Some(record) = self.lookup(step).map_err(BuildError::Host)?
        {
            self.explain(step, || Reason::Shared);
            return Ok((record, true));
        }
        let mut parts = step.known.parts.clone();
        parts.files = step.known.sources.prints();
        if let Some((record, from)) = self.import(step, &parts)? {
            self.explain(step, || Reason::Imported(from));
            return Ok((record, true));
        }
        self.explain(step, || self.reason(step, &parts));
        let layer = self.operate(&node.operation, step).map_err(|source| match source {
            StepError::Exit { code, tail } => {
                BuildError::Failed { title: node.title.clone(), lines: node.lines, code, tail }
            }
            source => BuildError::Step { title: node.title.clone(), lines: node.lines, source },
        })?;
        let parent = step.parent().cloned();
        let record = CacheRecord { schema: 1, parent, layer, created: Timestamp::now(), title: node.title.clone() };
        self.cache.keep_parts(key, &parts);
        self.cache.put(key, &record)?;
        self.state().made.insert(key.clone(), record.clone());
        Ok((record, false))
    }

    /// Takes a step's result from the caches that the build was given. One's own record is never replaced: where there is one
    /// of this parent whose layer is gone, only that layer will do.
    fn import(
        &self,
        step: &Step<'_, H::View>,
        parts: &Parts,
    ) -> Result<Option<(CacheRecord, String)>, BuildError<H::Error>> {
        let (key, parent) = (&step.known.key, step.parent());
        let own = self.cache.any(key);
        if !self.uses_cache(step.stage) || own.as_ref().is_some_and(|own| own.parent.as_ref() != parent) {
            return Ok(None);
        }
        let only = own.as_ref().and_then(|own| own.layer.as_ref());
        let id = step.id;
        let tell = |event: ImportEvent<'_>| match event {
            ImportEvent::Warning(text) => self.tell(BuildEvent::Warning { text }),
            ImportEvent::Moved(bytes, of) => self.tell(BuildEvent::Moved { id, bytes, of: Some(of) }),
        };
        let found = self.host.import(key, parent, only, &tell).map_err(BuildError::Host)?;
        let Some(Imported { layer, created, from }) = found else { return Ok(None) };
        let record = match own {
            Some(own) => {
                self.cache.touch(key);
                own
            }
            None => {
                let title = step.node.title.clone();
                let record = CacheRecord { schema: 1, parent: parent.cloned(), layer, created, title };
                self.cache.keep_parts(key, parts);
                self.cache.put(key, &record)?;
                record
            }
        };
        self.state().made.insert(key.clone(), record.clone());
        Ok(Some((record, from)))
    }

    fn explain(&self, step: &Step<'_, H::View>, reason: impl FnOnce() -> Reason) {
        if self.request.explain {
            self.tell(BuildEvent::Explained { id: step.id, reason: &reason() });
        }
    }

    /// Why a step is not in the cache.
    fn reason(&self, step: &Step<'_, H::View>, parts: &Parts) -> Reason {
        if !self.uses_cache(step.stage) {
            return Reason::NotAsked;
        }
        match self.cache.any(&step.known.key) {
            Some(record) if record.parent.as_ref() != step.parent() => Reason::ParentAnew,
            Some(_) => Reason::LayerGone,
            None => compare(parts, self.cache.nearest(&step.known.key, parts).as_ref()),
        }
    }

    fn uses_cache(&self, stage: &PlannedStage) -> bool {
        let request = self.request;
        !request.no_cache && !request.no_cache_stages.iter().any(|name| name.eq_ignore_ascii_case(&stage.label))
    }

    fn lookup(&self, step: &Step<'_, H::View>) -> Result<Option<CacheRecord>, H::Error> {
        let key = &step.known.key;
        if !self.uses_cache(step.stage) {
            return Ok(None);
        }
        let Some(record) = self.cache.get(key, step.parent()) else { return Ok(None) };
        if let Some(layer) = &record.layer
            && !self.host.has_layer(&layer.chain_id)?
        {
            return Ok(None);
        }
        self.cache.touch(key);
        Ok(Some(record))
    }

    /// Waits until no other build performs the step. Without the cache nobody waits for another's result.
    fn claim(&self, step: &Step<'_, H::View>) -> Result<Claim, BuildError<H::Error>> {
        if !self.uses_cache(step.stage) {
            return Ok(Claim { waited: false, _lock: None });
        }
        let mut waited = false;
        loop {
            if let Some(lock) = self.cache.claim(&step.known.key)? {
                return Ok(Claim { waited, _lock: Some(lock) });
            }
            waited = true;
            self.host.rest(LOOK).map_err(BuildError::Host)?;
        }
    }

    fn operate(
        &self,
        operation: &Operation,
        step: &Step<'_, H::View>,
    ) -> Result<Option<CommittedLayer>, StepError<H::Error>> {
        let id = step.id;
        let mut view = View {
            host: self.host,
            context: self.context,
            sources: &step.known.sources,
            chain: step.chain(),
            stages: &|stage| self.chain(stage),
            moved: &mut |bytes, of| self.tell(BuildEvent::Moved { id, bytes, of }),
            output: &mut |bytes| self.tell(BuildEvent::Output { id, bytes }),
        };
        kind(operation).run(&mut view)
    }
}

/// A step at its place.
struct Step<'s, V> {
    stage: &'s PlannedStage,
    node: &'s Node,
    known: &'s Known<V>,
    /// The stage as far as it stands below.
    done: &'s Done,
    id: u32,
}

impl<V> Step<'_, V> {
    /// Chain ids of what it is performed on.
    fn chain(&self) -> &[Digest] {
        if self.node.operation.is_detached() { &[] } else { &self.done.chain }
    }

    fn parent(&self) -> Option<&Digest> {
        self.chain().last()
    }
}

/// The layers that a `COPY --from` reads: of a stage, or of an image.
fn copied_stack<'o>(
    operation: &'o Operation,
    stage: &dyn Fn(usize) -> Vec<Digest>,
) -> Option<(&'o CopyPlan, Vec<Digest>)> {
    let Operation::Copy(plan) = operation else { return None };
    match &plan.from {
        CopyFrom::Stage(number) => Some((plan, stage(*number))),
        CopyFrom::Image(chain) => Some((plan, chain.clone())),
        CopyFrom::Context | CopyFrom::Named(_) => None,
    }
}

/// The right to perform a step.
struct Claim {
    /// Another build had it before.
    waited: bool,
    _lock: Option<RangeLock>,
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

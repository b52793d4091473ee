//! What came of a step: taken from this build, the cache, another build or a cache elsewhere, or performed.

use super::explain::compare;
use super::key::Known;
use super::kinds::{View, kind};
use super::work::Solver;
use super::{BuildError, BuildEvent, Done, Reason, StepError};
use crate::base::{Digest, Timestamp};
use crate::build::cache::{CacheRecord, Parts};
use crate::build::graph::{Node, Operation, PlannedStage};
use crate::step::{BuildHost, CommittedLayer, ImportEvent, Imported};
use crate::store::RangeLock;
use std::time::Duration;

/// Between two looks whether another build has performed a step.
const LOOK: Duration = Duration::from_millis(20);

/// A step at its place.
pub(super) struct Step<'s, V> {
    pub(super) stage: &'s PlannedStage,
    pub(super) node: &'s Node,
    pub(super) known: &'s Known<V>,
    /// The stage as far as it stands below.
    pub(super) done: &'s Done,
    pub(super) id: u32,
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

/// The right to perform a step.
struct Claim {
    /// Another build had it before.
    waited: bool,
    _lock: Option<RangeLock>,
}

impl<H: BuildHost> Solver<'_, H> {
    /// Returns a step's record, and whether it was there: from this build, the cache, or another build that is at it.
    pub(super) fn record(&self, step: &Step<'_, H::View>) -> Result<(CacheRecord, bool), BuildError<H::Error>> {
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
            moved: &|bytes, of| self.tell(BuildEvent::Moved { id, bytes, of }),
            output: &mut |bytes| self.tell(BuildEvent::Output { id, bytes }),
        };
        kind(operation).run(&mut view)
    }
}

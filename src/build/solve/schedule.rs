//! Which step may be performed next: pure bookkeeping over a graph.

use crate::base::Digest;
use crate::build::graph::{Graph, PlannedStage, Start};
use std::collections::BTreeSet;

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Job {
    /// Position of the stage in the graph.
    pub(super) stage: usize,
    /// Step of it; `None` is its `FROM`.
    pub(super) node: Option<usize>,
}

/// How far each stage is.
#[derive(Debug)]
pub(super) struct Schedule<'a> {
    graph: &'a Graph,
    stages: Vec<Progress>,
    /// Keys of the steps that are being performed.
    performed: BTreeSet<Digest>,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    /// Jobs that are done; the first is `FROM`.
    done: usize,
    /// Somebody is at its next job.
    busy: bool,
    /// Its next step has the key of one that is being performed.
    waits: Option<Digest>,
}

impl<'a> Schedule<'a> {
    pub(super) fn new(graph: &'a Graph) -> Self {
        Self { graph, stages: vec![Progress::default(); graph.stages.len()], performed: BTreeSet::new() }
    }

    /// Tells how many jobs can ever be done side by side.
    pub(super) fn width(&self) -> usize {
        self.stages.len()
    }

    /// Takes the next job: of the earliest stage that has one whose inputs are there.
    pub(super) fn take(&mut self) -> Option<Job> {
        let stage = (0..self.stages.len()).find(|stage| self.is_ready(*stage))?;
        self.stages[stage].busy = true;
        Some(Job { stage, node: self.stages[stage].done.checked_sub(1) })
    }

    fn is_ready(&self, stage: usize) -> bool {
        let (progress, planned) = (&self.stages[stage], &self.graph.stages[stage]);
        let waits = progress.waits.as_ref().is_some_and(|key| self.performed.contains(key));
        if progress.busy || waits || self.is_done(stage) {
            return false;
        }
        match progress.done.checked_sub(1) {
            None => base(planned).is_none_or(|base| self.is_done(base)),
            Some(node) => planned.nodes[node].operation.stages().all(|stage| self.is_done(stage)),
        }
    }

    /// Claims a key for a step; false while another step with it is being performed, and the job is to be put back.
    pub(super) fn claim(&mut self, job: Job, key: &Digest) -> bool {
        if self.performed.insert(key.clone()) {
            return true;
        }
        self.stages[job.stage].busy = false;
        self.stages[job.stage].waits = Some(key.clone());
        false
    }

    /// Notes that a job is done.
    pub(super) fn finish(&mut self, job: Job, key: Option<&Digest>) {
        let stage = &mut self.stages[job.stage];
        (stage.done, stage.busy, stage.waits) = (stage.done + 1, false, None);
        if let Some(key) = key {
            self.performed.remove(key);
        }
    }

    /// Tells whether a stage is done.
    pub(super) fn is_done(&self, stage: usize) -> bool {
        self.stages[stage].done > self.graph.stages[stage].nodes.len()
    }

    /// Tells whether all stages are done.
    pub(super) fn is_finished(&self) -> bool {
        (0..self.stages.len()).all(|stage| self.is_done(stage))
    }
}

/// The stage that a stage stands on.
fn base(stage: &PlannedStage) -> Option<usize> {
    match stage.start {
        Start::Stage(base) => Some(base),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::dockerfile::parse;
    use crate::build::graph::{Settings, plan};
    use crate::step::BaseImage;

    fn graph(text: &str) -> Graph {
        let image =
            || Some(BaseImage { id: Digest::of(b""), config: crate::oci::ImageConfig::default(), chain: Vec::new() });
        plan(&parse(text).unwrap(), &Settings::default(), &mut |_, _| image()).unwrap()
    }

    fn all(schedule: &mut Schedule<'_>) -> Vec<(usize, Option<usize>)> {
        std::iter::from_fn(|| schedule.take()).map(|job| (job.stage, job.node)).collect()
    }

    const DIAMOND: &str = "FROM x AS base\nRUN base\nFROM base AS left\nRUN left\nFROM base AS right\nRUN right\n\
                           FROM x\nRUN own\nCOPY --from=left /l /\nCOPY --from=right /r /\n";

    #[test]
    fn a_step_waits_for_what_it_stands_on_and_for_what_it_reads() {
        let graph = graph(DIAMOND);
        let mut schedule = Schedule::new(&graph);
        let job = |stage, node| Job { stage, node };
        assert_eq!(all(&mut schedule), [(0, None), (3, None)], "those on images need nobody");
        schedule.finish(job(3, None), None);
        assert_eq!(all(&mut schedule), [(3, Some(0))]);
        schedule.finish(job(0, None), None);
        assert_eq!(all(&mut schedule), [(0, Some(0))]);
        schedule.finish(job(3, Some(0)), None);
        assert_eq!(all(&mut schedule), [], "the copy waits for its stage");
        schedule.finish(job(0, Some(0)), None);
        assert_eq!(all(&mut schedule), [(1, None), (2, None)]);
        schedule.finish(job(1, None), None);
        schedule.finish(job(1, Some(0)), None);
        assert_eq!(all(&mut schedule), [(3, Some(1))]);
        schedule.finish(job(3, Some(1)), None);
        assert_eq!((all(&mut schedule), schedule.is_finished()), (vec![], false));
        schedule.finish(job(2, None), None);
        assert_eq!(all(&mut schedule), [(2, Some(0))]);
        schedule.finish(job(2, Some(0)), None);
        assert_eq!(all(&mut schedule), [(3, Some(2))]);
        schedule.finish(job(3, Some(2)), None);
        assert!(schedule.is_finished());
    }

    #[test]
    fn a_step_with_the_key_of_another_waits_for_it() {
        let graph = graph("FROM x AS a\nRUN same\nFROM x AS b\nRUN same\nFROM a\nCOPY --from=b /x /\n");
        let mut schedule = Schedule::new(&graph);
        let key = Digest::of(b"key");
        for job in [schedule.take().unwrap(), schedule.take().unwrap()] {
            schedule.finish(job, None);
        }
        let (first, second) = (schedule.take().unwrap(), schedule.take().unwrap());
        assert!(schedule.claim(first, &key));
        assert!(!schedule.claim(second, &key));
        assert_eq!(schedule.take(), None);
        schedule.finish(first, Some(&key));
        assert_eq!(all(&mut schedule), [(1, Some(0)), (2, None)]);
        assert!(schedule.claim(second, &key), "it looks for the record of the first then");
    }
}

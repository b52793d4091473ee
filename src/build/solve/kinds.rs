//! The kinds of steps there are, each behind [`BuildStep`]: the solver asks what a step reads and runs it, and knows no more.

use super::StepError;
use super::mounts::{Chains, Mounts};
use super::step::{self, Sources};
use crate::base::Digest;
use crate::build::context::Context;
use crate::build::graph::{CopyFrom, CopyPlan, Operation, PlannedSource, RunPlan};
use crate::step::{BuildHost, BuildStep, CommittedLayer, Inputs};

/// What a step is performed with.
pub(super) struct View<'v, H: BuildHost> {
    pub(super) host: &'v H,
    pub(super) context: &'v Context,
    /// Its inputs, found and digested.
    pub(super) sources: &'v Sources,
    /// Chain ids of the layers below it, bottom first.
    pub(super) chain: &'v [Digest],
    /// The stages it reads.
    pub(super) stages: Chains<'v>,
    /// Takes what it prints.
    pub(super) output: &'v mut dyn FnMut(&[u8]),
}

/// The layer it made; a step that changed nothing makes none.
pub(super) type Outcome<H> = Result<Option<CommittedLayer>, StepError<<H as BuildHost>::Error>>;

/// A step of some kind.
pub(super) type Kind<'o, 'v, H> = Box<dyn BuildStep<View<'v, H>, Outcome<H>> + 'o>;

/// Returns the step that performs an operation.
pub(super) fn kind<'o, 'v, H: BuildHost>(operation: &'o Operation) -> Kind<'o, 'v, H> {
    match operation {
        Operation::Run(run) => Box::new(run),
        Operation::Copy(copy) => Box::new(copy),
        Operation::Workdir { path, user } => Box::new(Workdir { path, user }),
    }
}

impl<'v, H: BuildHost> BuildStep<View<'v, H>, Outcome<H>> for &RunPlan {
    fn inputs(&self) -> Inputs {
        let trees = self.mounts.iter().filter_map(|mount| mount.source.tree());
        let paths = trees.filter(|(from, _)| **from == CopyFrom::Context).map(|(_, path)| path.to_owned());
        Inputs { paths: paths.collect(), ..Inputs::default() }
    }

    fn run(&self, view: &mut View<'v, H>) -> Outcome<H> {
        let mounts = Mounts::make(view.host, view.context, view.stages, &self.mounts)?;
        step::run(view.host, self, &mounts, view.chain, view.output).map(Some)
    }
}

impl<'v, H: BuildHost> BuildStep<View<'v, H>, Outcome<H>> for &CopyPlan {
    fn inputs(&self) -> Inputs {
        if self.from != CopyFrom::Context {
            return Inputs::default();
        }
        let patterns = self.sources.iter().filter_map(|source| match source {
            PlannedSource::Path(path) => Some(path.clone()),
            PlannedSource::Inline { .. } => None,
        });
        Inputs { patterns: patterns.collect(), exclude: self.exclude.clone(), ..Inputs::default() }
    }

    fn run(&self, view: &mut View<'v, H>) -> Outcome<H> {
        let layer = match &self.from {
            CopyFrom::Context => step::copy_context(view.host, view.context, &view.sources.picked, self, view.chain),
            CopyFrom::Stage(stage) => step::copy_layers(view.host, &(view.stages)(*stage), self, view.chain),
            CopyFrom::Image(from) => step::copy_layers(view.host, from, self, view.chain),
        };
        layer.map(Some)
    }
}

/// `WORKDIR`.
struct Workdir<'o> {
    path: &'o str,
    user: &'o str,
}

impl<'v, H: BuildHost> BuildStep<View<'v, H>, Outcome<H>> for Workdir<'_> {
    fn inputs(&self) -> Inputs {
        Inputs::default()
    }

    fn run(&self, view: &mut View<'v, H>) -> Outcome<H> {
        step::workdir(view.host, self.path, self.user, view.chain)
    }
}

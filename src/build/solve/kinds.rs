//! The kinds of steps there are, each behind [`BuildStep`]: the solver asks what a step reads and runs it, and knows no more.

use super::StepError;
use super::mounts::{Chains, Mounts};
use super::step::{self, Sources};
use crate::base::Digest;
use crate::build::context::Context;
use crate::build::graph::{CopyFrom, CopyPlan, Operation, PlannedSource, RunPlan};
use crate::step::{BuildHost, BuildStep, CommittedLayer, Inputs, Moved};

/// What a step is performed with.
pub(super) struct View<'v, H: BuildHost> {
    pub(super) host: &'v H,
    pub(super) context: &'v Context,
    /// Its inputs, found and digested.
    pub(super) sources: &'v Sources<H::View>,
    /// Chain ids of the layers below it, bottom first.
    pub(super) chain: &'v [Digest],
    /// The stages it reads.
    pub(super) stages: Chains<'v>,
    /// Told how far a transfer is.
    pub(super) moved: Moved<'v>,
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
        let mut inputs = Inputs::default();
        for (from, path) in self.mounts.iter().filter_map(|mount| mount.source.tree()) {
            match from {
                CopyFrom::Context => inputs.paths.push(path.to_owned()),
                CopyFrom::Named(name) => inputs.named_paths.push((name.clone(), path.to_owned())),
                CopyFrom::Stage(_) | CopyFrom::Image(_) => {}
            }
        }
        inputs
    }

    fn run(&self, view: &mut View<'v, H>) -> Outcome<H> {
        let mounts = Mounts::make(view.host, view.context, view.stages, &self.mounts)?;
        step::run(view.host, self, &mounts, view.chain, view.output).map(Some)
    }
}

impl<'v, H: BuildHost> BuildStep<View<'v, H>, Outcome<H>> for &CopyPlan {
    fn inputs(&self) -> Inputs {
        let named = match &self.from {
            CopyFrom::Context => None,
            CopyFrom::Named(name) => Some(name.clone()),
            CopyFrom::Stage(_) | CopyFrom::Image(_) => return Inputs::default(),
        };
        let patterns = self.sources.iter().filter_map(|source| match source {
            PlannedSource::Path(path) => Some(path.clone()),
            PlannedSource::Inline { .. } | PlannedSource::Remote(_) => None,
        });
        let remotes = self.sources.iter().filter_map(|source| match source {
            PlannedSource::Remote(wish) => Some(wish.clone()),
            PlannedSource::Path(_) | PlannedSource::Inline { .. } => None,
        });
        let (patterns, exclude, parents) = (patterns.collect(), self.exclude.clone(), self.parents);
        Inputs { patterns, exclude, parents, named, remotes: remotes.collect(), ..Inputs::default() }
    }

    fn run(&self, view: &mut View<'v, H>) -> Outcome<H> {
        let layer = match &self.from {
            from @ (CopyFrom::Context | CopyFrom::Named(_)) => {
                let source = view.context.tree(from).unwrap_or_else(|| view.context.source());
                step::copy_context(view.host, source, view.sources, self, view.chain, view.moved)
            }
            CopyFrom::Stage(stage) => {
                step::copy_layers(view.host, &(view.stages)(*stage), view.sources, self, view.chain, view.moved)
            }
            CopyFrom::Image(from) => step::copy_layers(view.host, from, view.sources, self, view.chain, view.moved),
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

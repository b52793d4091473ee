//! What tells a step from every other: its operation, what is below it, and what it reads.

use super::kinds::kind;
use super::step::{Sources, context_sources, layer_sources, look, mounted};
use super::work::Solver;
use super::{BuildEvent, Done, StepError};
use crate::base::Digest;
use crate::build::cache::Parts;
use crate::build::graph::{CopyFrom, CopyPlan, Operation, PlannedStage};
use crate::step::BuildHost;
use std::collections::BTreeMap;

/// What is known of a step before it is performed.
pub(super) struct Known<V> {
    pub(super) key: Digest,
    pub(super) parts: Parts,
    pub(super) sources: Sources<V>,
}

impl<H: BuildHost> Solver<'_, H> {
    /// Digest of the operation, what is below it, and what it reads.
    pub(super) fn key(
        &self,
        stage: &PlannedStage,
        number: usize,
        done: &Done,
        id: u32,
    ) -> Result<Known<H::View>, StepError<H::Error>> {
        let node = &stage.nodes[number];
        let operation = &node.operation;
        let mut inputs = kind::<H>(operation).inputs();
        let moved = |bytes, of| self.tell(BuildEvent::Moved { id, bytes, of });
        let mut sources = match copied_stack(operation, &|stage| self.chain(stage)) {
            Some((plan, from)) => layer_sources(self.host, self.cache, &from, plan, &moved)?,
            None => context_sources(self.context, &inputs, &moved)?,
        };
        sources.remotes = look(self.host, std::mem::take(&mut inputs.remotes), &moved)?;
        let remotes: Vec<&str> = sources.remotes.iter().map(|(_, found)| found.state.as_str()).collect();
        let own = sources.known.then(|| sources.content.digest.clone());
        let mut content = vec![own];
        // What a stage holds, not what it was made of: made anew, it may be another.
        for (stage, path) in stage_mounts(operation) {
            content.push(mounted(self.host, self.cache, &self.chain(stage), path, &moved)?);
        }
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

/// The stages that a `RUN` has mounted, and the paths in them.
fn stage_mounts(operation: &Operation) -> Vec<(usize, &str)> {
    let Operation::Run(plan) = operation else { return Vec::new() };
    let of_stage = |(from, path)| if let &CopyFrom::Stage(stage) = from { Some((stage, path)) } else { None };
    plan.mounts.iter().filter_map(|mount| mount.source.tree()).filter_map(of_stage).collect()
}

//! Why a Dockerfile cannot be planned, and what to do then.

use crate::build::dockerfile::{DockerfileError, LineRange};
use crate::step::RemoteError;

/// Why a Dockerfile cannot be planned.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("line {}: {problem}", lines.first)]
pub struct PlanError {
    /// Lines of the instruction.
    pub lines: LineRange,
    /// What is wrong.
    #[source]
    pub problem: PlanProblem,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanProblem {
    /// A word that cannot be expanded.
    #[error("expand {word:?}")]
    Expand {
        /// As written.
        word: String,
        /// Why.
        #[source]
        source: crate::build::dockerfile::ExpandError,
    },
    /// A `--mount` that is wrong once its variables are known.
    #[error("--mount")]
    Mount(#[from] crate::build::dockerfile::MountError),
    /// `--target` names no stage.
    #[error("there is no stage {name:?}; the stages are {}", known.join(", "))]
    NoTarget {
        /// As given.
        name: String,
        /// Names and indexes of the stages.
        known: Vec<String>,
    },
    /// `FROM` with nothing left of it.
    #[error("FROM {0}: the image name is empty; an ARG before the first FROM may lack its value")]
    EmptyImage(String),
    /// An image was not found; whoever looked it up knows why.
    #[error("image {0} is not to be had")]
    NoImage(String),
    /// `--platform`.
    #[error("platform {0:?} is not written os/architecture[/variant]")]
    Platform(String),
    /// `--from=$NAME`.
    #[error("--from={0} holds a variable; name a stage with FROM ${{...}} AS name and copy from that name")]
    FromVariable(String),
    /// An index that is not an earlier stage.
    #[error("--from={0} is not the index of an earlier stage")]
    FromIndex(String),
    /// A value that cannot be used.
    #[error("{instruction} {value:?}: {expected}")]
    Value {
        /// Instruction or flag.
        instruction: &'static str,
        /// Value, variables replaced.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A trigger of the base image that is no instruction.
    #[error("ONBUILD trigger of the base image: {0}")]
    Trigger(DockerfileError),
    /// Variables that make each other longer, repeated in every step.
    #[error("the plan of this file takes more than {} MiB", limit >> 20)]
    TooLarge {
        /// Bytes.
        limit: usize,
    },
    /// `ADD` of an address that nothing is fetched from.
    #[error("ADD")]
    Remote(#[from] RemoteError),
    /// `RUN --security=insecure` where that is not allowed.
    #[error("RUN --security=insecure is not allowed: it takes the walls around the step away")]
    Insecure,
    /// `FROM` a directory.
    #[error("FROM {0}: --build-context makes it a directory of files, which is no image")]
    DirectoryBase(String),
    /// `RUN --device`, by the name of the first.
    #[error("RUN --device={0}: a build step has no devices")]
    Device(String),
    /// Something the language has and this version does not do.
    #[error("{what} is not performed by this version")]
    NotPerformed {
        /// What.
        what: &'static str,
        /// What to do instead.
        hint: &'static str,
    },
}

impl PlanProblem {
    /// Puts the problem at an instruction.
    pub(super) fn at(self, lines: LineRange) -> PlanError {
        PlanError { lines, problem: self }
    }
}

impl PlanError {
    /// Returns what to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        match &self.problem {
            PlanProblem::NotPerformed { hint, .. } => Some((*hint).to_owned()),
            PlanProblem::Remote(_) => Some("ADD takes http://, https://, git:// and ssh:// addresses; the reference of a repository is written URL.git#REF:DIRECTORY".to_owned()),
            PlanProblem::Insecure => Some(
                "who trusts this Dockerfile builds with --allow security.insecure, where the operator has set allow_insecure = true in [build] of bulkhead.toml"
                    .to_owned(),
            ),
            PlanProblem::DirectoryBase(name) => {
                Some(format!("start FROM scratch and COPY --from={name}, or give docker-image://IMAGE"))
            }
            PlanProblem::Device(_) => Some("do what needs the device in a container: run --device".to_owned()),
            PlanProblem::Trigger(error) => error.hint(),
            PlanProblem::TooLarge { .. } => {
                Some("every step keeps its own environment: make the variables shorter, or the steps fewer".to_owned())
            }
            _ => None,
        }
    }
}

//! Why a build ends without an image.

use crate::build::dockerfile::{DockerfileError, LineRange, excerpt};
use crate::build::files::{CopyError, OwnerError, SourceError};
use crate::build::graph::PlanError;
use crate::build::ignore::IgnoreError;
use crate::store::StoreError;
use std::error::Error;

/// Why there is no image; `E` is the engine's error.
#[derive(Debug, thiserror::Error)]
pub enum BuildError<E: Error + Send + Sync + 'static> {
    /// The Dockerfile is not one.
    #[error("parse the Dockerfile")]
    Dockerfile(#[from] DockerfileError),
    /// The Dockerfile asks for what cannot be.
    #[error("plan the build")]
    Plan(#[from] PlanError),
    /// An image is not to be had.
    #[error("line {}: find image {reference}", lines.first)]
    Image {
        /// Reference as written, variables replaced.
        reference: String,
        /// Lines of the instruction.
        lines: LineRange,
        /// Why.
        #[source]
        source: E,
    },
    /// A step could not be performed.
    #[error("line {}: {title}", lines.first)]
    Step {
        /// The instruction.
        title: String,
        /// Its lines.
        lines: LineRange,
        /// Why.
        #[source]
        source: StepError<E>,
    },
    /// A command ended with an exit code that is not zero.
    #[error("line {}: {title} did not succeed: exit code {code}", lines.first)]
    Failed {
        /// The instruction.
        title: String,
        /// Its lines.
        lines: LineRange,
        /// Exit code.
        code: i32,
        /// The end of what it printed.
        tail: String,
    },
    /// The engine failed outside of a step.
    #[error("store the result of the build")]
    Host(#[source] E),
    /// The cache cannot be written.
    #[error("write the build cache")]
    Cache(#[from] StoreError),
}

impl<E: Error + Send + Sync + 'static> BuildError<E> {
    /// Returns the lines of the Dockerfile that the error is about.
    pub fn lines(&self) -> Option<LineRange> {
        match self {
            Self::Dockerfile(error) => Some(LineRange { first: error.at.line, last: error.at.line }),
            Self::Plan(error) => Some(error.lines),
            Self::Image { lines, .. } | Self::Step { lines, .. } | Self::Failed { lines, .. } => Some(*lines),
            Self::Host(_) | Self::Cache(_) => None,
        }
    }

    /// Returns the lines around the error, marked, and a caret where the column is known.
    pub fn excerpt(&self, dockerfile: &str) -> Option<String> {
        match self {
            Self::Dockerfile(error) => Some(error.excerpt(dockerfile)),
            other => other.lines().map(|lines| excerpt(dockerfile, lines, None)),
        }
    }

    /// Returns what to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Dockerfile(error) => error.hint(),
            Self::Plan(error) => error.hint(),
            Self::Step { source: StepError::Source(SourceError::Ignored(_)), .. } => {
                Some("take it back with a line !PATH at the end of .dockerignore".to_owned())
            }
            Self::Step { source: StepError::Source(SourceError::NotFound(_) | SourceError::NoMatch(_)), .. } => Some(
                "sources are relative to the build context, or to the root of the stage or image that --from names"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// Why a step could not be performed.
#[derive(Debug, thiserror::Error)]
pub enum StepError<E: Error + Send + Sync + 'static> {
    /// Its sources.
    #[error(transparent)]
    Source(SourceError),
    /// Its destination.
    #[error(transparent)]
    Copy(CopyError),
    /// `--chown` or `USER`.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// `--exclude`.
    #[error("--exclude")]
    Exclude(#[from] IgnoreError),
    /// Nothing is left to copy.
    #[error("--exclude leaves nothing to copy")]
    NothingLeft,
    /// The command's exit code.
    #[error("exit code {code}")]
    Exit {
        /// Exit code.
        code: i32,
        /// The end of its output.
        tail: String,
    },
    /// The tree of files.
    #[error("open the step's files")]
    Tree(#[source] std::io::Error),
    /// The engine.
    #[error(transparent)]
    Host(E),
}

impl<E: Error + Send + Sync + 'static> From<SourceError> for StepError<E> {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl<E: Error + Send + Sync + 'static> From<CopyError> for StepError<E> {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Source(source) => Self::Source(source),
            other => Self::Copy(other),
        }
    }
}

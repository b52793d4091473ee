//! What happens during a build, as data; the door prints it.

use super::Reason;
use crate::base::Digest;
use crate::build::dockerfile::LineRange;
use std::time::Duration;

/// Names a step: `[build 2/5] RUN make`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepLabel<'a> {
    /// Number within the build, from 1.
    pub id: u32,
    /// Stage; empty in a file with one.
    pub stage: &'a str,
    /// Number within the stage, from 1 (`FROM`).
    pub number: u32,
    /// Steps of the stage.
    pub total: u32,
    /// The instruction.
    pub text: &'a str,
    /// Its lines.
    pub lines: LineRange,
}

/// One thing that happened. Steps are named by [`StepLabel::id`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BuildEvent<'a> {
    /// The graph stands.
    Planned {
        /// Steps of all stages, `FROM` included.
        steps: u32,
    },
    /// A remark.
    Warning {
        /// Text.
        text: &'a str,
    },
    /// A step begins.
    StepStarted(&'a StepLabel<'a>),
    /// It need not be done.
    Cached {
        /// Step.
        id: u32,
    },
    /// Why it was performed, or was not; told where that was asked for.
    Explained {
        /// Step.
        id: u32,
        /// Why.
        reason: &'a Reason,
    },
    /// It printed something; both streams, as they came.
    Output {
        /// Step.
        id: u32,
        /// Bytes, not cut at lines.
        bytes: &'a [u8],
    },
    /// Bytes were fetched or copied for it.
    Moved {
        /// Step.
        id: u32,
        /// Bytes that are here.
        bytes: u64,
        /// All there will be, where that is known.
        of: Option<u64>,
    },
    /// It is done.
    StepDone {
        /// Step.
        id: u32,
        /// How long it took.
        elapsed: Duration,
    },
    /// It ended with an exit code that is not zero.
    StepFailed {
        /// Step.
        id: u32,
    },
    /// It was ended because another failed.
    StepCanceled {
        /// Step.
        id: u32,
    },
    /// The image stands.
    Finished {
        /// Image id.
        image: &'a Digest,
        /// Its new names.
        tags: &'a [String],
    },
}

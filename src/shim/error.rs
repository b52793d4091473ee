//! What can go wrong between a client and a shim.

use super::protocol::Failure;
use crate::store::StoreError;
use std::io;
use std::path::PathBuf;

/// Why a shim could not be reached or did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// Nobody listens: the container is not running.
    #[error("container is not running: no shim answers in {}", dir.display())]
    NotRunning {
        /// The shim's directory.
        dir: PathBuf,
    },
    /// A system call failed.
    #[error("{what}")]
    Io {
        /// What was attempted on what.
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The state could not be written.
    #[error("write the state of the container")]
    State(#[from] StoreError),
    /// The other side speaks another language.
    #[error("talk to the shim")]
    Codec(#[from] CodecError),
    /// No answer in time.
    #[error("shim did not answer {request} within {seconds} s")]
    Timeout {
        /// What was asked.
        request: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// The shim ended before it answered.
    #[error("shim ended before it answered {request}")]
    Gone {
        /// What was asked.
        request: &'static str,
    },
    /// The request cannot be carried out now.
    #[error("{0}")]
    Refused(String),
    /// A process could not be started.
    #[error("{}", .0.message)]
    Failed(Failure),
    /// An answer that does not belong to the question.
    #[error("shim answered {request} with something else")]
    Unexpected {
        /// What was asked.
        request: &'static str,
    },
}

/// Why a frame could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The socket failed.
    #[error("{what} a frame")]
    Io {
        /// `send` or `receive`.
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A frame above the limit.
    #[error("frame of {length} bytes is above the limit of {limit} bytes")]
    TooLong {
        /// Its announced length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Not the JSON that was expected.
    #[error("frame is not what the protocol says")]
    Json(#[from] serde_json::Error),
    /// Descriptors where none belong, or more than fit.
    #[error("descriptors of a frame were cut off or out of place")]
    Descriptors,
    /// The other end belongs to another user.
    #[error("peer has user id {uid}, not ours")]
    Peer {
        /// Its user id.
        uid: u32,
    },
}

/// Makes an [`ShimError::Io`] of a failed call.
pub(super) fn io_error(what: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> ShimError {
    let what = what.into();
    move |errno| ShimError::Io { what, source: errno.into() }
}

impl CodecError {
    /// Tells whether the other end has gone, whatever was under way.
    pub(super) fn is_end(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), BrokenPipe | ConnectionReset))
    }
}

impl ShimError {
    /// As [`CodecError::is_end`].
    pub(super) fn is_end(&self) -> bool {
        matches!(self, Self::Codec(error) if error.is_end())
    }
}

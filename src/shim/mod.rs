//! The supervisor of one container: launches it, carries its streams, writes its log, watches its health, restarts it
//! by policy, answers on its control socket, and leaves its final state behind.
//!
//! One thread, one `epoll` loop, no async runtime. It links no driver: networks are set up by the engine before the
//! container is released and taken down by a clean-up process after it ended. It is forked before the command line
//! allocates anything (`ARCHITECTURE.md` "One container, four processes"), so that it stays small.

mod client;
mod client_launch;
mod client_stream;
mod codec;
mod control;
mod dns;
mod error;
mod forward;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod groups;
mod jail;
mod lock;
mod log;
mod log_reader;
mod plan;
mod policy;
mod poller;
mod probe;
pub mod protocol;
mod requests;
mod sandboxed;
mod seed;
mod serve;
mod state_files;
mod stop;
mod streams;
mod supervisor;
mod title;

pub use client::{Client, Exec, Stopped};
pub use client_launch::{LaunchConn, Prepared};
pub use error::{CodecError, ShimError};
pub use lock::{is_alive, shim_pid};
pub use log::LogStream;
pub use log_reader::{LogEntry, LogError, LogOptions, LogReader};
pub use plan::*;
pub use sandboxed::role;
pub use seed::{Seed, spawn_shim};
pub use state_files::{LastState, StateFiles};

#[cfg(test)]
mod tests;

//! Use cases: containers, images, volumes, networks, exec, logs, build steps. Prints nothing; both doors (`cli`,
//! later `api`) and both workloads (`build`, `compose`) come through here.

mod boot;
mod build;
mod build_agent;
mod build_cache;
mod build_git;
mod build_imports;
mod build_mounts;
mod build_remote;
mod build_run;
mod commit;
mod containers;
mod create;
mod credentials;
mod error;
mod exec;
mod git_process;
mod hardening;
mod images;
pub mod merge;
mod nameless;
mod names;
mod network;
pub mod ranges;
pub mod record;
mod redact;
mod registry;
mod remove;
pub mod request;
pub mod spec;
mod start;
mod stop;
mod stubs;
mod undo;
mod volumes;
mod walls;

pub use build::{Builder, LayerView, NamedLayout, Secret, StepOptions, StepTree};
pub use build_cache::{CacheMount, StepCache};
pub use build_git::GitAccess;
pub use build_imports::CacheSource;
pub use build_remote::Fetched;
pub use commit::CommitRequest;
pub use credentials::{CredentialError, Keeper, Logins};
pub use error::EngineError;
pub use exec::ExecRequest;
pub use registry::{Attention, Fetch};
pub use remove::Parting;
pub use start::{AttachRequest, Launcher, Started};
pub use stop::Stopping;
pub use volumes::VolumeEntry;

use crate::config::Settings;
use crate::store::Paths;

/// The engine over one store.
pub struct Engine {
    /// Where everything lies.
    pub paths: Paths,
    /// The operator's settings.
    pub settings: Settings,
}

impl Engine {
    /// Opens a store, making its directories when missing.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn open(paths: Paths, settings: Settings) -> Result<Self, EngineError> {
        paths.create()?;
        Ok(Self { paths, settings })
    }
}

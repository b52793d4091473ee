//! A container's record: what was asked for and what was decided at create (`config.json`, written by the engine only).

use super::request::CreateRequest;
use crate::base::{ContainerId, Digest, Timestamp};
pub use crate::network::{NetworkRecord, PublishedPort};
use crate::sandbox::{Limits, Process};
use crate::security::Hardening;
use crate::shim::{HealthPlan, LastState, LogPlan, RestartPolicy, State, StateFiles};
use crate::store::{Durability, Paths, StoreError, read_json, write_json};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;

/// Version of the record's form.
pub const SCHEMA: u32 = 1;

/// A container as it was created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Version of this record's form.
    pub schema: u32,
    /// Identifier.
    pub id: ContainerId,
    /// Name.
    pub name: String,
    /// Name before the last change of it; given back with the container should the change have been cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_name: Option<String>,
    /// When it was created.
    pub created: Timestamp,
    /// What was asked for.
    pub request: CreateRequest,
    /// The image it was made from; `None` with `--rootfs`.
    pub image: Option<ImageUse>,
    /// The first process, image and request merged.
    pub process: Process,
    /// Its environment without what every container has, as `inspect` shows it.
    #[serde(default)]
    pub env: Vec<String>,
    /// Entrypoint in force.
    pub entrypoint: Vec<String>,
    /// Command in force.
    pub command: Vec<String>,
    /// Host name inside.
    pub hostname: String,
    /// Labels of the image and the request merged.
    pub labels: Vec<(String, String)>,
    /// Exposed ports, `80/tcp`.
    pub exposed: Vec<String>,
    /// Mounts, sources resolved.
    pub mounts: Vec<MountPoint>,
    /// Limits in force.
    pub limits: Limits,
    /// Walls; the seccomp filter is compiled at start from `seccomp`.
    pub hardening: Hardening,
    /// Seccomp profile in force.
    pub seccomp: SeccompChoice,
    /// Restart policy in force.
    pub restart: RestartPolicy,
    /// Signal number of `stop`.
    pub stop_signal: i32,
    /// Seconds `stop` waits; negative waits for ever.
    pub stop_timeout: i64,
    /// Health check in force.
    pub health: Option<HealthPlan>,
    /// Log; `None` keeps none.
    pub log: Option<LogPlan>,
    /// The network as it was attached at the last start.
    pub network: NetworkView,
}

/// Which seccomp profile a container runs under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeccompChoice {
    /// What ordinary images need.
    Default,
    /// Less.
    Strict,
    /// No filter.
    Unconfined,
    /// The profile the user gave, kept as `seccomp.json` beside the record; the text is where it came from.
    File(String),
}

/// The image a container was made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageUse {
    /// As the user wrote it.
    pub name: String,
    /// Digest of the image's config.
    pub id: Digest,
}

/// One mount of a container, as `inspect` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MountPoint {
    /// Kind.
    pub kind: MountKind,
    /// Name of the volume; empty for others.
    pub name: String,
    /// Directory or file on the host; empty for tmpfs.
    pub source: PathBuf,
    /// Path inside.
    pub target: String,
    /// Whether it may be written.
    pub writable: bool,
    /// Whether the volume is anonymous and goes with `rm -v` and `--rm`.
    pub anonymous: bool,
    /// Options of a tmpfs.
    pub options: Vec<String>,
    /// Whether mounts below a bind's source come along.
    pub recursive: bool,
}

/// Kinds of mounts, in Docker's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A directory or file of the host.
    Bind,
    /// A volume of ours.
    Volume,
    /// Memory.
    Tmpfs,
}

/// The network of a container as `ps` and `inspect` show it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkView {
    /// `bridge`, `host`, `none`, `container:<id>`.
    pub name: String,
    /// Address inside.
    pub address: Option<IpAddr>,
    /// Length of the subnet's prefix.
    pub prefix: u8,
    /// Gateway.
    pub gateway: Option<IpAddr>,
    /// Hardware address.
    pub mac: String,
    /// Published ports as they are.
    pub published: Vec<PublishedPort>,
}

/// A container with what its shim saw.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// As it was created.
    pub record: ContainerRecord,
    /// As it is.
    pub state: State,
}

impl ContainerRecord {
    /// Whether it must survive a power cut; containers removed on exit need not.
    pub fn durability(&self) -> Durability {
        if self.request.auto_remove { Durability::Atomic } else { Durability::Synced }
    }

    /// Returns the files of its state. One that is removed on exit leaves none behind.
    pub fn state_files(&self, paths: &Paths) -> StateFiles {
        let run_dir = paths.container_run(&self.id);
        let last = || LastState {
            file: paths.container(&self.id).join("state.json"),
            spare: run_dir.with_extension("state.json"),
        };
        StateFiles { live: run_dir.join("state.json"), last: (!self.request.auto_remove).then(last) }
    }

    /// Reads a container's record.
    ///
    /// # Errors
    /// When there is none or it cannot be read.
    pub fn load(paths: &Paths, id: &ContainerId) -> Result<Self, StoreError> {
        read_json(&paths.container(id).join("config.json"))
    }

    /// Writes the record; the caller holds the container's lock or has just made it.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn save(&self, paths: &Paths) -> Result<(), StoreError> {
        write_json(&paths.container(&self.id).join("config.json"), self, self.durability())
    }
}

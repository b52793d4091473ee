//! What can go wrong in a use case.

use crate::base::{ContainerId, Digest};
use crate::shim::protocol::{Failure, FailureKind};
use crate::store::{NameError, StoreError};
use std::path::PathBuf;

/// A use case failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There is no such container.
    #[error("No such container: {0}")]
    NoContainer(String),
    /// A prefix of several ids.
    #[error("container id {0} is ambiguous: several begin like this, give more digits")]
    Ambiguous(String),
    /// The container runs, and must not.
    #[error("cannot {action} container {name}: it is {status}")]
    Status {
        /// What was attempted.
        action: &'static str,
        /// The container's name.
        name: String,
        /// Its status.
        status: &'static str,
    },
    /// The container must be stopped first.
    #[error(
        "cannot remove container {name:?}: container is running: stop the container before removing or force remove"
    )]
    Running {
        /// The container's name.
        name: String,
        /// Its id.
        id: ContainerId,
    },
    /// The container does not run.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// The shim does not end.
    #[error("container {0} was killed, but its supervisor did not end within 10 s")]
    Stuck(String),
    /// The container keeps no log.
    #[error("container {0} keeps no log: it was created with --log-driver none")]
    NoLog(String),
    /// The process could not be started.
    #[error("{}", failure.message)]
    Start {
        /// What the shim said.
        failure: Failure,
    },
    /// A mount cannot be made.
    #[error("invalid mount {target:?}: {reason}")]
    Mount {
        /// Path inside.
        target: String,
        /// What is wrong.
        reason: String,
    },
    /// A bind source does not exist.
    #[error("invalid mount config for type \"bind\": bind source path does not exist: {}", path.display())]
    BindSource {
        /// Path on the host.
        path: PathBuf,
    },
    /// A device cannot be given.
    #[error("--device {}: {reason}", path.display())]
    Device {
        /// Path on the host.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Something asked for does not go together.
    #[error("conflicting options: {0}")]
    Conflict(String),
    /// So little memory that no program starts.
    #[error("--memory {0} is too little: the minimum memory limit allowed is 6MB")]
    Memory(crate::base::Bytes),
    /// The platform asked for is misspelled.
    #[error("--platform {0:?}: it is written os/architecture[/variant]")]
    BadPlatform(String),
    /// The volume is in use.
    #[error("remove {name}: volume is in use - [{}]", users.join(", "))]
    VolumeInUse {
        /// The volume.
        name: String,
        /// Containers.
        users: Vec<String>,
    },
    /// Network mode not known.
    #[error("network {0} not found; known are bridge, host, none and container:NAME")]
    NoNetwork(String),
    /// The root directory is not usable.
    #[error("the root file system {} is not a directory", .0.display())]
    RootFs(PathBuf),
    /// Request and image do not go together.
    #[error(transparent)]
    Merge(#[from] super::merge::MergeError),
    /// A hardening option cannot be used.
    #[error(transparent)]
    Hardening(#[from] super::hardening::HardeningError),
    /// The seccomp profile is no text.
    #[error("the seccomp profile {0} is not UTF-8 text")]
    ProfileText(String),
    /// The seccomp profile cannot be compiled.
    #[error(transparent)]
    Seccomp(#[from] crate::security::seccomp::SeccompError),
    /// The name cannot be taken.
    #[error(transparent)]
    Name(#[from] NameError),
    /// No id range is free.
    #[error(transparent)]
    Range(#[from] super::ranges::RangeError),
    /// Images.
    #[error(transparent)]
    Image(#[from] crate::image::ImageError),
    /// Volumes.
    #[error(transparent)]
    Volume(#[from] crate::volume::VolumeError),
    /// Filling a volume.
    #[error(transparent)]
    Fill(#[from] crate::volume::FillError),
    /// The image is for another platform.
    #[error("image {image} is for {has}, not for {wanted}")]
    Platform {
        /// The image.
        image: String,
        /// Its platform.
        has: String,
        /// The one asked for.
        wanted: String,
    },
    /// A layer that was there is gone.
    #[error("layer {0} is not in the store; build again")]
    MissingLayer(Digest),
    /// An image name is misspelled.
    #[error(transparent)]
    Reference(#[from] crate::oci::ReferenceError),
    /// A build step asks for the host's network.
    #[error("RUN --network=host: the build does not give it; build with --network=host if you trust this Dockerfile")]
    HostNetwork,
    /// A build step must have a secret that was not given.
    #[error("the step needs secret {0:?}: give it with --secret id={0},src=FILE or --secret id={0},env=NAME")]
    NoSecret(String),
    /// A secret cannot be a variable.
    #[error("secret {id:?} cannot be the variable {name}: it is no text, or has a NUL byte")]
    SecretText {
        /// The secret.
        id: String,
        /// The variable.
        name: String,
    },
    /// A build step must have an agent that was not given.
    #[error("the step needs SSH agent {0:?}: give it with --ssh {0} (the agent of SSH_AUTH_SOCK) or --ssh {0}=SOCKET")]
    NoAgent(String),
    /// A repository cannot be had.
    #[error("git cannot fetch {url}: {what}")]
    Repository {
        /// Its address.
        url: String,
        /// What is wrong.
        what: String,
    },
    /// Work on a repository failed.
    #[error("fetch repository {url}: {what}")]
    Git {
        /// Its address.
        url: String,
        /// What was attempted.
        what: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A repository behind ssh without keys.
    #[error("fetch repository {0}: it is reached with ssh, and the build was given no agent")]
    NoRepositoryAgent(String),
    /// What a place served changed between two looks.
    #[error("{0} serves something else than a moment ago; build again")]
    RemoteChanged(String),
    /// Told to end.
    #[error("interrupted")]
    Interrupted,
    /// What mounts left in a build step's tree cannot be removed.
    #[error("remove empty mount points from the step's files")]
    Stubs(#[source] std::io::Error),
    /// The output of a build step ended early.
    #[error("read the output of the build step")]
    Output(#[source] std::io::Error),
    /// The image's files cannot be looked at.
    #[error("open the image's files to fill a volume from them")]
    View(#[source] rustix::io::Errno),
    /// A host name for `/etc/hosts` cannot be used.
    #[error(transparent)]
    Host(#[from] crate::network::HostError),
    /// A linked container has no address.
    #[error("cannot link to container {container}: it is not running on a network of ours")]
    Link {
        /// The container.
        container: String,
    },
    /// The network.
    #[error(transparent)]
    Network(#[from] crate::network::NetworkError),
    /// The shim.
    #[error(transparent)]
    Shim(#[from] crate::shim::ShimError),
    /// The sandbox's groups and processes.
    #[error(transparent)]
    Sandbox(#[from] crate::sandbox::LaunchError),
    /// The log.
    #[error(transparent)]
    Log(#[from] crate::shim::LogError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl EngineError {
    /// Returns the exit code of `run`, `create` and `exec` for this error: 125, or 126 and 127 for the command itself.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Start { failure } => match failure.kind {
                FailureKind::NotFound => 127,
                FailureKind::NotExecutable => 126,
                FailureKind::Runtime => 125,
            },
            _ => 125,
        }
    }
}

//! What a build step may ask of the engine.
//!
//! The solver performs steps through [`BuildHost`], which the engine implements: it owns images, snapshots and sandboxes;
//! this module only names what passes between them. Later, steps that guests perform stand beside the builtin ones here.

use crate::base::Digest;
use crate::oci::{ImageConfig, Platform};
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// An image to build on or to copy from.
#[derive(Clone, Debug, PartialEq)]
pub struct BaseImage {
    /// Image id.
    pub id: Digest,
    /// Its configuration; `rootfs.diff_ids` belong to `chain`.
    pub config: ImageConfig,
    /// Chain ids of its layers, bottom first.
    pub chain: Vec<Digest>,
}

/// A layer made by a step.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CommittedLayer {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Digest of the stack up to here.
    pub chain_id: Digest,
    /// Bytes of file content.
    pub size: u64,
}

/// A file that a `RUN` needs and that is in no layer: the script of a here-document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineFile {
    /// Absolute path inside; its directory is made as needed and is gone after the step.
    pub path: String,
    /// What it holds.
    pub content: Vec<u8>,
    /// Mode.
    pub mode: u32,
}

/// Which network a `RUN` has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepNetwork {
    /// What the build says.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's.
    Host,
}

/// A command to run in a step's tree, with the same walls as a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOrder {
    /// Program and arguments; the program is looked up in the step's own `PATH`.
    pub args: Vec<String>,
    /// Environment: `NAME=value`. `HOME` is the user's where it is not given.
    pub env: Vec<String>,
    /// Working directory, absolute.
    pub cwd: String,
    /// User in any form of the specification; empty is root.
    pub user: String,
    /// Network.
    pub network: StepNetwork,
    /// Files that exist during the step only.
    pub files: Vec<InlineFile>,
}

/// A file tree that can be walked from a descriptor.
pub trait Tree {
    /// Returns the root directory: the merged view, ids plain. It may be opened when it is first asked for.
    ///
    /// # Errors
    /// When the system refuses to show the tree.
    fn root(&self) -> Result<BorrowedFd<'_>, std::io::Error>;
}

/// What the engine does for the builder; several threads ask at once.
pub trait BuildHost: Sync {
    /// What can go wrong there.
    type Error: std::error::Error + Send + Sync + 'static;
    /// A writable tree on top of layers; dropping it uncommitted removes it.
    type Active: Tree;
    /// A read-only tree; dropping it lets it go.
    type View: Tree;

    /// Finds an image by reference or id.
    ///
    /// # Errors
    /// When there is none for the platform.
    fn resolve_image(&self, reference: &str, platform: &Platform) -> Result<BaseImage, Self::Error>;

    /// Tells whether a committed layer is here, and keeps it for the length of the build.
    ///
    /// # Errors
    /// When its record cannot be read.
    fn has_layer(&self, chain_id: &Digest) -> Result<bool, Self::Error>;

    /// Makes a writable tree on layers (chain ids, bottom first).
    ///
    /// # Errors
    /// When a layer is missing or the system refuses.
    fn prepare(&self, chain: &[Digest]) -> Result<Self::Active, Self::Error>;

    /// Opens layers for reading (chain ids, bottom first; none is an empty tree).
    ///
    /// # Errors
    /// When a layer is missing or the system refuses.
    fn view(&self, chain: &[Digest]) -> Result<Self::View, Self::Error>;

    /// Runs a command in a tree and returns its exit code; `output` gets both streams as they come, and nothing (an
    /// empty slice) from time to time while the command is silent.
    ///
    /// # Errors
    /// When the command could not be started; a command that fails is no error here.
    fn run(&self, active: &Self::Active, order: &RunOrder, output: &mut dyn FnMut(&[u8])) -> Result<i32, Self::Error>;

    /// Unpacks an archive (tar; plain, gzip or zstd) into a tree of its own; owners come from the archive.
    ///
    /// # Errors
    /// When it is no such archive, is damaged, or leaves its root.
    fn unpack(&self, archive: File) -> Result<Self::View, Self::Error>;

    /// Makes a tree's changes a layer.
    ///
    /// # Errors
    /// When the system refuses.
    fn commit(&self, active: Self::Active) -> Result<CommittedLayer, Self::Error>;

    /// Waits for a moment, for what another build does.
    ///
    /// # Errors
    /// At once, when the build is told to end.
    fn rest(&self, time: Duration) -> Result<(), Self::Error>;

    /// Has every step that other threads perform end, and lets none begin: they fail as interrupted ones do.
    fn halt(&self);

    /// Stores an image of these layers (chain ids, bottom first), tags it, and returns its id.
    ///
    /// # Errors
    /// When a name is bad or the system refuses.
    fn create_image(&self, config: &ImageConfig, chain: &[Digest], tags: &[String]) -> Result<Digest, Self::Error>;
}

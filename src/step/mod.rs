//! What a build step may ask of the engine.
//!
//! The solver performs steps through [`BuildHost`], which the engine implements: it owns images, snapshots and sandboxes;
//! this module only names what passes between them. Later, steps that guests perform stand beside the builtin ones here.

mod material;
mod remote;

pub use material::Material;
pub use remote::{Moved, Remote, RemoteError, RemoteFile, RemoteWish, Repository, bare_address, is_file_address};

use crate::base::{Digest, Timestamp};
use crate::oci::{ImageConfig, Platform};
use std::collections::BTreeMap;
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

/// What a step led to elsewhere, its layer taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The layer; a step that changed nothing has none.
    pub layer: Option<CommittedLayer>,
    /// When the step was done.
    pub created: Timestamp,
    /// Which cache had it.
    pub from: String,
}

/// What is told while a step is looked for in the caches that a build was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportEvent<'e> {
    /// Something is of no use.
    Warning(&'e str),
    /// That many bytes of its layer are here, of all there will be.
    Moved(u64, u64),
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
    /// Without walls, as `run --privileged`; whoever asks has made sure that it is allowed.
    pub insecure: bool,
    /// Files that exist during the step only.
    pub files: Vec<InlineFile>,
    /// Secrets it asks for.
    pub secrets: Vec<SecretWish>,
    /// Agents it asks for.
    pub agents: Vec<AgentWish>,
}

/// A secret that a step asks for by name (*Dockerfile reference "RUN --mount=type=secret"*).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SecretWish {
    /// Name the command line gives it under.
    pub id: String,
    /// The step fails without it.
    pub required: bool,
    /// Absolute path of the file that holds it; `None` where only a variable does.
    pub target: Option<String>,
    /// Variable that holds it.
    pub env: Option<String>,
    /// Owner and mode of the file.
    pub access: Access,
}

/// An agent that a step asks for by name (*Dockerfile reference "RUN --mount=type=ssh"*).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct AgentWish {
    /// Name the command line gives it under.
    pub id: String,
    /// The step fails without it.
    pub required: bool,
    /// Absolute path of the socket.
    pub target: String,
    /// Owner and mode of the socket.
    pub access: Access,
}

/// Owner, group and mode of something that a step is given; ids as they are inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Access {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// Who may use a cache at the same time (*Dockerfile reference "RUN --mount=type=cache", `sharing`*).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// All at once.
    #[default]
    Shared,
    /// Whoever finds it in use gets another one.
    Private,
    /// One after another.
    Locked,
}

/// A directory that is kept between builds and is in no layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheWish {
    /// Digest of all that makes it this cache: name, what it began with, owner and mode.
    pub key: Digest,
    /// Name, for people.
    pub id: String,
    /// Who may use it at the same time.
    pub sharing: Sharing,
    /// Owner and mode of the directory when it is made.
    pub access: Access,
    /// Whether the caller fills it when it is new ([`CacheTree::is_new`]).
    pub filled: bool,
}

/// A cache in use; dropping it lets the next one in.
pub trait CacheTree: Tree {
    /// Tells whether nobody has used it yet and the caller must fill it before a step runs.
    fn is_new(&self) -> bool;
}

/// A mount of a step, besides its secrets and agents.
pub struct StepMount<'a, H: BuildHost + ?Sized> {
    /// Absolute path inside; made as needed and gone after the step.
    pub target: String,
    /// The step may not write to it.
    pub readonly: bool,
    /// What is mounted.
    pub source: StepSource<'a, H>,
}

/// What a step's mount shows.
pub enum StepSource<'a, H: BuildHost + ?Sized> {
    /// A path of a tree, its links resolved inside the tree. What is written there is gone with the tree.
    Tree(&'a H::Active, String),
    /// A cache.
    Cache(&'a H::Cache),
    /// Memory of at most so many bytes; `None` is half of the machine's.
    Tmpfs(Option<u64>),
}

/// A file tree that can be walked from a descriptor.
pub trait Tree {
    /// Returns the root directory: the merged view, ids plain. It may be opened when it is first asked for.
    ///
    /// # Errors
    /// When the system refuses to show the tree.
    fn root(&self) -> Result<BorrowedFd<'_>, std::io::Error>;
}

/// Files of the build context that a step reads: they are in its key, and it is shown no others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Patterns, as `COPY` takes them.
    pub patterns: Vec<String>,
    /// Paths, letter for letter.
    pub paths: Vec<String>,
    /// Patterns, relative to each match of `patterns`, of what is left out.
    pub exclude: Vec<String>,
    /// Matches of `patterns` keep the directories above them.
    pub parents: bool,
    /// Named context that `patterns` are looked up in, instead of the build's own.
    pub named: Option<String>,
    /// Names of further contexts, with a path in each.
    pub named_paths: Vec<(String, String)>,
    /// Files and repositories that are fetched.
    pub remotes: Vec<RemoteWish>,
}

/// One kind of build step. The builtin ones implement it (`build/solve/kinds.rs`), those of guests will: whoever solves a graph
/// knows what a step reads and how it is run, and no more. `V` is what it is run with, `O` what comes of it.
pub trait BuildStep<V, O> {
    /// Returns what it reads of the context.
    fn inputs(&self) -> Inputs;

    /// Performs it.
    fn run(&self, view: &mut V) -> O;
}

/// What the engine does for the builder; several threads ask at once.
pub trait BuildHost: Sync {
    /// What can go wrong there.
    type Error: std::error::Error + Send + Sync + 'static;
    /// A writable tree on top of layers; dropping it uncommitted removes it.
    type Active: Tree;
    /// A read-only tree; dropping it lets it go.
    type View: Tree + Send;
    /// A cache in use.
    type Cache: CacheTree;

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
    /// When the command could not be started, or a secret or agent it must have was not given; a command that fails is no
    /// error here.
    fn run(
        &self,
        active: &Self::Active,
        order: &RunOrder,
        mounts: &[StepMount<'_, Self>],
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<i32, Self::Error>;

    /// Opens a cache, waiting for whoever keeps it from the caller.
    ///
    /// # Errors
    /// When the system refuses or the build is told to end.
    fn cache(&self, wish: &CacheWish) -> Result<Self::Cache, Self::Error>;

    /// Says that a new cache is filled.
    ///
    /// # Errors
    /// When the system refuses.
    fn filled(&self, cache: &Self::Cache) -> Result<(), Self::Error>;

    /// Unpacks an archive (tar; plain, gzip, zstd, bzip2 or xz) into a tree of its own; owners come from the archive. `None`
    /// when the file is no archive.
    ///
    /// # Errors
    /// When the archive is damaged, or leaves its root.
    fn unpack(&self, file: File) -> Result<Option<Self::View>, Self::Error>;

    /// Finds out what a place holds now, fetching it where that cannot be known otherwise.
    ///
    /// # Errors
    /// When the place cannot be asked, has no such thing, or the build is told to end.
    fn look(&self, wish: &RemoteWish, moved: Moved<'_>) -> Result<Remote<Self::View>, Self::Error>;

    /// Fetches what [`Self::look`] has found: a tree with the one file, or with a directory's.
    ///
    /// # Errors
    /// As [`Self::look`], and when it is another than was found.
    fn fetch(&self, wish: &RemoteWish, found: &Remote<Self::View>, moved: Moved<'_>)
    -> Result<Self::View, Self::Error>;

    /// Makes a tree's changes a layer.
    ///
    /// # Errors
    /// When the system refuses.
    fn commit(&self, active: Self::Active) -> Result<CommittedLayer, Self::Error>;

    /// Puts a layer that was made on nothing on top of others (chain ids, bottom first).
    ///
    /// # Errors
    /// When it is not here, or the system refuses.
    fn rebase(&self, layer: &CommittedLayer, chain: &[Digest]) -> Result<CommittedLayer, Self::Error>;

    /// Finds what a step on a chain (its top-most layer) led to in the caches that the build was given, and takes its layer in.
    /// With `only`, no other layer will do. What is missing, damaged or wrong there is told, and the step not found.
    ///
    /// # Errors
    /// When the build is told to end.
    fn import(
        &self,
        key: &Digest,
        parent: Option<&Digest>,
        only: Option<&CommittedLayer>,
        tell: &(dyn Fn(ImportEvent<'_>) + Sync),
    ) -> Result<Option<Imported>, Self::Error>;

    /// Waits for a moment, for what another build does.
    ///
    /// # Errors
    /// At once, when the build is told to end.
    fn rest(&self, time: Duration) -> Result<(), Self::Error>;

    /// Has every step that other threads perform end, and lets none begin: they fail as interrupted ones do.
    fn halt(&self);

    /// Stores an image of these layers (chain ids, bottom first) with annotations in its manifest, tags it, and returns its
    /// id.
    ///
    /// # Errors
    /// When a name is bad or the system refuses.
    fn create_image(
        &self,
        config: &ImageConfig,
        chain: &[Digest],
        tags: &[String],
        annotations: &BTreeMap<String, String>,
    ) -> Result<Digest, Self::Error>;
}

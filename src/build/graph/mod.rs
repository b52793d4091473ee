//! The build graph: which steps must be done, in what order, on what; and the configuration they lead to.
//!
//! Pure: given a Dockerfile, settings and a lookup of images it decides, and does nothing. Stages that the target does
//! not need are left out. Metadata instructions make no node; they are folded into the configuration and the history.

mod error;
mod fold;
mod history;
mod select;
#[cfg(test)]
mod tests;

pub use error::{PlanError, PlanProblem};
pub(super) use fold::PROXIES;

use super::dockerfile::{Dockerfile, LineRange};
use super::files::ModeChange;
use crate::base::Digest;
use crate::oci::{ImageConfig, Platform};
use crate::step::{Access, AgentWish, BaseImage, RemoteWish, SecretWish, Sharing, StepNetwork};
use serde::Serialize;
use std::fmt::Write as _;

/// What the command line says about a build.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `--target`: name or index of a stage; the last one without.
    pub target: Option<String>,
    /// `--build-arg`, in order; values are resolved by the door.
    pub build_args: Vec<(String, String)>,
    /// `--label`, in order.
    pub labels: Vec<(String, String)>,
    /// `--build-context`: what stands for a name in `FROM` and behind `--from`.
    pub contexts: Vec<(String, NamedContext)>,
    /// Whether `RUN --security=insecure` is given what it asks for: by the operator and by the command line.
    pub insecure: bool,
    /// Platform to build for.
    pub platform: Platform,
    /// Platform that builds.
    pub build_platform: Platform,
}

/// What `--build-context` puts in the place of a name (*docker buildx build "--build-context"*).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory, which [`super::Context`] has under the name.
    Directory,
    /// An image, by reference.
    Image(String),
}

impl Settings {
    /// Finds what `--build-context` puts in the place of a name; `:latest` may be written or not.
    pub(super) fn context(&self, name: &str) -> Option<(&str, &NamedContext)> {
        let short = |text: &'_ str| text.strip_suffix(":latest").unwrap_or(text).to_ascii_lowercase();
        let found = self.contexts.iter().rev().find(|(known, _)| short(known) == short(name));
        found.map(|(known, context)| (known.as_str(), context))
    }

    /// Reads a platform as `FROM --platform` takes it: `linux/amd64`, `arm64`, `local`.
    pub fn platform_named(&self, text: &str) -> Option<Platform> {
        select::platform(text, self)
    }
}

/// All that must be done for the target.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Stages the target needs, in order of the file.
    pub stages: Vec<PlannedStage>,
    /// Position of the target in `stages`.
    pub target: usize,
    /// Remarks for the user.
    pub warnings: Vec<String>,
}

/// One stage.
#[derive(Clone, Debug)]
pub struct PlannedStage {
    /// Name, or `stage-N` in a file with several stages, or nothing.
    pub label: String,
    /// What it starts from.
    pub start: Start,
    /// Lines of `FROM`.
    pub lines: LineRange,
    /// Text of `FROM` for display.
    pub title: String,
    /// Steps in order; each stands on the one before.
    pub nodes: Vec<Node>,
    /// Configuration at the end; `history` and `rootfs` are filled when the layers are known.
    pub config: ImageConfig,
    /// History entries of this stage.
    pub history: Vec<PlannedHistory>,
}

/// What a stage starts from.
#[derive(Clone, Debug)]
pub enum Start {
    /// Nothing.
    Scratch,
    /// An image.
    Image(Box<BaseImage>),
    /// Another stage, by position in [`Graph::stages`].
    Stage(usize),
}

/// One step that may change the tree.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it does.
    pub operation: Operation,
    /// Where it stands.
    pub lines: LineRange,
    /// Text for display.
    pub title: String,
}

/// A history entry; the layer's existence is known when its node is done.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedHistory {
    /// As BuildKit writes it.
    pub created_by: String,
    /// The node that makes the layer; `None` is an empty layer.
    pub node: Option<usize>,
}

/// What a node does. The serialised form is part of the cache key.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// `RUN`.
    Run(RunPlan),
    /// `COPY` and `ADD`.
    Copy(CopyPlan),
    /// `WORKDIR`: the directory is made where it is missing.
    Workdir {
        /// Absolute path.
        path: String,
        /// Owner of what is made, in any form of the image specification.
        user: String,
    },
}

/// A `RUN`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunPlan {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Environment.
    pub env: Vec<String>,
    /// Proxy settings given with `--build-arg`; in no key and no history.
    #[serde(skip)]
    pub hidden_env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// User.
    pub user: String,
    /// Network.
    pub network: StepNetwork,
    /// Script of a here-document with `#!`: path and text.
    pub script: Option<(String, String)>,
    /// `--security=insecure`, allowed.
    #[serde(skip_serializing_if = "is_false")]
    pub insecure: bool,
    /// `--mount` but secrets and agents.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<PlannedMount>,
    /// `--mount=type=secret`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretWish>,
    /// `--mount=type=ssh`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<AgentWish>,
}

/// A `--mount` of a `RUN`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedMount {
    /// Absolute path in the step.
    pub target: String,
    /// The step may not write to it.
    pub readonly: bool,
    /// What is mounted.
    pub source: MountFrom,
}

/// What a `--mount` shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MountFrom {
    /// A path of a tree; what is written there is lost.
    Bind {
        /// The tree.
        from: CopyFrom,
        /// Path in it.
        path: String,
    },
    /// A directory that is kept between builds.
    Cache {
        /// Its name.
        id: String,
        /// Who may use it at the same time.
        sharing: Sharing,
        /// Owner and mode of the directory.
        access: Access,
        /// Tree and path it begins with.
        seed: Option<(CopyFrom, String)>,
    },
    /// Memory, bytes at most.
    Tmpfs(Option<u64>),
}

/// A `COPY` or `ADD`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CopyPlan {
    /// `ADD`.
    pub add: bool,
    /// Sources in order.
    pub sources: Vec<PlannedSource>,
    /// Where they come from.
    pub from: CopyFrom,
    /// Absolute destination; a slash at the end asks for a directory.
    pub destination: String,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<ModeChange>,
    /// `--link`.
    #[serde(skip_serializing_if = "is_false")]
    pub link: bool,
    /// `--parents`.
    #[serde(skip_serializing_if = "is_false")]
    pub parents: bool,
    /// `--exclude`.
    pub exclude: Vec<String>,
    /// Archives of the context are unpacked.
    pub unpack: bool,
    /// Archives that are fetched are unpacked.
    #[serde(skip_serializing_if = "is_false")]
    pub unpack_fetched: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// A source.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PlannedSource {
    /// Path or pattern.
    Path(String),
    /// A here-document.
    Inline {
        /// File name.
        name: String,
        /// Text, variables replaced.
        content: String,
    },
    /// What is fetched.
    Remote(RemoteWish),
}

/// Where files are copied from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CopyFrom {
    /// The build context.
    Context,
    /// A directory of `--build-context`, by its name.
    Named(String),
    /// A stage, by position; its content is in the key by itself.
    Stage(#[serde(skip)] usize),
    /// An image: chain ids, bottom first.
    Image(Vec<Digest>),
}

impl Operation {
    /// Returns the trees that the operation reads besides the one it stands on.
    pub fn reads(&self) -> Vec<&CopyFrom> {
        match self {
            Self::Copy(copy) => vec![&copy.from],
            Self::Run(run) => run.mounts.iter().filter_map(|mount| mount.source.tree()).map(|(from, _)| from).collect(),
            Self::Workdir { .. } => Vec::new(),
        }
    }

    /// Tells whether its layer is the same whatever lies below it (*Dockerfile reference "COPY --link"*): names of owners, too,
    /// would be looked up there.
    pub fn is_detached(&self) -> bool {
        let Self::Copy(CopyPlan { link: true, chown, .. }) = self else { return false };
        let number = |part: &str| part.is_empty() || part.parse::<u32>().is_ok();
        chown.as_ref().is_none_or(|owner| owner.split(':').all(number))
    }

    /// Returns the positions of the stages that the operation reads.
    pub fn stages(&self) -> impl Iterator<Item = usize> {
        self.reads().into_iter().filter_map(|from| if let CopyFrom::Stage(stage) = from { Some(*stage) } else { None })
    }
}

impl MountFrom {
    /// Returns the tree and the path that are read; `None` where nothing is.
    pub fn tree(&self) -> Option<(&CopyFrom, &str)> {
        match self {
            Self::Bind { from, path } | Self::Cache { seed: Some((from, path)), .. } => Some((from, path)),
            Self::Cache { seed: None, .. } | Self::Tmpfs(_) => None,
        }
    }
}

/// Plans a build.
///
/// `images` is asked for every image that the target needs; it returns `None` after noting why for its caller.
///
/// # Errors
/// With the lines of the instruction that cannot be planned.
pub fn plan(
    file: &Dockerfile,
    settings: &Settings,
    images: &mut dyn FnMut(&str, &Platform) -> Option<BaseImage>,
) -> Result<Graph, PlanError> {
    let selection = select::select(file, settings, images)?;
    fold::fold(file, settings, selection)
}

impl Graph {
    /// Prints the graph for people and for golden texts.
    pub fn dump(&self) -> String {
        let mut text = String::new();
        for (index, stage) in self.stages.iter().enumerate() {
            let start = match &stage.start {
                Start::Scratch => "scratch".to_owned(),
                Start::Image(image) => format!("image {}", image.id.short()),
                Start::Stage(stage) => format!("stage {stage}"),
            };
            let target = if index == self.target { " (target)" } else { "" };
            let _ = writeln!(text, "stage {index} {:?} from {start}{target}", stage.label);
            for (number, node) in stage.nodes.iter().enumerate() {
                let operation = serde_json::to_string(&node.operation).unwrap_or_default();
                let _ = writeln!(text, "  {number}: lines {}-{} {operation}", node.lines.first, node.lines.last);
                for from in node.operation.stages() {
                    let _ = writeln!(text, "     reads stage {from}");
                }
            }
            for entry in &stage.history {
                let layer = entry.node.map_or("-".to_owned(), |n| n.to_string());
                let _ = writeln!(text, "  history {layer}: {}", entry.created_by);
            }
            let _ = writeln!(text, "  config {}", serde_json::to_string(&stage.config.config).unwrap_or_default());
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "warning: {warning}");
        }
        text
    }
}

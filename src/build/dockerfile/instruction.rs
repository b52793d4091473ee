//! Instructions as types. Values keep their variables; they are replaced when the graph is planned.

use super::error::{LineRange, Position};
use super::lexer::{Directives, Heredoc};
use super::mount::MountText;
use std::time::Duration;

/// A whole Dockerfile.
#[derive(Clone, Debug, PartialEq)]
pub struct Dockerfile {
    /// Parser directives.
    pub directives: Directives,
    /// `ARG` before the first `FROM`.
    pub global_args: Vec<Statement>,
    /// Stages in order; at least one.
    pub stages: Vec<Stage>,
    /// The text it was read from, for excerpts.
    pub source: String,
}

/// A stage: `FROM` and what follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// `FROM`.
    pub from: From,
    /// Lines of `FROM`.
    pub lines: LineRange,
    /// Where `FROM` stands.
    pub at: Position,
    /// What follows.
    pub statements: Vec<Statement>,
}

/// One instruction with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// The instruction.
    pub instruction: Instruction,
    /// Lines, here-documents included.
    pub lines: LineRange,
    /// Where it stands.
    pub at: Position,
    /// Text with continuation lines joined.
    pub original: String,
}

/// An instruction of a stage.
#[derive(Clone, Debug, PartialEq)]
pub enum Instruction {
    /// `RUN`.
    Run(Run),
    /// `COPY` and `ADD`.
    Copy(Copy),
    /// `ENV`.
    Env(Vec<NameValue>),
    /// `LABEL`.
    Label(Vec<NameValue>),
    /// `ARG`.
    Arg(Vec<ArgDeclaration>),
    /// `WORKDIR`.
    Workdir(String),
    /// `USER`.
    User(String),
    /// `CMD`.
    Cmd(CommandLine),
    /// `ENTRYPOINT`.
    Entrypoint(CommandLine),
    /// `EXPOSE`.
    Expose(Vec<String>),
    /// `VOLUME`.
    Volume(Vec<String>),
    /// `SHELL`.
    Shell(Vec<String>),
    /// `STOPSIGNAL`.
    StopSignal(String),
    /// `HEALTHCHECK`.
    Healthcheck(Healthcheck),
    /// `ONBUILD`.
    Onbuild(Onbuild),
    /// `MAINTAINER`.
    Maintainer(String),
    /// `STEP name args` or `#!step name args`: a step that a guest performs.
    Step(StepCall),
}

/// `FROM`.
#[derive(Clone, Debug, PartialEq)]
pub struct From {
    /// Image or earlier stage, or `scratch`.
    pub image: String,
    /// `AS name`, lower case.
    pub name: Option<String>,
    /// `--platform`.
    pub platform: Option<String>,
}

/// A program and its arguments, or a line for the shell.
#[derive(Clone, Debug, PartialEq)]
pub enum CommandLine {
    /// JSON form.
    Exec(Vec<String>),
    /// A line for the shell of `SHELL`.
    Shell(String),
}

/// `RUN`.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// What to run.
    pub command: CommandLine,
    /// Here-documents in order.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`.
    pub mounts: Vec<MountText>,
    /// `--network`.
    pub network: RunNetwork,
    /// `--security`.
    pub security: RunSecurity,
    /// `--device`.
    pub devices: Vec<DeviceWish>,
}

/// `RUN --network`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunNetwork {
    /// As the build says.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's.
    Host,
}

/// `RUN --security`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunSecurity {
    /// All walls.
    #[default]
    Sandbox,
    /// As a privileged container, where the operator allows it.
    Insecure,
}

/// `RUN --device=name[,required]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceWish {
    /// Device name (CDI).
    pub name: String,
    /// The step fails without it.
    pub required: bool,
}

/// `COPY` or `ADD`.
#[derive(Clone, Debug, PartialEq)]
pub struct Copy {
    /// `ADD`: archives are unpacked, URLs and repositories fetched.
    pub add: bool,
    /// Sources in order.
    pub sources: Vec<CopySource>,
    /// Destination.
    pub destination: String,
    /// `--from`: stage name, stage index, image or named context.
    pub from: Option<String>,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`.
    pub exclude: Vec<String>,
    /// `--checksum` (ADD).
    pub checksum: Option<String>,
    /// `--keep-git-dir` (ADD).
    pub keep_git_dir: bool,
    /// `--unpack` (ADD); `None` unpacks local archives and leaves fetched ones.
    pub unpack: Option<bool>,
}

/// A source of `COPY`.
#[derive(Clone, Debug, PartialEq)]
pub enum CopySource {
    /// Path, pattern, URL or repository.
    Path(String),
    /// A here-document that becomes a file.
    Heredoc(Heredoc),
}

/// `name=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameValue {
    /// Name.
    pub name: String,
    /// Value, quotes and variables still in it.
    pub value: String,
    /// Written `name value`.
    pub old_form: bool,
}

/// `ARG name[=default]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgDeclaration {
    /// Name.
    pub name: String,
    /// Default, quotes and variables still in it.
    pub default: Option<String>,
}

/// `HEALTHCHECK`.
#[derive(Clone, Debug, PartialEq)]
pub enum Healthcheck {
    /// `NONE`.
    None,
    /// `CMD`.
    Command {
        /// What to run.
        command: CommandLine,
        /// `--interval`; `None` is the default, as is zero.
        interval: Option<Duration>,
        /// `--timeout`.
        timeout: Option<Duration>,
        /// `--start-period`.
        start_period: Option<Duration>,
        /// `--start-interval`.
        start_interval: Option<Duration>,
        /// `--retries`; zero is the default.
        retries: Option<u32>,
    },
}

/// `ONBUILD`.
#[derive(Clone, Debug, PartialEq)]
pub struct Onbuild {
    /// The trigger as the image configuration stores it, here-documents included.
    pub text: String,
    /// The trigger, already checked.
    pub trigger: Box<Instruction>,
}

/// `STEP name args`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepCall {
    /// Step.
    pub name: String,
    /// Arguments as written.
    pub arguments: String,
    /// Written as a comment, which other builders pass over.
    pub comment: bool,
}

impl Instruction {
    /// Returns the instruction's word.
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::Run(_) => "RUN",
            Self::Copy(copy) => {
                if copy.add {
                    "ADD"
                } else {
                    "COPY"
                }
            }
            Self::Env(_) => "ENV",
            Self::Label(_) => "LABEL",
            Self::Arg(_) => "ARG",
            Self::Workdir(_) => "WORKDIR",
            Self::User(_) => "USER",
            Self::Cmd(_) => "CMD",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Expose(_) => "EXPOSE",
            Self::Volume(_) => "VOLUME",
            Self::Shell(_) => "SHELL",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Onbuild(_) => "ONBUILD",
            Self::Maintainer(_) => "MAINTAINER",
            Self::Step(_) => "STEP",
        }
    }
}

//! `pull`, and how `run`, `create` and `build` pull by themselves.

use super::download::interruptible;
use super::layers::{Layers, Words};
use crate::base::with_causes;
use crate::cli::container::code_byte;
use crate::cli::context::{Context, out, talk};
use crate::cli::error::{Failure, Outcome, clean, exit};
use crate::cli::flags::{Flags, Parsed, switch, value};
use crate::cli::image::reference;
use crate::cli::terminal::{Signals, stderr_columns};
use crate::engine::{Attention, Engine, EngineError};
use crate::image::registry::{LayerEvent, Notice, Pulled};
use crate::oci::{Platform, Reference};
use std::io::{IsTerminal, Stderr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What is said about layers.
pub(super) const WORDS: Words = Words {
    pending: "Pulling fs layer",
    coming: "Downloading",
    ending: "Extracting",
    exists: "Already exists",
    done: "Pull complete",
};

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Policy {
    /// When it is not here.
    Missing,
    /// In any case.
    Always,
    /// Not at all.
    Never,
}

/// Reads `--pull`.
pub(in crate::cli) fn policy(parsed: &Parsed) -> Result<Policy, Failure> {
    match parsed.text("pull").unwrap_or_default() {
        "" | "missing" => Ok(Policy::Missing),
        "always" => Ok(Policy::Always),
        "never" => Ok(Policy::Never),
        other => Err(parsed.invalid("pull", other, "it is always, missing or never")),
    }
}

/// Flags of `pull`.
pub(super) fn flags(flags: Flags) -> Flags {
    flags
        .arg(switch("all-tags", "Download all tagged images in the repository").short('a'))
        .arg(value("platform", "string", "Set platform if the registry has the image for several"))
        .arg(switch("quiet", "Suppress verbose output").short('q'))
}

/// Reads `--platform`.
pub(in crate::cli) fn platform(parsed: &Parsed) -> Result<Platform, Failure> {
    match parsed.filled("platform") {
        None => Ok(Platform::host()),
        Some(text) => Platform::parse(&text)
            .ok_or_else(|| parsed.invalid("platform", &text, "it is written os/architecture[/variant]")),
    }
}

/// `pull`.
pub(super) fn run(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let text = &parsed.arguments[0];
    let name = reference(text)?;
    let (platform, quiet) = (platform(&parsed)?, parsed.switch("quiet")?);
    let (all, tagged) = (parsed.switch("all-tags")?, text.rsplit('/').next().unwrap_or(text).contains([':', '@']));
    if all && tagged {
        return Err(parsed.conflict("tag can't be used with --all-tags/-a"));
    }
    if !all && name.digest.is_none() && !quiet && !text.rsplit('/').next().unwrap_or(text).contains(':') {
        talk(format!("Using default tag: {}\n", name.tag.as_deref().unwrap_or_default()));
    }
    let engine = context.engine()?;
    if all {
        let shown = Shown::new(quiet, WORDS);
        let tags = interruptible("the pull", |interrupt| {
            let attention =
                Attention { interrupt: Some(interrupt), tell: &|_| {}, notice: &|notice| shown.say(&notice) };
            engine.tags(&name, attention)
        });
        for tag in tags.map_err(|failure| failure.about(&format!("list the tags of {}", name.familiar_name())))? {
            let name = reference(&format!("{}:{tag}", name.name()))?;
            pull_now(&engine, &name, &platform, quiet)?;
        }
        out(format!("{}\n", name.name()))?;
        return Ok(0);
    }
    pull_now(&engine, &name, &platform, quiet)?;
    out(format!("{name}\n"))?;
    Ok(0)
}

/// Pulls an image and shows how it gets on; ends at once when the user wants it to.
pub(in crate::cli) fn pull_now(
    engine: &Engine,
    name: &Reference,
    platform: &Platform,
    quiet: bool,
) -> Result<Pulled, Failure> {
    let signals = Signals::take_endings()?;
    match pull_shown(engine, name, platform, quiet, Some(signals.as_fd())) {
        Err(EngineError::Interrupted) => {
            let number = signals.number().unwrap_or(2);
            Err(Failure::new(code_byte(128 + number), "the pull was interrupted"))
        }
        other => {
            other.map_err(|error| Failure::of_engine(exit::FAILED, &error).about(&format!("pull {}", name.familiar())))
        }
    }
}

/// Pulls an image and shows how it gets on, until `interrupt` is readable.
pub(in crate::cli) fn pull_shown(
    engine: &Engine,
    name: &Reference,
    platform: &Platform,
    quiet: bool,
    interrupt: Option<BorrowedFd<'_>>,
) -> Result<Pulled, EngineError> {
    let shown = Shown::new(quiet, WORDS);
    if !quiet {
        let tag = name.tag.clone().unwrap_or_else(|| name.digest.iter().map(ToString::to_string).collect());
        talk(format!("{tag}: Pulling from {}\n", name.repository));
    }
    let attention = Attention { interrupt, tell: &|event| shown.event(event), notice: &|notice| shown.say(&notice) };
    let result = engine.pull(name, platform, attention);
    shown.finish(result.is_ok());
    let pulled = result?;
    if !quiet {
        let status = if pulled.new { "Downloaded newer image" } else { "Image is up to date" };
        talk(format!("Digest: {}\nStatus: {status} for {}\n", pulled.digest, name.familiar()));
    }
    Ok(pulled)
}

/// What is shown, by whichever thread has something to show.
pub(super) struct Shown {
    layers: Option<Mutex<Layers<Stderr>>>,
}

impl Shown {
    pub(super) fn new(quiet: bool, words: Words) -> Self {
        let stderr = std::io::stderr();
        let live = stderr.is_terminal();
        Self { layers: (!quiet).then(|| Mutex::new(Layers::new(stderr, live, stderr_columns, words))) }
    }

    /// Shows no layers, and what is said as lines.
    pub(super) fn plain() -> Self {
        Self { layers: None }
    }

    /// Shows something; what cannot be shown is no reason to stop.
    fn with(&self, show: impl FnOnce(&mut Layers<Stderr>) -> std::io::Result<()>) {
        if let Some(layers) = &self.layers {
            let _ = show(&mut layers.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    pub(super) fn event(&self, event: LayerEvent<'_>) {
        self.with(|layers| layers.event(event, Instant::now()));
    }

    pub(super) fn finish(&self, whole: bool) {
        self.with(|layers| layers.finish(whole));
    }

    pub(super) fn say(&self, notice: &Notice<'_>) {
        let text = match notice {
            Notice::Again { error, after } => {
                format!("{}; again in {:.1} s", with_causes(error), after.as_secs_f32())
            }
            Notice::Next { error, endpoint } => format!("{}; asking {endpoint}", with_causes(error)),
        };
        match &self.layers {
            Some(_) => self.with(|layers| layers.say(&clean(&text))),
            None => talk(format!("{}\n", clean(&text))),
        }
    }
}

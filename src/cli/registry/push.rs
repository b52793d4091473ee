//! `push`.

use super::layers::Words;
use super::pull::Shown;
use crate::cli::container::code_byte;
use crate::cli::context::{Context, out, talk};
use crate::cli::error::{Failure, Outcome, exit};
use crate::cli::flags::{Flags, Parsed, switch, value};
use crate::cli::image::reference;
use crate::cli::terminal::Signals;
use crate::engine::{Attention, Engine, EngineError};
use crate::image::registry::{Format, Pushed};
use crate::image::{Attestation, CacheImage, Images};
use crate::oci::Reference;
use std::os::fd::AsFd;

/// What is said about layers.
const WORDS: Words = Words {
    pending: "Preparing",
    coming: "Pushing",
    ending: "Pushing",
    exists: "Layer already exists",
    done: "Pushed",
};

/// Flags of `push`.
pub(super) fn flags(flags: Flags) -> Flags {
    flags
        .arg(switch("all-tags", "Push all tags of an image to the repository").short('a'))
        .arg(value("compression-format", "string", "Compression of layers the registry does not have (gzip|zstd|none)"))
        .arg(switch("quiet", "Suppress verbose output").short('q'))
}

/// `push`.
pub(super) fn run(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let text = &parsed.arguments[0];
    let (name, quiet, all) = (reference(text)?, parsed.switch("quiet")?, parsed.switch("all-tags")?);
    let format = match parsed.text("compression-format").unwrap_or("gzip") {
        "gzip" => Format::Gzip,
        "zstd" => Format::Zstd,
        "none" => Format::None,
        other => return Err(parsed.invalid("compression-format", other, "it is gzip, zstd or none")),
    };
    if name.digest.is_some() {
        return Err(
            Failure::failed("cannot push a digest reference").hint("'bulkhead tag' gives the image a tag to push")
        );
    }
    let tagged = text.rsplit('/').next().unwrap_or(text).contains(':');
    let engine = context.engine()?;
    let names = match (all, tagged) {
        (true, true) => return Err(parsed.conflict("tag can't be used with --all-tags/-a")),
        (true, false) => tags_of(context, &name)?,
        (false, _) => vec![name.clone()],
    };
    if !quiet {
        talk(format!("The push refers to repository [{}]\n", name.name()));
        if !all && !tagged {
            talk("Using default tag: latest\n");
        }
    }
    for name in &names {
        push(&engine, name, format, quiet)?;
    }
    Ok(0)
}

/// Lists the tags that an image's repository has here.
fn tags_of(context: &Context<'_>, name: &Reference) -> Result<Vec<Reference>, Failure> {
    let images = Images::open(context.paths())?.list()?;
    let mut names: Vec<Reference> = images.into_iter().flat_map(|image| image.references).collect();
    names.retain(|known| known.name() == name.name() && known.tag.is_some());
    names.sort();
    match names.is_empty() {
        true => Err(Failure::failed(format!("an image does not exist locally with the tag: {}", name.familiar_name()))
            .hint("'bulkhead images' lists the images")),
        false => Ok(names),
    }
}

fn push(engine: &Engine, name: &Reference, format: Format, quiet: bool) -> Result<(), Failure> {
    let pushed = push_now(engine, name, (format, &[]), quiet)?;
    let tag = name.tag.as_deref().unwrap_or_default();
    if !quiet {
        talk(format!("{tag}: digest: {} size: {}\n", pushed.digest, pushed.size));
    }
    Ok(out(format!("{name}\n"))?)
}

/// Pushes an image and shows how it gets on; ends at once when the user wants it to.
pub(in crate::cli) fn push_now(
    engine: &Engine,
    name: &Reference,
    how: (Format, &[Attestation]),
    quiet: bool,
) -> Result<Pushed, Failure> {
    shown(name, "push", quiet, |attention| engine.push(name, how, attention))
}

/// Pushes a build cache and shows how it gets on; ends at once when the user wants it to.
pub(in crate::cli) fn push_cache_shown(
    engine: &Engine,
    name: &Reference,
    images: &[CacheImage],
    how: (Format, bool),
    quiet: bool,
) -> Result<(), Failure> {
    let what = "push the build cache to";
    shown(name, what, quiet, |attention| engine.push_cache(name, images, how, attention)).map(drop)
}

fn shown<T>(
    name: &Reference,
    what: &str,
    quiet: bool,
    push: impl FnOnce(Attention<'_>) -> Result<T, EngineError>,
) -> Result<T, Failure> {
    let signals = Signals::take_endings()?;
    let shown = Shown::new(quiet, WORDS);
    let attention = Attention {
        interrupt: Some(signals.as_fd()),
        tell: &|event| shown.event(event),
        notice: &|notice| shown.say(&notice),
    };
    let result = push(attention);
    shown.finish(result.is_ok());
    match result {
        Ok(pushed) => Ok(pushed),
        Err(EngineError::Interrupted) => {
            let number = signals.number().unwrap_or(2);
            Err(Failure::new(code_byte(128 + number), "the push was interrupted"))
        }
        Err(error) => Err(Failure::of_engine(exit::FAILED, &error).about(&format!("{what} {}", name.familiar()))),
    }
}

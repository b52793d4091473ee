//! `--cache-to` and `--cache-from`: where steps are given out to, and taken from (*docker buildx build*).

use super::output::Output;
use crate::cli::context::talk;
use crate::cli::error::{Failure, clean, exit};
use crate::cli::flags::Parsed;
use crate::cli::registry::push_cache_shown;
use crate::cli::terminal::Signals;
use crate::engine::{CacheSource, Engine, EngineError};
use crate::image::CacheImage;
use crate::image::registry::Format;
use crate::oci::Reference;
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// A place that steps are given out to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CacheTarget {
    /// The image itself.
    Inline,
    /// What a name stands for on its registry.
    Registry(Reference, Manner),
    /// A directory.
    Local(PathBuf, Manner),
}

/// How steps are given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Manner {
    /// `mode=max`: of all stages.
    max: bool,
    /// `compression=`.
    format: Format,
    /// `ignore-error=true`: the build succeeds without.
    lenient: bool,
    /// `image-manifest=true`: no index.
    flat: bool,
}

/// Reads `NAME=VALUE,...`.
fn fields(text: &str) -> Result<Vec<(&str, &str)>, String> {
    text.split(',').map(|field| field.split_once('=').ok_or_else(|| format!("{field:?} is not NAME=VALUE"))).collect()
}

fn name(text: &str) -> Result<Reference, String> {
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}

impl CacheTarget {
    /// Reads one `--cache-to`: a name, or `type=TYPE,NAME=VALUE`.
    fn parse(text: &str) -> Result<Self, String> {
        if !text.contains('=') {
            return Ok(Self::Registry(tagged(name(text)?)?, Manner::default()));
        }
        let (mut kind, mut dest, mut reference, mut manner) = (None, None, None, Manner::default());
        for (key, value) in fields(text)? {
            match (key, value) {
                ("type", _) => kind = Some(value),
                ("dest", path) if !path.is_empty() => dest = Some(path),
                ("ref", text) => reference = Some(tagged(name(text)?)?),
                ("mode", "min" | "max") => manner.max = value == "max",
                ("compression", "gzip") => manner.format = Format::Gzip,
                ("compression", "zstd") => manner.format = Format::Zstd,
                ("compression", "uncompressed") => manner.format = Format::None,
                ("ignore-error", "true" | "false") => manner.lenient = value == "true",
                ("image-manifest", "true" | "false") => manner.flat = value == "true",
                // What is always so here.
                ("oci-mediatypes" | "force-compression", "true") => {}
                _ => {
                    let known = "type, ref, dest, mode (min, max), compression (gzip, zstd, uncompressed), ignore-error, \
                                 image-manifest";
                    return Err(format!("{key}={value} is not known here; known are {known}"));
                }
            }
        }
        if manner.flat && (manner.max || kind != Some("registry")) {
            return Err("image-manifest=true is for one image on a registry: type=registry,mode=min".to_owned());
        }
        match (kind, dest, reference) {
            (Some("inline"), None, None) if manner == Manner::default() => Ok(Self::Inline),
            (Some("inline"), ..) => {
                Err("type=inline goes with the image, its target alone, and takes nothing else".to_owned())
            }
            (Some("registry"), None, Some(name)) => Ok(Self::Registry(name, manner)),
            (Some("registry"), ..) => Err("type=registry needs ref=NAME, and no dest".to_owned()),
            (Some("local"), Some(path), None) => Ok(Self::Local(absolute(path), manner)),
            (Some("local"), ..) => Err("type=local needs dest=DIRECTORY, and no ref".to_owned()),
            (Some(other), ..) => Err(format!("type {other:?} is none of registry, local, inline")),
            (None, ..) => Err("type=registry, local or inline is missing".to_owned()),
        }
    }

    /// Gives the steps out; the first of the images is the target's.
    pub(super) fn write(&self, engine: &Engine, images: &[CacheImage], quiet: bool) -> Result<(), Failure> {
        let (manner, to) = match self {
            Self::Inline => return Ok(()),
            Self::Registry(name, manner) => (manner, name.familiar()),
            Self::Local(path, manner) => (manner, path.display().to_string()),
        };
        let images = if manner.max { images } else { &images[..images.len().min(1)] };
        if !quiet {
            talk(format!("exporting build cache to {}\n", clean(&to)));
        }
        let result = match self {
            Self::Registry(name, _) => push_cache_shown(engine, name, images, (manner.format, manner.flat), quiet),
            Self::Local(path, _) => local(engine, path, images, manner.format),
            Self::Inline => Ok(()),
        };
        match result {
            Err(failure) if manner.lenient && !failure.is_interruption() => {
                talk(format!("warning: the build cache was not exported:\n{}", failure.render(false)));
                Ok(())
            }
            other => other,
        }
    }
}

/// Writes a cache to a directory; ends when the user wants it to.
fn local(engine: &Engine, path: &Path, images: &[CacheImage], format: Format) -> Result<(), Failure> {
    let signals = Signals::take_endings()?;
    let go_on = |_| {
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        !matches!(poll(&mut [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)], Some(&now)), Ok(1))
    };
    engine.write_cache(path, images, format, &go_on).map_err(|error| match error {
        EngineError::Interrupted => {
            let number = signals.number().unwrap_or(2);
            Failure::new(
                crate::cli::container::code_byte(128 + number),
                "the export of the build cache was interrupted",
            )
        }
        other => Failure::of_engine(exit::FAILED, &other).about("export the build cache"),
    })
}

/// Refuses a name by digest, which nothing can be written to.
fn tagged(name: Reference) -> Result<Reference, String> {
    match name.digest {
        None => Ok(name),
        Some(_) => Err("a cache is pushed to a tag, not to a digest".to_owned()),
    }
}

fn absolute(path: &str) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}

/// Reads one `--cache-from`: a name, or `type=TYPE,NAME=VALUE`.
fn source(text: &str) -> Result<CacheSource, String> {
    if !text.contains('=') {
        return Ok(CacheSource::Image(name(text)?));
    }
    let (mut kind, mut path, mut reference) = (None, None, None);
    for (key, value) in fields(text)? {
        match key {
            "type" => kind = Some(value),
            "src" if !value.is_empty() => path = Some(value),
            "ref" => reference = Some(name(value)?),
            _ => return Err(format!("{key}={value} is not known here; known are type, ref, src")),
        }
    }
    match (kind, path, reference) {
        (Some("registry"), None, Some(name)) => Ok(CacheSource::Registry(name)),
        (Some("registry"), ..) => Err("type=registry needs ref=NAME, and no src".to_owned()),
        (Some("local"), Some(path), None) => Ok(CacheSource::Local(absolute(path))),
        (Some("local"), ..) => Err("type=local needs src=DIRECTORY, and no ref".to_owned()),
        (Some(other), ..) => {
            Err(format!("type {other:?} is neither registry, which reads what type=inline wrote as well, nor local"))
        }
        (None, ..) => Err("type=registry or local is missing".to_owned()),
    }
}

/// Reads all `--cache-to`.
pub(super) fn targets(parsed: &Parsed, outputs: &[Output]) -> Result<Vec<CacheTarget>, Failure> {
    let targets = parsed.read_all("cache-to", |text| match text {
        "" => Ok(Vec::new()),
        text => CacheTarget::parse(text).map(|target| vec![target]),
    })?;
    if targets.contains(&CacheTarget::Inline) && !outputs.iter().any(Output::needs_image) {
        return Err(parsed.conflict("--cache-to type=inline goes with an image, and --output makes none"));
    }
    Ok(targets)
}

/// Reads all `--cache-from`.
pub(super) fn sources(parsed: &Parsed) -> Result<Vec<CacheSource>, Failure> {
    parsed.read_all("cache-from", |text| match text {
        "" => Ok(Vec::new()),
        text => source(text).map(|source| vec![source]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn targets_are_written_as_in_buildx() {
        let plain = Manner::default();
        for (text, expected) in [
            ("type=inline", CacheTarget::Inline),
            ("type=inline,mode=min", CacheTarget::Inline),
            ("r.io/a:c", CacheTarget::Registry(reference("r.io/a:c"), plain)),
            ("type=registry,ref=a", CacheTarget::Registry(reference("a:latest"), plain)),
            (
                "type=registry,ref=a:b,mode=max,compression=zstd,oci-mediatypes=true,ignore-error=true",
                CacheTarget::Registry(
                    reference("a:b"),
                    Manner { max: true, format: Format::Zstd, lenient: true, flat: false },
                ),
            ),
            (
                "type=registry,ref=a:b,image-manifest=true",
                CacheTarget::Registry(reference("a:b"), Manner { flat: true, ..plain }),
            ),
            (
                "type=local,dest=/x,compression=uncompressed",
                CacheTarget::Local("/x".into(), Manner { format: Format::None, ..plain }),
            ),
        ] {
            assert_eq!(CacheTarget::parse(text), Ok(expected), "{text}");
        }
        for (text, why) in [
            ("type=gha", "none of registry, local, inline"),
            ("ref=a", "is missing"),
            ("type=registry", "needs ref"),
            ("type=registry,ref=UP", "lowercase"),
            ("type=registry,ref=a,dest=x", "no dest"),
            ("type=local,ref=a", "needs dest"),
            ("type=local,dest=", "dest= is not known"),
            ("type=inline,mode=max", "takes nothing else"),
            ("type=local,dest=x,mode=most", "mode=most"),
            ("type=local,dest=x,compression=estargz", "compression=estargz"),
            ("type=local,dest=x,image-manifest=true", "type=registry,mode=min"),
            ("type=registry,ref=a,image-manifest=true,mode=max", "type=registry,mode=min"),
            ("type=registry,ref=a,oci-mediatypes=false", "oci-mediatypes=false"),
            ("type=local,dest", "NAME=VALUE"),
            ("UP", "lowercase"),
        ] {
            assert!(CacheTarget::parse(text).unwrap_err().contains(why), "{text}");
        }
        let digest = format!("a@sha256:{}", "0".repeat(64));
        assert!(CacheTarget::parse(&digest).unwrap_err().contains("not to a digest"));
    }

    #[test]
    fn sources_are_written_as_in_buildx() {
        for (text, expected) in [
            ("a", CacheSource::Image(reference("a"))),
            ("type=registry,ref=a:b", CacheSource::Registry(reference("a:b"))),
            ("type=local,src=/x", CacheSource::Local("/x".into())),
        ] {
            assert_eq!(source(text), Ok(expected), "{text}");
        }
        for (text, why) in [
            ("type=inline", "neither registry"),
            ("type=local,dest=x", "dest=x is not known"),
            ("type=local", "needs src"),
            ("type=registry,src=x", "needs ref"),
            ("src=x", "is missing"),
            ("a=", "a= is not known"),
            ("a b", "invalid reference"),
        ] {
            assert!(source(text).unwrap_err().contains(why), "{text}");
        }
    }
}

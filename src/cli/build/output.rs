//! `--output`: what a build gives out beside, or instead of, an image in the store.

use crate::build::files::{
    CopyError, CopyOptions, Destination, ModeChange, Owner, Picked, Progress, Source, SourceError, sums,
};
use crate::build::{BuildCache, Built, PREDICATE};
use crate::cli::context::Context;
use crate::cli::error::{Failure, exit};
use crate::cli::flags::Parsed;
use crate::engine::{Builder, Engine};
use crate::image::registry::Format;
use crate::image::{Attestation, Images, diff};
use crate::oci::Reference;
use crate::step::{BuildHost, Tree};
use rustix::fs::{Mode, OFlags, openat};
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// One place a result goes to (*docker buildx build, "--output"*).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// An image of the store, with further names, and what its layers are compressed with where it is pushed as well.
    Image { names: Vec<String>, push: Option<Format> },
    /// An archive of the image: docker-archive and OCI layout at once.
    Archive { names: Vec<String>, to: Target },
    /// The files, in a directory; `prefix` begins the names of what is said of them.
    Local { to: PathBuf, prefix: String },
    /// The files, as a tar.
    Tar { to: Target, prefix: String },
    /// Nothing: the cache is filled.
    CacheOnly,
}

/// A file, or stdout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    File(PathBuf),
    Stdout,
}

impl Target {
    fn of(text: Option<&str>) -> Self {
        match text {
            None | Some("" | "-") => Self::Stdout,
            Some(path) => Self::File(path.into()),
        }
    }
}

impl Output {
    /// Reads one `--output`: `DIR`, `-`, or `type=TYPE,NAME=VALUE`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if !text.contains('=') {
            return match text {
                "" => Err("it is empty".to_owned()),
                "-" => Ok(Self::Tar { to: Target::Stdout, prefix: String::new() }),
                directory => Ok(Self::Local { to: directory.into(), prefix: String::new() }),
            };
        }
        let (mut kind, mut dest, mut names, mut push, mut format) = (None, None, Vec::new(), false, None);
        let mut prefix = String::new();
        for field in text.split(',') {
            let (key, value) = field.split_once('=').ok_or_else(|| format!("{field:?} is not NAME=VALUE"))?;
            match (key, value) {
                ("type", _) => kind = Some(value),
                ("dest", _) => dest = Some(value),
                ("name", _) => names.push(value.to_owned()),
                ("attestation-prefix", _) if !value.contains('/') => value.clone_into(&mut prefix),
                ("push", "true" | "false") => push = value == "true",
                ("compression", "gzip") => format = Some(Format::Gzip),
                ("compression", "zstd") => format = Some(Format::Zstd),
                ("compression", "uncompressed") => format = Some(Format::None),
                // What is always so here.
                ("oci-mediatypes" | "tar" | "store" | "unpack", "true") => {}
                _ => {
                    let known = "type, dest, name, push, compression (gzip, zstd, uncompressed), attestation-prefix";
                    return Err(format!("{field} is not known here; known are {known}"));
                }
            }
        }
        if !prefix.is_empty() && !matches!(kind, Some("local" | "tar")) {
            return Err("attestation-prefix belongs to type=local and type=tar".to_owned());
        }
        let image = matches!((kind, dest), (Some("image" | "registry"), None));
        if push && !image {
            return Err("push=true belongs to type=image".to_owned());
        }
        let compressed = matches!(format, Some(Format::Gzip | Format::Zstd));
        if compressed && !(push || kind == Some("registry")) {
            return Err("only what is pushed is compressed; what is stored or archived is not".to_owned());
        }
        let push = (push || kind == Some("registry")).then(|| format.unwrap_or(Format::Gzip));
        match (kind, dest) {
            (Some("image" | "registry" | "docker"), None) => Ok(Self::Image { names, push }),
            (Some("docker" | "oci"), dest) => Ok(Self::Archive { names, to: Target::of(dest) }),
            (Some("tar"), dest) => Ok(Self::Tar { to: Target::of(dest), prefix }),
            (Some("local"), Some(dest)) if !dest.is_empty() => Ok(Self::Local { to: dest.into(), prefix }),
            (Some("local"), _) => Err("type=local needs dest=DIRECTORY".to_owned()),
            (Some("cacheonly"), None) => Ok(Self::CacheOnly),
            (Some(other), _) => Err(format!(
                "type {other:?} with these values is none of image, registry, docker, oci, tar, local, cacheonly"
            )),
            (None, _) => Err("type=image, registry, docker, oci, tar, local or cacheonly is missing".to_owned()),
        }
    }

    /// Reads all `--output`; none is an image.
    pub(super) fn all(parsed: &Parsed) -> Result<Vec<Self>, Failure> {
        let mut outputs = parsed.read_all("output", |text| Self::parse(text).map(|output| vec![output]))?;
        let push = parsed.switch("push")?.then_some(Format::Gzip);
        if outputs.is_empty() || parsed.switch("load")? || push.is_some() {
            // --load and --push say more of an image that is asked for anyway.
            match outputs.iter_mut().find(|output| output.keeps_image()) {
                Some(Self::Image { push: wanted, .. }) => *wanted = wanted.or(push),
                _ => outputs.push(Self::Image { names: Vec::new(), push }),
            }
        }
        let stdout = outputs.iter().filter(|output| output.is_stdout()).count();
        if stdout > 1 || (stdout == 1 && (parsed.switch("quiet")? || parsed.given("format"))) {
            return Err(parsed.conflict("only one thing can be written to stdout"));
        }
        if stdout == 1 && std::io::stdout().is_terminal() {
            return Err(Failure::failed("what is built is not written to a terminal").hint("-o type=...,dest=FILE"));
        }
        Ok(outputs)
    }

    /// Tells whether it goes to stdout.
    pub(super) fn is_stdout(&self) -> bool {
        matches!(self, Self::Archive { to: Target::Stdout, .. } | Self::Tar { to: Target::Stdout, .. })
    }

    /// Tells whether an image has to be made for it.
    pub(super) fn needs_image(&self) -> bool {
        matches!(self, Self::Image { .. } | Self::Archive { .. })
    }

    /// Tells whether the image stays in the store.
    pub(super) fn keeps_image(&self) -> bool {
        matches!(self, Self::Image { .. })
    }

    /// What the layers are compressed with where the image is pushed.
    pub(super) fn pushes(&self) -> Option<Format> {
        if let Self::Image { push, .. } = self { *push } else { None }
    }

    /// Names that it gives the image.
    pub(super) fn names(&self) -> &[String] {
        match self {
            Self::Image { names, .. } | Self::Archive { names, .. } => names,
            _ => &[],
        }
    }

    /// Gives the result out. `tags` are those of `-t`; `said` goes with it, unless it is
    /// an image of the store; times after `epoch` (seconds since 1970) become it.
    pub(super) fn write(
        &self,
        context: &Context<'_>,
        (builder, built): (&Builder<'_>, &Built),
        tags: &[String],
        said: &[Attestation],
        epoch: Option<i64>,
    ) -> Result<(), Failure> {
        match self {
            Self::Image { .. } | Self::CacheOnly => Ok(()),
            Self::Archive { names, to } => {
                let Some(id) = &built.image else { return Ok(()) };
                let images = Images::open(context.paths())?;
                let image = images.resolve(id.as_str())?;
                let names = tags.iter().chain(names).map(|name| super::reference(name));
                let names = names.collect::<Result<Vec<Reference>, _>>()?;
                to.write(|out| Ok(images.save_as(&image, &names, said, out)?))
            }
            Self::Local { to, prefix } => {
                let view = builder.view(&built.chain)?;
                let statements = statements(view.root()?, said, prefix)?;
                local(view.root()?, &statements, to)
            }
            Self::Tar { to, prefix } => {
                let view = builder.view(&built.chain)?;
                let statements = statements(view.root()?, said, prefix)?;
                // The view's own descriptor may be one that only names the directory.
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let root = openat(view.root()?, ".", flags, Mode::empty()).map_err(std::io::Error::from)?;
                to.write(|out| {
                    diff::write(&root, &statements, out, &diff::Options { clamp: epoch })?;
                    Ok(())
                })
            }
        }
    }
}

impl Target {
    /// Writes a file beside its place and moves it there in the end, or to stdout.
    fn write(&self, write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>) -> Result<(), Failure> {
        match self {
            Self::Stdout => {
                let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
                write(&mut out)?;
                Ok(out.flush()?)
            }
            Self::File(path) => {
                let mut draft = path.clone().into_os_string();
                draft.push(format!(".tmp{}", std::process::id()));
                let failed = |error| Failure::failed(format!("write {}: {error}", path.display()));
                let make = || -> Result<(), Failure> {
                    let mut out = BufWriter::with_capacity(1 << 20, File::create(&draft).map_err(failed)?);
                    write(&mut out)?;
                    out.flush().map_err(failed)?;
                    std::fs::rename(&draft, path).map_err(failed)
                };
                make().inspect_err(|_| drop(std::fs::remove_file(&draft)))
            }
        }
    }
}

/// All files of a result.
fn tree(root: BorrowedFd<'_>) -> Result<Vec<Picked>, SourceError> {
    Source { root, ignore: None, exclude: None }.pick("/")
}

/// What is said of the files of a result, each as a file: its name, and a statement of all their digests (*BuildKit
/// "Attestations": local and tar exporters*).
fn statements(root: BorrowedFd<'_>, said: &[Attestation], prefix: &str) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    if said.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |error: &SourceError| Failure::from_error(exit::FAILED, error).about("say something of the result");
    let files = tree(root).and_then(|tree| sums(root, &tree)).map_err(|error| failed(&error))?;
    let files: Vec<_> = files.into_iter().map(|(path, digest)| (path.to_string_lossy().into_owned(), digest)).collect();
    let one = |attestation: &Attestation| {
        let kind = if attestation.predicate_type == PREDICATE { "provenance" } else { "sbom.spdx" };
        let name = format!("{prefix}{kind}.json");
        if files.iter().any(|(path, _)| *path == name) {
            let message = format!("the result has a file {name}, where what is said of it is to be written");
            return Err(Failure::failed(message).hint("-o type=...,attestation-prefix=NAME-"));
        }
        Ok((name, serde_json::to_vec_pretty(&attestation.statement(&files)).map_err(std::io::Error::from)?))
    };
    said.iter().map(one).collect()
}

/// Copies a tree over what is in a directory, and more files beside it; everything belongs to the caller, as in Docker.
fn local(root: BorrowedFd<'_>, more: &[(String, Vec<u8>)], directory: &Path) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::failed(format!("write {}: {error}", directory.display()));
    std::fs::create_dir_all(directory).map_err(|error| failed(&error))?;
    let to = File::open(directory).map_err(|error| failed(&error))?;
    let owner = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    let options = CopyOptions { owner: Some(owner), keep: true, ..CopyOptions::default() };
    let target = Destination { root: to.as_fd(), options };
    let copied = |result: Result<(), CopyError>| result.map_err(|error| Failure::from_error(exit::FAILED, &error));
    for tree in tree(root).map_err(|error| failed(&error))? {
        copied(target.copy(root, &tree, "/", false, &Progress::untold()))?;
    }
    let alone = ModeChange::Octal(0o600);
    let target = Destination { options: CopyOptions { mode: Some(&alone), ..options }, ..target };
    more.iter().try_for_each(|(name, content)| copied(target.write("/", name, true, content)))
}

/// Takes an image that only an archive was made of out of the store again.
pub(super) fn forget(engine: &Engine, cache: &BuildCache, built: &Built, before: bool) -> Result<(), Failure> {
    if let (Some(id), false) = (&built.image, before) {
        engine.remove_image(id.as_str(), true, &|| cache.roots())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_written_as_in_buildx() {
        let archive = |to| Ok(Output::Archive { names: Vec::new(), to });
        let image = |names: &[&str], push| {
            Ok(Output::Image { names: names.iter().map(|name| (*name).to_owned()).collect(), push })
        };
        let local = |prefix: &str| Ok(Output::Local { to: "out".into(), prefix: prefix.to_owned() });
        let tar = |to, prefix: &str| Ok(Output::Tar { to, prefix: prefix.to_owned() });
        for (text, expected) in [
            ("out", local("")),
            ("-", tar(Target::Stdout, "")),
            ("type=local,dest=out", local("")),
            ("type=local,dest=out,attestation-prefix=a-", local("a-")),
            ("type=tar,dest=x.tar", tar(Target::File("x.tar".into()), "")),
            ("type=tar,attestation-prefix=a-", tar(Target::Stdout, "a-")),
            ("type=docker", image(&[], None)),
            ("type=registry", image(&[], Some(Format::Gzip))),
            ("type=image,push=true,compression=zstd", image(&[], Some(Format::Zstd))),
            ("type=image,name=a:1,push=false", image(&["a:1"], None)),
            ("type=docker,dest=-", archive(Target::Stdout)),
            ("type=oci,dest=x", archive(Target::File("x".into()))),
            ("type=cacheonly", Ok(Output::CacheOnly)),
        ] {
            assert_eq!(Output::parse(text), expected, "{text}");
        }
        for (text, why) in [
            ("type=local", "needs dest"),
            ("type=registry,dest=x", "registry"),
            ("type=oci,dest=x,push=true", "type=image"),
            ("type=image,compression=gzip", "only what is pushed"),
            ("dest=x", "is missing"),
            ("type=oci,dest=x,compression=zstd", "only what is pushed"),
            ("type=floppy", "floppy"),
            ("type=image,attestation-prefix=a-", "belongs to type=local"),
            ("type=tar,attestation-prefix=a/", "attestation-prefix=a/ is not known"),
        ] {
            assert!(Output::parse(text).unwrap_err().contains(why), "{text}");
        }
    }
}

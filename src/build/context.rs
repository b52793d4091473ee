//! The build context: a directory that is read where it lies, and the two files that describe the build.

use super::files::{Source, StatCache};
use super::graph::CopyFrom;
use super::ignore::{Ignore, IgnoreError};
use crate::base::Digest;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat2, statat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Largest Dockerfile or `.dockerignore`, bytes.
const MAX_FILE: u64 = 16 << 20;

/// Why a context cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The directory cannot be opened.
    #[error("open build context {path:?}")]
    Open {
        /// Directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no Dockerfile.
    #[error("there is no Dockerfile at {0:?}; -f names another")]
    NoDockerfile(PathBuf),
    /// A file cannot be read.
    #[error("read {path:?}")]
    Read {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A `.dockerignore` with an error in it.
    #[error("{path:?}")]
    Ignore {
        /// File.
        path: PathBuf,
        /// What.
        #[source]
        source: IgnoreError,
    },
}

/// A build context.
#[derive(Debug)]
pub struct Context {
    root: OwnedFd,
    /// What is left out.
    pub ignore: Ignore,
    /// Text of the Dockerfile.
    pub dockerfile: String,
    /// Where the Dockerfile was found.
    pub dockerfile_path: PathBuf,
    /// Directories of `--build-context`, by name.
    named: Vec<(String, OwnedFd, Ignore)>,
    /// Digests of files that did not change.
    pub(super) stats: StatCache,
}

impl Context {
    /// Opens a directory as context. Without `file`, the Dockerfile is `Dockerfile` or `dockerfile` in it; the ignore
    /// file is `<Dockerfile>.dockerignore` beside it, else `.dockerignore` in the context (*Dockerfile reference,
    /// ".dockerignore file"*). Digests of unchanged files are kept below `cache` (`build/cache` of the store).
    ///
    /// # Errors
    /// When one of them cannot be read or the ignore file has an error.
    pub fn open(directory: &Path, file: Option<&Path>, cache: &Path) -> Result<Self, ContextError> {
        let (real, root) = open_root(directory)?;
        let (dockerfile_path, text) = match file {
            Some(path) => (path.to_owned(), read_path(path)?),
            None => {
                let found = ["Dockerfile", "dockerfile"]
                    .iter()
                    .find_map(|name| Some((name, read_inside(&root, name, &real).transpose()?)));
                let (name, text) = found.ok_or_else(|| ContextError::NoDockerfile(real.join("Dockerfile")))?;
                (real.join(name), Some(text?))
            }
        };
        let dockerfile = text.ok_or_else(|| ContextError::NoDockerfile(dockerfile_path.clone()))?;
        let mut own = dockerfile_path.clone().into_os_string();
        own.push(".dockerignore");
        Self::assemble(&real, root, (dockerfile_path, dockerfile), Some(own.into()), cache)
    }

    /// Opens a directory as context of a Dockerfile that comes from elsewhere (`-f -`).
    ///
    /// # Errors
    /// As [`Context::open`].
    pub fn with_dockerfile(directory: &Path, dockerfile: String, cache: &Path) -> Result<Self, ContextError> {
        let (real, root) = open_root(directory)?;
        Self::assemble(&real, root, (PathBuf::from("Dockerfile"), dockerfile), None, cache)
    }

    /// Opens a tree as context that was made for this build (an archive, a repository) and is walked inside itself only:
    /// `file` and the ignore files lie in it, too.
    ///
    /// # Errors
    /// As [`Context::open`].
    pub fn of_tree(root: OwnedFd, file: Option<&str>) -> Result<Self, ContextError> {
        let inside = Path::new("");
        let names = file.map_or_else(|| vec!["Dockerfile", "dockerfile"], |file| vec![file]);
        let found = names.iter().find_map(|name| Some((*name, read_inside(&root, name, inside).transpose()?)));
        let (name, text) = found.ok_or_else(|| ContextError::NoDockerfile(names[0].into()))?;
        let dockerfile = text?;
        let own = format!("{name}.dockerignore");
        let (path, ignore) = match read_inside(&root, &own, inside)? {
            Some(text) => (own, text),
            None => (".dockerignore".to_owned(), read_inside(&root, ".dockerignore", inside)?.unwrap_or_default()),
        };
        let ignore = Ignore::parse(&ignore).map_err(|source| ContextError::Ignore { path: path.into(), source })?;
        Ok(Self {
            root,
            ignore,
            dockerfile,
            dockerfile_path: name.into(),
            named: Vec::new(),
            stats: StatCache::default(),
        })
    }

    /// As [`Context::of_tree`], with a Dockerfile that comes from elsewhere.
    ///
    /// # Errors
    /// As [`Context::open`].
    pub fn of_tree_with(root: OwnedFd, dockerfile: String) -> Result<Self, ContextError> {
        let ignore = read_inside(&root, ".dockerignore", Path::new(""))?.unwrap_or_default();
        let path = PathBuf::from(".dockerignore");
        let ignore = Ignore::parse(&ignore).map_err(|source| ContextError::Ignore { path, source })?;
        let (dockerfile_path, stats) = (PathBuf::from("Dockerfile"), StatCache::default());
        Ok(Self { root, ignore, dockerfile, dockerfile_path, named: Vec::new(), stats })
    }

    /// Adds a tree under a name (`--build-context`) that was made for this build.
    ///
    /// # Errors
    /// When its ignore file has an error.
    pub fn add_named_tree(&mut self, name: &str, root: OwnedFd) -> Result<(), ContextError> {
        let text = read_inside(&root, ".dockerignore", Path::new(""))?.unwrap_or_default();
        let path = PathBuf::from(".dockerignore");
        let ignore = Ignore::parse(&text).map_err(|source| ContextError::Ignore { path, source })?;
        self.named.push((name.to_owned(), root, ignore));
        Ok(())
    }

    fn assemble(
        real: &Path,
        root: OwnedFd,
        (dockerfile_path, dockerfile): (PathBuf, String),
        own_ignore: Option<PathBuf>,
        cache: &Path,
    ) -> Result<Self, ContextError> {
        let of_file = match own_ignore {
            Some(path) => read_path(&path)?.map(|text| (path, text)),
            None => None,
        };
        let (ignore_path, ignore) = match of_file {
            Some(found) => found,
            None => (real.join(".dockerignore"), read_inside(&root, ".dockerignore", real)?.unwrap_or_default()),
        };
        let ignore = Ignore::parse(&ignore).map_err(|source| ContextError::Ignore { path: ignore_path, source })?;
        let stats = StatCache::load(&cache.join(format!("stat-{}", Digest::of(real.as_os_str().as_bytes()).short())));
        Ok(Self { root, ignore, dockerfile, dockerfile_path, named: Vec::new(), stats })
    }

    /// Adds a directory under a name (`--build-context`); its own `.dockerignore` counts.
    ///
    /// # Errors
    /// When it cannot be opened or its ignore file has an error.
    pub fn add_named(&mut self, name: &str, directory: &Path) -> Result<(), ContextError> {
        let (real, root) = open_root(directory)?;
        let text = read_inside(&root, ".dockerignore", &real)?.unwrap_or_default();
        let path = real.join(".dockerignore");
        let ignore = Ignore::parse(&text).map_err(|source| ContextError::Ignore { path, source })?;
        self.named.push((name.to_owned(), root, ignore));
        Ok(())
    }

    /// Returns a directory of `--build-context`.
    pub(super) fn named(&self, name: &str) -> Option<Source<'_>> {
        let (_, root, ignore) = self.named.iter().rev().find(|(known, ..)| known == name)?;
        Some(Source { root: root.as_fd(), ignore: Some(ignore), exclude: None })
    }

    /// Returns the directory that a source stands for; `None` where it is no directory of the host.
    pub(super) fn tree(&self, from: &CopyFrom) -> Option<Source<'_>> {
        match from {
            CopyFrom::Context => Some(self.source()),
            CopyFrom::Named(name) => self.named(name),
            CopyFrom::Stage(_) | CopyFrom::Image(_) => None,
        }
    }

    /// Returns the tree that sources are looked up in.
    pub fn source(&self) -> Source<'_> {
        Source { root: self.root.as_fd(), ignore: Some(&self.ignore), exclude: None }
    }
}

/// Opens the context's directory and says where it really is.
fn open_root(directory: &Path) -> Result<(PathBuf, OwnedFd), ContextError> {
    let fail = |source| ContextError::Open { path: directory.to_owned(), source };
    let real = directory.canonicalize().map_err(fail)?;
    let root = File::open(&real).map_err(fail)?;
    if !root.metadata().map_err(fail)?.is_dir() {
        return Err(fail(io::ErrorKind::NotADirectory.into()));
    }
    Ok((real, OwnedFd::from(root)))
}

/// Reads a file that the user named; a link in it may lead anywhere.
fn read_path(path: &Path) -> Result<Option<String>, ContextError> {
    let fail = |source| ContextError::Read { path: path.to_owned(), source };
    match rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(fail(errno.into())),
        Ok(file) => read(file).map(Some).map_err(fail),
    }
}

/// Reads a file of the context; a link in it stays inside.
fn read_inside(root: &OwnedFd, name: &str, directory: &Path) -> Result<Option<String>, ContextError> {
    let fail = |source| ContextError::Read { path: directory.join(name), source };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, name, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty(), resolve) {
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(fail(errno.into())),
        Ok(file) => read(file).map(Some).map_err(fail),
    }
}

fn read(file: OwnedFd) -> io::Result<String> {
    let stat = statat(&file, "", AtFlags::EMPTY_PATH)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is no ordinary file"));
    }
    let mut bytes = Vec::new();
    File::from(file).take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other("it is larger than 16 MiB"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "files of a test")]
    fn write(dir: &Path, name: &str, text: &str) {
        std::fs::write(dir.join(name), text).unwrap();
    }

    #[test]
    fn the_two_files_are_found_by_dockers_rules() {
        let dir = tempfile::tempdir().unwrap();
        let open =
            |file: Option<&str>| Context::open(dir.path(), file.map(|f| dir.path().join(f)).as_deref(), dir.path());
        assert!(matches!(open(None), Err(ContextError::NoDockerfile(_))));
        write(dir.path(), "dockerfile", "FROM lower");
        assert_eq!(open(None).unwrap().dockerfile, "FROM lower");
        write(dir.path(), "Dockerfile", "FROM upper");
        write(dir.path(), ".dockerignore", "a");
        assert_eq!(open(None).unwrap().dockerfile, "FROM upper");
        assert!(open(None).unwrap().ignore.ignores("a"));
        write(dir.path(), "other", "FROM other");
        write(dir.path(), "other.dockerignore", "b");
        let other = open(Some("other")).unwrap();
        assert_eq!(other.dockerfile, "FROM other");
        assert!(
            other.ignore.ignores("b") && !other.ignore.ignores("a"),
            "its own ignore file replaces the general one"
        );
        write(dir.path(), ".dockerignore", "x\n[");
        assert!(matches!(open(None), Err(ContextError::Ignore { .. })));
    }

    #[test]
    fn a_tree_of_its_own_is_looked_at_inside_itself() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = |file| Context::of_tree(File::open(dir.path()).unwrap().into(), file);
        assert!(matches!(open(None), Err(ContextError::NoDockerfile(_))));
        write(dir.path(), "dockerfile", "FROM lower");
        write(dir.path(), ".dockerignore", "a");
        assert!(open(None).unwrap().dockerfile == "FROM lower" && open(None).unwrap().ignore.ignores("a"));
        write(dir.path(), "other", "FROM other");
        write(dir.path(), "other.dockerignore", "b");
        let other = open(Some("other")).unwrap();
        assert!(other.dockerfile == "FROM other" && other.ignore.ignores("b") && !other.ignore.ignores("a"));
        write(outside.path(), "secret", "FROM secret");
        let target = outside.path().join("secret");
        std::os::unix::fs::symlink(&target, dir.path().join("link")).unwrap();
        assert!(open(Some("link")).is_err() && open(Some(target.to_str().unwrap())).is_err());
    }

    #[test]
    fn a_dockerfile_that_links_out_of_its_context_is_not_followed() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(outside.path(), "secret", "FROM secret");
        std::os::unix::fs::symlink(outside.path().join("secret"), dir.path().join("Dockerfile")).unwrap();
        assert!(matches!(Context::open(dir.path(), None, dir.path()), Err(ContextError::NoDockerfile(_))));
    }
}

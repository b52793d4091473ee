//! What was found: files, what they are, and why they cannot be had.

use super::open;
use super::stat_cache::Stamp;
use crate::build::glob::GlobError;
use rustix::fs::{AtFlags, FileType, OFlags, Stat, readlinkat, statat};
use rustix::io::Errno;
use std::ffi::OsString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Deepest directory that is walked; each level holds a descriptor.
pub(super) const MAX_DEPTH: usize = 400;

/// Why sources cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nothing there.
    #[error("{0:?} is not there")]
    NotFound(String),
    /// Left out by `.dockerignore`.
    #[error("{0:?} is left out by .dockerignore")]
    Ignored(String),
    /// A pattern without a match.
    #[error("nothing matches {0:?}")]
    NoMatch(String),
    /// A bad pattern.
    #[error(transparent)]
    Glob(#[from] GlobError),
    /// Too deep.
    #[error("{0:?} has directories more than {MAX_DEPTH} deep")]
    TooDeep(PathBuf),
    /// A device or the like.
    #[error("{0:?} is neither file, directory nor link")]
    Special(PathBuf),
    /// Changed while it was read.
    #[error("{0:?} changed while it was read; build again")]
    Changed(PathBuf),
    /// The system refused.
    #[error("read {path:?}")]
    Io {
        /// Path in the tree.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

pub(super) fn io(path: &Path) -> impl FnOnce(Errno) -> SourceError {
    let path = path.to_owned();
    move |errno| SourceError::Io { path, source: errno.into() }
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An ordinary file.
    File,
    /// A directory.
    Directory,
    /// A link and its text.
    Link(OsString),
    /// A pipe with a name.
    Fifo,
}

/// One file below a source.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Path below the source; empty for the source itself.
    pub path: PathBuf,
    /// Kind.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group in the source tree.
    pub owner: super::Owner,
    /// Size and times.
    pub stamp: Stamp,
}

impl Entry {
    /// Bytes of content.
    pub fn bytes(&self) -> u64 {
        if self.kind == Kind::File { self.stamp.size } else { 0 }
    }
}

/// One match of a source with all that is below it, parents first.
#[derive(Clone, Debug)]
pub struct Picked {
    /// Path in the tree, links resolved.
    pub base: PathBuf,
    /// Name it has when it goes into a directory.
    pub name: OsString,
    /// Path in the tree as it was found, links unresolved.
    pub found: PathBuf,
    /// Directories that come along below the destination (`--parents`); empty without.
    pub under: PathBuf,
    /// What those directories are, the outermost first.
    pub above: Vec<Entry>,
    /// Itself, then what is below it.
    pub entries: Vec<Entry>,
}

impl Picked {
    /// Opens the source itself, a file.
    ///
    /// # Errors
    /// When it cannot be opened or is another one by now.
    pub fn open(&self, root: BorrowedFd<'_>) -> Result<OwnedFd, SourceError> {
        match self.entries.first() {
            Some(entry) => open_entry(root, &self.base, entry),
            None => Err(SourceError::Changed(self.base.clone())),
        }
    }

    /// Opens a file that was found below it.
    ///
    /// # Errors
    /// When it cannot be opened or is another one by now.
    pub fn open_below(&self, root: BorrowedFd<'_>, entry: &Entry) -> Result<OwnedFd, SourceError> {
        open_entry(root, &self.base, entry)
    }

    /// Tells whether the source is a directory, whose content is copied and not itself.
    pub fn is_directory(&self) -> bool {
        self.entries.first().is_some_and(|e| e.kind == Kind::Directory)
    }
}

pub(super) fn readlink(directory: BorrowedFd<'_>, path: &Path) -> Result<OsString, SourceError> {
    let target = readlinkat(directory, path, Vec::new()).map_err(io(path))?;
    Ok(OsString::from_vec(target.into_bytes()))
}

/// Tells what a name stands for; `None` for a device or a socket.
pub(super) fn entry(
    path: PathBuf,
    stat: &Stat,
    link: &dyn Fn() -> Result<OsString, SourceError>,
) -> Result<Option<Entry>, SourceError> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Link(link()?),
        FileType::Fifo => Kind::Fifo,
        _ => return Ok(None),
    };
    let owner = super::Owner { uid: stat.st_uid, gid: stat.st_gid };
    Ok(Some(Entry { path, kind, mode: stat.st_mode & 0o7777, owner, stamp: Stamp::of(stat) }))
}

/// Opens a file that was found, and refuses it when it is another one by now.
pub(super) fn open_entry(root: BorrowedFd<'_>, base: &Path, entry: &Entry) -> Result<OwnedFd, SourceError> {
    // Joining an empty path would leave a slash at the end, which asks for a directory.
    let path = if entry.path.as_os_str().is_empty() { base.to_owned() } else { base.join(&entry.path) };
    let file = open(root, &path, OFlags::RDONLY | OFlags::NONBLOCK).map_err(io(&path))?;
    let stat = statat(&file, "", AtFlags::EMPTY_PATH).map_err(io(&path))?;
    if Stamp::of(&stat) == entry.stamp { Ok(file) } else { Err(SourceError::Changed(path)) }
}

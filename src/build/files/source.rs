//! Finding the files that a source names, and digesting them.

use super::stat_cache::Stamp;
use super::{canonical, open, stat};
use crate::build::glob::{GlobError, PathPattern, Segment, clean};
use crate::build::ignore::{Ignore, Inherited};
use rustix::fs::{AtFlags, Dir, FileType, OFlags, Stat, readlinkat, statat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Deepest directory that is walked; each level holds a descriptor.
const MAX_DEPTH: usize = 400;

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

fn io(path: &Path) -> impl FnOnce(Errno) -> SourceError {
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

/// A tree that sources are looked up in.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Root directory.
    pub root: BorrowedFd<'a>,
    /// What is not there (`.dockerignore`).
    pub ignore: Option<&'a Ignore>,
    /// Patterns relative to each source (`--exclude`).
    pub exclude: Option<&'a Ignore>,
}

impl Source<'_> {
    /// Finds what a path or pattern names, in order of names.
    ///
    /// # Errors
    /// When nothing is there or it is left out.
    pub fn pick(&self, text: &str) -> Result<Vec<Picked>, SourceError> {
        let pattern = PathPattern::parse(text)?;
        let paths = if pattern.is_wild() { self.matches(&pattern)? } else { vec![self.plain(text, &pattern)?] };
        if paths.is_empty() {
            return Err(SourceError::NoMatch(text.to_owned()));
        }
        let mut picked = Vec::new();
        for path in paths {
            picked.extend(self.walk(&path, text)?);
        }
        Ok(picked)
    }

    /// Finds what a path names, letter for letter.
    ///
    /// # Errors
    /// As [`Source::pick`].
    pub fn exactly(&self, text: &str) -> Result<Vec<Picked>, SourceError> {
        let path = self.seen(text, clean(text).iter().collect())?;
        Ok(self.walk(&path, text)?.into_iter().collect())
    }

    /// Has the directories above a match come along, but the first `skip` of them; a directory itself, too (*Dockerfile
    /// reference "COPY --parents"*).
    ///
    /// # Errors
    /// When they cannot be looked at.
    pub fn keep_parents(&self, picked: &mut Picked, skip: usize) -> Result<(), SourceError> {
        let whole = if picked.is_directory() { Some(picked.found.as_path()) } else { picked.found.parent() };
        let names: Vec<_> = whole.into_iter().flat_map(Path::components).collect();
        picked.under = names.iter().skip(skip).collect();
        for count in skip + 1..=names.len() {
            let path: PathBuf = names[..count].iter().collect();
            let real = canonical(self.root, path.as_os_str()).map_err(io(&path))?;
            let stat = stat(self.root, &real).map_err(io(&path))?;
            let stat = stat.ok_or_else(|| SourceError::Changed(path.clone()))?;
            let name = PathBuf::from(names[count - 1].as_os_str());
            picked.above.extend(entry(name, &stat, &|| readlink(self.root, &real))?);
        }
        Ok(())
    }

    fn plain(&self, text: &str, pattern: &PathPattern) -> Result<PathBuf, SourceError> {
        let names = pattern
            .segments
            .iter()
            .filter_map(|s| if let Segment::Name(name) = s { Some(name.as_str()) } else { None });
        self.seen(text, names.collect())
    }

    fn seen(&self, text: &str, path: PathBuf) -> Result<PathBuf, SourceError> {
        match self.ignore {
            Some(ignore) if self.is_hidden(ignore, &path) => Err(SourceError::Ignored(text.to_owned())),
            _ => Ok(path),
        }
    }

    /// Tells whether a path is left out together with everything below it.
    fn is_hidden(&self, ignore: &Ignore, path: &Path) -> bool {
        let text = path.to_string_lossy();
        let mut inherited = Inherited::default();
        let mut hidden = false;
        for end in
            text.char_indices().filter(|(_, c)| *c == '/').map(|(i, _)| i).chain([text.len()]).filter(|end| *end > 0)
        {
            let verdict = ignore.judge(&text[..end], &inherited);
            if verdict.prune {
                return true;
            }
            (hidden, inherited) = (verdict.ignored, verdict.inherited);
        }
        hidden
            && !matches!(stat(self.root, path), Ok(Some(s)) if FileType::from_raw_mode(s.st_mode) == FileType::Directory)
    }

    /// Walks along a pattern and collects what matches.
    fn matches(&self, pattern: &PathPattern) -> Result<Vec<PathBuf>, SourceError> {
        let mut found = Vec::new();
        let mut waiting = vec![(PathBuf::new(), 0usize)];
        while let Some((here, index)) = waiting.pop() {
            let Some(segment) = pattern.segments.get(index) else {
                if !here.as_os_str().is_empty() {
                    found.push(here);
                }
                continue;
            };
            if let Segment::Name(name) = segment {
                let path = here.join(name);
                if index + 1 < pattern.segments.len() || self.visible(&path)? {
                    waiting.push((path, index + 1));
                }
                continue;
            }
            if here.components().count() > MAX_DEPTH {
                return Err(SourceError::TooDeep(here));
            }
            if *segment == Segment::Deep && index + 1 < pattern.segments.len() {
                waiting.push((here.clone(), index + 1));
            }
            let resolved = canonical(self.root, here.as_os_str()).map_err(io(&here))?;
            let directory = match open(self.root, &resolved, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(directory) => directory,
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(errno) => return Err(io(&here)(errno)),
            };
            for name in names(&directory, &here)? {
                if !segment.takes(&name.to_string_lossy()) {
                    continue;
                }
                let path = here.join(&name);
                if self.ignore.is_some_and(|i| self.is_hidden(i, &path)) {
                    continue;
                }
                match segment {
                    // `**` takes this name and may take more; at the end it takes whatever is there.
                    Segment::Deep if index + 1 < pattern.segments.len() => {
                        let stat = statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(io(&path))?;
                        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                            waiting.push((path, index));
                        }
                    }
                    _ => waiting.push((path, index + 1)),
                }
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    fn visible(&self, path: &Path) -> Result<bool, SourceError> {
        let resolved = canonical(self.root, path.as_os_str()).map_err(io(path))?;
        match stat(self.root, &resolved) {
            Ok(found) => Ok(found.is_some()),
            Err(Errno::NOTDIR) => Ok(false),
            Err(errno) => Err(io(path)(errno)),
        }
    }

    /// Collects a path and what is below it; `None` when `--exclude` leaves it out.
    fn walk(&self, path: &Path, text: &str) -> Result<Option<Picked>, SourceError> {
        let base = match canonical(self.root, path.as_os_str()) {
            Err(Errno::NOTDIR) => return Err(SourceError::NotFound(text.to_owned())),
            base => base.map_err(io(path))?,
        };
        // A link may lead to something that is left out.
        if let Some(ignore) = self.ignore.filter(|_| base != path)
            && self.is_hidden(ignore, &base)
        {
            return Err(SourceError::Ignored(text.to_owned()));
        }
        let found = match stat(self.root, &base) {
            Err(Errno::NOTDIR) => None,
            found => found.map_err(io(&base))?,
        };
        let stat = found.ok_or_else(|| SourceError::NotFound(text.to_owned()))?;
        let name = path.file_name().unwrap_or_default().to_owned();
        let Some(entry) = entry(PathBuf::new(), &stat, &|| readlink(self.root, &base))? else {
            return Err(SourceError::Special(base));
        };
        let directory = entry.kind == Kind::Directory;
        if !directory && self.exclude.is_some_and(|e| e.ignores(&name.to_string_lossy())) {
            return Ok(None);
        }
        let (found, under, above) = (path.to_owned(), PathBuf::new(), Vec::new());
        let mut picked = Picked { name, found, under, above, entries: vec![entry], base };
        if directory {
            let mut rules = Rules::default();
            if let Some(ignore) = self.ignore {
                let text = picked.base.to_string_lossy().into_owned();
                for end in text
                    .char_indices()
                    .filter(|(_, c)| *c == '/')
                    .map(|(i, _)| i)
                    .chain([text.len()])
                    .filter(|end| *end > 0)
                {
                    rules.ignore = ignore.judge(&text[..end], &rules.ignore).inherited;
                }
            }
            let opened = open(self.root, &picked.base, OFlags::RDONLY | OFlags::DIRECTORY).map_err(io(&picked.base))?;
            self.below(&opened, Path::new(""), &rules, 0, &mut picked)?;
        }
        Ok(Some(picked))
    }

    fn below(
        &self,
        directory: &OwnedFd,
        relative: &Path,
        rules: &Rules,
        depth: usize,
        picked: &mut Picked,
    ) -> Result<(), SourceError> {
        if depth > MAX_DEPTH {
            return Err(SourceError::TooDeep(picked.base.clone()));
        }
        for name in names(directory, relative)? {
            let path = relative.join(&name);
            let mut next = Rules::default();
            let (mut ignored, mut prune) = (false, false);
            if let Some(ignore) = self.ignore {
                let verdict = ignore.judge(&picked.base.join(&path).to_string_lossy(), &rules.ignore);
                (ignored, prune, next.ignore) = (verdict.ignored, verdict.prune, verdict.inherited);
            }
            if let Some(exclude) = self.exclude {
                let verdict = exclude.judge(&path.to_string_lossy(), &rules.exclude);
                ignored |= verdict.ignored;
                prune |= verdict.prune;
                next.exclude = verdict.inherited;
            }
            if prune {
                continue;
            }
            let stat = match statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => return Err(SourceError::Changed(picked.base.join(&path))),
                stat => stat.map_err(io(&path))?,
            };
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if ignored && !is_directory {
                continue;
            }
            // Sockets are no content, and neither is overlay's mark of a deletion, which archives and single layers show.
            let Some(entry) = entry(path.clone(), &stat, &|| readlink(directory.as_fd(), Path::new(&name)))? else {
                let kind = FileType::from_raw_mode(stat.st_mode);
                if kind == FileType::Socket || (kind == FileType::CharacterDevice && stat.st_rdev == 0) {
                    continue;
                }
                return Err(SourceError::Special(picked.base.join(&path)));
            };
            let before = picked.entries.len();
            picked.entries.push(entry);
            if is_directory {
                let opened =
                    open(directory.as_fd(), Path::new(&name), OFlags::RDONLY | OFlags::DIRECTORY).map_err(io(&path))?;
                self.below(&opened, &path, &next, depth + 1, picked)?;
                // A directory that is left out is only there for what came back below it.
                if ignored && picked.entries.len() == before + 1 {
                    picked.entries.pop();
                }
            }
        }
        Ok(())
    }
}

/// What the two pattern lists said about the directory above.
#[derive(Default)]
struct Rules {
    ignore: Inherited,
    exclude: Inherited,
}

fn names(directory: &OwnedFd, path: &Path) -> Result<Vec<OsString>, SourceError> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory).map_err(io(path))? {
        let entry = entry.map_err(io(path))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn readlink(directory: BorrowedFd<'_>, path: &Path) -> Result<OsString, SourceError> {
    let target = readlinkat(directory, path, Vec::new()).map_err(io(path))?;
    Ok(OsString::from_vec(target.into_bytes()))
}

fn entry(
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

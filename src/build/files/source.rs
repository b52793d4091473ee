//! Finding the files that a source names.

use super::entry::{Kind, MAX_DEPTH, Picked, SourceError, entry, io, readlink};
use super::{canonical, open, stat};
use crate::build::glob::{PathPattern, Segment, clean};
use crate::build::ignore::{Ignore, Inherited};
use rustix::fs::{AtFlags, Dir, FileType, OFlags, statat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

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

//! Writing into a step's tree.

use super::content::{copy_attributes, copy_content};
use super::entry::{Entry, Kind, Picked, SourceError, open_entry};
use super::progress::Progress;
use super::side::{side_by_side, workers};
use super::{ModeChange, Owner, canonical, open, stat};
use crate::build::glob::clean;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chownat, fchmod, fchown, futimens, mkdirat,
    mknodat, openat2, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Why files cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A directory is wanted where something else is.
    #[error("{0:?} is in the way: it is no directory")]
    NotDirectory(PathBuf),
    /// A file is wanted where a directory is.
    #[error("{0:?} is a directory; a file cannot take its place")]
    IsDirectory(PathBuf),
    /// Several files for one name.
    #[error("{0:?} must end with / because several files go there")]
    NeedsDirectory(PathBuf),
    /// The system refused.
    #[error("write {path:?}")]
    Io {
        /// Path in the tree.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn failed(path: &Path) -> impl FnOnce(Errno) -> CopyError + use<> {
    let path = path.to_owned();
    move |errno| CopyError::Io { path, source: errno.into() }
}

/// How files are written.
#[derive(Clone, Copy, Debug, Default)]
pub struct CopyOptions<'a> {
    /// `--chown`.
    pub owner: Option<Owner>,
    /// `--chmod`.
    pub mode: Option<&'a ModeChange>,
    /// `--link`: the destination is found as if nothing were there, so no link on its way is followed.
    pub link: bool,
    /// Without `--chown`, owners and extended attributes stay as in the source tree (other stages and images); files of
    /// the context belong to root.
    pub keep: bool,
}

impl CopyOptions<'_> {
    fn owner(&self, entry: &Entry) -> Owner {
        self.owner.unwrap_or(if self.keep { entry.owner } else { Owner::default() })
    }

    fn mode(&self, entry: &Entry) -> Mode {
        Mode::from_raw_mode(self.changed(entry.mode, entry.kind == Kind::Directory))
    }

    fn changed(&self, mode: u32, directory: bool) -> u32 {
        self.mode.map_or(mode, |change| change.apply(mode, directory))
    }
}

/// A tree that is written to.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// Root directory.
    pub root: BorrowedFd<'a>,
    /// How.
    pub options: CopyOptions<'a>,
}

/// Where a file goes: an open directory, a name in it, and the path for messages.
struct Found {
    directory: OwnedFd,
    name: OsString,
    path: PathBuf,
}

impl Found {
    fn place(&self) -> Place<'_> {
        Place { directory: self.directory.as_fd(), name: &self.name, path: &self.path }
    }
}

/// As [`Found`]; the files of a directory share one descriptor.
#[derive(Clone, Copy)]
struct Place<'a> {
    directory: BorrowedFd<'a>,
    name: &'a OsStr,
    path: &'a Path,
}

impl Destination<'_> {
    /// Resolves the links of a path, as far as the destination's may be followed.
    fn resolve(&self, path: &str) -> Result<PathBuf, CopyError> {
        if self.options.link {
            return Ok(clean(path).iter().collect());
        }
        canonical(self.root, OsStr::new(path)).map_err(failed(Path::new(path)))
    }

    /// Tells whether a path leads to a directory.
    ///
    /// # Errors
    /// When the system refuses to say.
    pub fn is_directory(&self, path: &str) -> Result<bool, CopyError> {
        let resolved = self.resolve(path)?;
        match stat(self.root, &resolved) {
            Ok(found) => Ok(found.is_some_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)),
            Err(Errno::NOTDIR) => Ok(false),
            Err(errno) => Err(failed(&resolved)(errno)),
        }
    }

    /// Opens a directory; it and what is missing above it are made with mode 0755.
    ///
    /// # Errors
    /// When something else is in the way or the system refuses.
    pub fn directory(&self, path: &str) -> Result<OwnedFd, CopyError> {
        self.make(&self.resolve(path)?, 0o755).map(|(directory, _)| directory)
    }

    /// Makes a directory without links in its path; says whether the last name is new.
    fn make(&self, path: &Path, mode: u32) -> Result<(OwnedFd, bool), CopyError> {
        let mut here = open(self.root, Path::new(""), OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed(path))?;
        let mut made = false;
        let count = path.components().count();
        for (index, name) in path.components().enumerate() {
            let name = Path::new(name.as_os_str());
            let mode = if index + 1 == count { mode } else { 0o755 };
            made = match mkdirat(&here, name, Mode::from_raw_mode(0o755)) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(errno) => return Err(failed(path)(errno)),
            };
            here = match open(here.as_fd(), name, OFlags::RDONLY | OFlags::DIRECTORY) {
                // What is in the way of a layer of its own is hidden by that layer.
                Err(Errno::NOTDIR | Errno::LOOP) if self.options.link => {
                    made = true;
                    unlinkat(&here, name, AtFlags::empty())
                        .and_then(|()| mkdirat(&here, name, Mode::from_raw_mode(0o755)))
                        .and_then(|()| open(here.as_fd(), name, OFlags::RDONLY | OFlags::DIRECTORY))
                        .map_err(failed(path))?
                }
                Err(Errno::NOTDIR | Errno::LOOP) => return Err(CopyError::NotDirectory(path.to_owned())),
                opened => opened.map_err(failed(path))?,
            };
            if made {
                let owner = self.options.owner.unwrap_or_default();
                give(&here, owner).and_then(|()| fchmod(&here, Mode::from_raw_mode(mode))).map_err(failed(path))?;
            }
        }
        Ok((here, made))
    }

    /// The place of a file: `name` in a directory when `path` is one or ends with a slash, else `path` itself.
    fn place(&self, path: &str, name: &OsStr, several: bool) -> Result<Found, CopyError> {
        let into = path.ends_with('/') || (!self.options.link && self.is_directory(path)?);
        if !into && several {
            return Err(CopyError::NeedsDirectory(path.into()));
        }
        if into {
            let directory = self.directory(path)?;
            return Ok(Found { directory, name: name.to_owned(), path: Path::new(path).join(name) });
        }
        let resolved = self.resolve(path)?;
        let parent = resolved.parent().unwrap_or(Path::new(""));
        let (directory, _) = self.make(parent, 0o755)?;
        Ok(Found { directory, name: resolved.file_name().unwrap_or(name).to_owned(), path: resolved })
    }

    /// Writes a text as a file (here-documents).
    ///
    /// # Errors
    /// As for [`Destination::copy`].
    pub fn write(&self, path: &str, name: &str, several: bool, content: &[u8]) -> Result<(), CopyError> {
        let found = self.place(path, OsStr::new(name), several)?;
        let place = found.place();
        let mut file = File::from(create(place)?);
        file.write_all(content).map_err(|source| CopyError::Io { path: place.path.to_owned(), source })?;
        let mode = Mode::from_raw_mode(self.options.changed(0o644, false));
        give(&file, self.options.owner.unwrap_or_default())
            .and_then(|()| fchmod(&file, mode))
            .map_err(failed(place.path))
    }

    /// Copies one source: a file to its place, or the content of a directory (*Dockerfile reference "COPY"*). `progress` is
    /// told of what it holds.
    ///
    /// # Errors
    /// When something of another kind is in the way, a source changed, or the system refuses.
    pub fn copy(
        &self,
        from: BorrowedFd<'_>,
        picked: &Picked,
        path: &str,
        several: bool,
        progress: &Progress<'_>,
    ) -> Result<(), CopyError> {
        let Some((first, rest)) = picked.entries.split_first() else { return Ok(()) };
        if !picked.is_directory() {
            let found = self.place(path, &picked.name, several)?;
            return self.put(from, &picked.base, first, &found.place(), progress);
        }
        let resolved = self.resolve(path)?;
        // The directory that content goes to is made as those above it are, whatever the source's own was (BuildKit, buildah).
        let (top, made) = self.make(&resolved, self.options.changed(0o755, true))?;
        let mut new_directories: Vec<(PathBuf, &Entry)> = Vec::new();
        if made {
            new_directories.push((PathBuf::new(), first));
        }
        let open_below = |above: &Path| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            open(top.as_fd(), above, flags).map_err(failed(&resolved.join(above)))
        };
        let (directories, files): (Vec<&Entry>, Vec<&Entry>) = rest.iter().partition(|e| e.kind == Kind::Directory);
        // Each is after the one it lies in.
        for entry in directories {
            let (parent, name) = (open_below(above(entry))?, entry.path.file_name().unwrap_or_default());
            if self.subdirectory(parent.as_fd(), name, entry, &resolved.join(&entry.path))? {
                new_directories.push((entry.path.clone(), entry));
            }
        }
        // A thread keeps the directory open that it wrote into last.
        let threads = workers(files.iter().copied());
        side_by_side(threads, &files, |parent: &mut Option<(&Path, OwnedFd)>, entry| -> Result<(), CopyError> {
            let (above, name) = (above(entry), entry.path.file_name().unwrap_or_default());
            let directory = match parent.take() {
                Some((path, directory)) if path == above => directory,
                _ => open_below(above)?,
            };
            let place = Place { directory: directory.as_fd(), name, path: &resolved.join(&entry.path) };
            self.put(from, &picked.base, entry, &place, progress)?;
            *parent = Some((above, directory));
            Ok(())
        })?;
        // Times last: writing into a directory changes them.
        for (path, entry) in new_directories.iter().rev() {
            let directory = open(top.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed(path))?;
            futimens(&directory, &times(entry)).map_err(failed(path))?;
        }
        Ok(())
    }

    /// Makes the directories above a source below the destination, as they are in its tree.
    ///
    /// # Errors
    /// When something else is in the way or the system refuses.
    pub fn above(&self, path: &str, above: &[Entry]) -> Result<(), CopyError> {
        let mut here = self.directory(path)?;
        for entry in above {
            match self.subdirectory(here.as_fd(), entry.path.as_os_str(), entry, Path::new(path)) {
                Ok(_) => {}
                // Perhaps a link to a directory; whoever copies into it finds out.
                Err(CopyError::NotDirectory(_)) => return Ok(()),
                Err(error) => return Err(error),
            }
            here = open(here.as_fd(), &entry.path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed(&entry.path))?;
        }
        Ok(())
    }

    fn subdirectory(
        &self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        entry: &Entry,
        path: &Path,
    ) -> Result<bool, CopyError> {
        match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let there = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed(path))?;
                let directory = FileType::from_raw_mode(there.st_mode) == FileType::Directory;
                return if directory { Ok(false) } else { Err(CopyError::NotDirectory(path.to_owned())) };
            }
            Err(errno) => return Err(failed(path)(errno)),
        }
        let made = open(parent, Path::new(name), OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed(path))?;
        give(&made, self.options.owner(entry))
            .and_then(|()| fchmod(&made, self.options.mode(entry)))
            .map_err(failed(path))?;
        Ok(true)
    }

    /// Writes one file, link or pipe, in the place of what is there.
    fn put(
        &self,
        from: BorrowedFd<'_>,
        base: &Path,
        entry: &Entry,
        place: &Place<'_>,
        progress: &Progress<'_>,
    ) -> Result<(), CopyError> {
        let owner = self.options.owner(entry);
        let fail = || failed(place.path);
        match &entry.kind {
            Kind::File => {
                let source = open_entry(from, base, entry)?;
                let file = create(*place)?;
                copy_content(&source, &file, entry.stamp.size, progress)
                    .map_err(|source| CopyError::Io { path: place.path.to_owned(), source })?;
                give(&file, owner).and_then(|()| fchmod(&file, self.options.mode(entry))).map_err(fail())?;
                if self.options.keep {
                    copy_attributes(&source, &file, self.options.owner.is_some()).map_err(fail())?;
                }
                futimens(&file, &times(entry)).map_err(fail())
            }
            Kind::Link(target) => {
                clear(*place)?;
                symlinkat(target, place.directory, place.name).map_err(fail())?;
                self.finish_special(place, owner, entry)
            }
            Kind::Fifo => {
                clear(*place)?;
                mknodat(place.directory, place.name, FileType::Fifo, self.options.mode(entry), 0).map_err(fail())?;
                self.finish_special(place, owner, entry)
            }
            Kind::Directory => Ok(()),
        }
    }

    fn finish_special(&self, place: &Place<'_>, owner: Owner, entry: &Entry) -> Result<(), CopyError> {
        let (uid, gid) = ids(owner);
        chownat(place.directory, place.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .and_then(|()| utimensat(place.directory, place.name, &times(entry), AtFlags::SYMLINK_NOFOLLOW))
            .map_err(failed(place.path))
    }
}

/// The directory an entry lies in.
fn above(entry: &Entry) -> &Path {
    entry.path.parent().unwrap_or(Path::new(""))
}

fn ids(owner: Owner) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
}

fn give(file: impl AsFd, owner: Owner) -> Result<(), Errno> {
    let (uid, gid) = ids(owner);
    fchown(file, uid, gid)
}

fn times(entry: &Entry) -> Timestamps {
    let nanos = entry.stamp.mtime;
    let time = Timespec { tv_sec: nanos.div_euclid(1_000_000_000), tv_nsec: nanos.rem_euclid(1_000_000_000) };
    Timestamps { last_access: time, last_modification: time }
}

/// Removes what stands at a place, unless it is a directory.
fn clear(place: Place<'_>) -> Result<(), CopyError> {
    match unlinkat(place.directory, place.name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Err(CopyError::IsDirectory(place.path.to_owned())),
        Err(errno) => Err(failed(place.path)(errno)),
    }
}

/// Makes a file, in the place of what is there. Mostly nothing is, so that is tried first.
fn create(place: Place<'_>) -> Result<OwnedFd, CopyError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || openat2(place.directory, place.name, flags, Mode::from_raw_mode(0o600), super::PLAIN);
    let made = match open() {
        Err(Errno::EXIST) => {
            clear(place)?;
            open()
        }
        other => other,
    };
    made.map_err(failed(place.path))
}

//! Makes a layer's entries in the tree (*OCI image-spec "Layer"*), in the unpacking process: the tree is its root directory.

use super::Limits;
use super::metadata::times;
use super::report::Report;
use crate::image::split::SplitWriter;
use crate::image::tar::{Entry, Kind, Reader, TarError};
use crate::image::tree;
use crate::sys::fault::{self, Point};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, chmodat, ftruncate, futimens, linkat, mkdirat, mknodat, openat, statat,
    symlinkat, unlinkat,
};
use rustix::io::Errno;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

/// Names that carry a deletion instead of a file.
const WHITEOUT: &[u8] = b".wh.";
/// Names of AUFS's own files, and of the mark of opaque directories.
const AUFS: &[u8] = b".wh..wh.";
/// The mark of a directory that hides what lies below it.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Bytes of one file after which it begins to go.
const EARLY_STEP: u64 = 8 << 20;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The stream is damaged.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// One entry is not acceptable.
    #[error("entry {path:?}: {what}")]
    Entry {
        /// The entry.
        path: String,
        /// What is wrong.
        what: &'static str,
    },
    /// One entry could not be made.
    #[error("entry {path:?}: {action}")]
    Io {
        /// The entry.
        path: String,
        /// What was attempted.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A limit on the whole.
    #[error("the layer has more than {0}")]
    TooMany(String),
}

/// The state of one unpacking.
pub(super) struct Extractor<R, W: Write> {
    reader: Reader<R, SplitWriter<W>>,
    pub(super) root: OwnedFd,
    limits: Limits,
    /// What is told at the end.
    pub(super) report: Report,
    /// The directory entries were last made in.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Times of directories, set when nothing is made in them any more.
    pub(super) directories: Vec<(Vec<u8>, (i64, u32))>,
}

pub(super) type Step<T> = Result<T, Refusal>;

impl<R: Read, W: Write> Extractor<R, W> {
    /// Starts in the present root directory.
    pub(super) fn new(input: R, split: W, limits: Limits) -> io::Result<Self> {
        let root = openat(CWD, ".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Self::below(root, input, split, limits)
    }

    /// Starts in a directory.
    pub(super) fn below(root: OwnedFd, input: R, split: W, limits: Limits) -> io::Result<Self> {
        let report = Report { exact: true, ..Report::default() };
        let reader = Reader::new(input, SplitWriter::new(split)?);
        Ok(Self { reader, root, limits, report, parent: None, directories: Vec::new() })
    }

    /// Unpacks everything; the report is then complete.
    pub(super) fn run(mut self) -> (Report, Step<()>) {
        let result = self.entries();
        let Self { reader, report, .. } = self;
        let result = result.and_then(|()| reader.sink.finish().map(drop).map_err(|e| TarError::Sink(e).into()));
        (report, result)
    }

    fn entries(&mut self) -> Step<()> {
        while let Some(entry) = self.reader.next()? {
            self.report.entries += 1;
            if self.report.entries > self.limits.entries {
                return Err(Refusal::TooMany(format!("{} entries", self.limits.entries)));
            }
            fault::fail(Point::UnpackEntry).map_err(|source| Refusal::Io {
                path: String::from_utf8_lossy(&entry.path).into_owned(),
                action: "write",
                source,
            })?;
            self.entry(&entry)?;
        }
        while let Some((path, mtime)) = self.directories.pop() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            // A directory that was replaced later in the archive is not there any more.
            if let Ok(fd) = tree::open_in(self.root.as_fd(), &path, flags) {
                let _ = futimens(fd, &times(mtime));
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) -> Step<()> {
        let path = normalise(&entry.path).map_err(|what| refuse(&entry.path, what))?;
        if path.is_empty() {
            return if entry.kind == Kind::Directory { self.directory_metadata(&path, entry) } else { Ok(()) };
        }
        if entry.uid > 65535 || entry.gid > 65535 {
            return Err(refuse(&entry.path, "owner or group above 65535, which no container can see"));
        }
        let (parent, name) = split(&path);
        if name.starts_with(WHITEOUT) {
            return self.whiteout(entry, parent, name);
        }
        if entry.kind == Kind::Device {
            // A node in a layer could be opened by a container that may mount; /dev is always our own.
            self.report.device(&path);
            return Ok(());
        }
        self.enter(entry, parent)?;
        match entry.kind {
            Kind::File => self.file(entry, &path, name),
            Kind::Directory => self.directory(entry, &path, name),
            Kind::Symlink => {
                if entry.link.is_empty() || entry.link.len() > 4095 || entry.link.contains(&0) {
                    return Err(refuse(&entry.path, "unusable link target"));
                }
                self.make(entry, name, "make symbolic link", |parent| symlinkat(&entry.link[..], parent, name))?;
                self.plain_metadata(entry, name)
            }
            Kind::HardLink => self.hard_link(entry, &path, name),
            Kind::Fifo => {
                self.make(entry, name, "make named pipe", |parent| {
                    mknodat(parent, name, FileType::Fifo, Mode::from(0o600), 0)
                })?;
                self.plain_metadata(entry, name)?;
                let mode = Mode::from(entry.mode);
                chmodat(self.parent_fd(), name, mode, AtFlags::empty()).map_err(failed(entry, "set mode"))
            }
            Kind::Device => Ok(()),
        }
    }

    pub(super) fn parent_fd(&self) -> &OwnedFd {
        self.parent.as_ref().map_or(&self.root, |(_, fd)| fd)
    }

    /// Opens the directory an entry lies in, making what is missing; links resolve inside the tree.
    fn enter(&mut self, entry: &Entry, parent: &[u8]) -> Step<()> {
        if self.parent.as_ref().is_some_and(|(path, _)| path == parent) {
            return Ok(());
        }
        self.parent = None;
        let fd = match self.open_directory(parent) {
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(entry, parent)?,
            other => other.map_err(failed(entry, "open parent directory"))?,
        };
        self.parent = Some((parent.to_vec(), fd));
        Ok(())
    }

    fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        tree::open_in(self.root.as_fd(), path, OFlags::PATH | OFlags::DIRECTORY)
    }

    fn make_parents(&mut self, entry: &Entry, path: &[u8]) -> Step<OwnedFd> {
        let mut ends: Vec<usize> = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at).collect();
        ends.push(path.len());
        let mut fd = self.open_directory(b"").map_err(failed(entry, "open root"))?;
        let mut start = 0;
        for end in ends {
            fd = match self.open_directory(&path[..end]) {
                Err(Errno::NOENT) => {
                    mkdirat(&fd, &path[start..end], Mode::from(0o755))
                        .map_err(failed(entry, "make parent directory"))?;
                    self.open_directory(&path[..end]).map_err(failed(entry, "open parent directory"))?
                }
                // A deletion and then new content below the same name: the new directory hides the old one.
                Err(Errno::NOTDIR) if is_whiteout(&fd, &path[start..end]) => {
                    unlinkat(&fd, &path[start..end], AtFlags::empty()).map_err(failed(entry, "replace deletion"))?;
                    mkdirat(&fd, &path[start..end], Mode::from(0o755))
                        .map_err(failed(entry, "make parent directory"))?;
                    self.report.opaque.push(path[..end].to_vec());
                    self.open_directory(&path[..end]).map_err(failed(entry, "open parent directory"))?
                }
                other => other.map_err(failed(entry, "open parent directory"))?,
            };
            start = end + 1;
        }
        Ok(fd)
    }

    /// Makes something, replacing what has the name already.
    fn make<T>(
        &mut self,
        entry: &Entry,
        name: &[u8],
        action: &'static str,
        make: impl Fn(&OwnedFd) -> Result<T, Errno>,
    ) -> Step<T> {
        match make(self.parent_fd()) {
            Err(Errno::EXIST) => {
                self.displace(name).map_err(|source| Refusal::Io {
                    path: lossy(&entry.path),
                    action: "replace",
                    source,
                })?;
                make(self.parent_fd()).map_err(failed(entry, action))
            }
            other => other.map_err(failed(entry, action)),
        }
    }

    /// Removes what has a name; content that is lost to the split form is noted.
    fn displace(&mut self, name: &[u8]) -> io::Result<()> {
        let parent = self.parent.as_ref().map_or(&self.root, |(_, fd)| fd);
        let old = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(old.st_mode) {
            FileType::Directory => {
                self.report.exact = false;
                return tree::remove(parent.as_fd(), name);
            }
            FileType::RegularFile => self.report.exact &= old.st_size == 0,
            FileType::Symlink => self.report.exact = false,
            _ => {}
        }
        Ok(unlinkat(parent, name, AtFlags::empty())?)
    }

    fn file(&mut self, entry: &Entry, path: &[u8], name: &[u8]) -> Step<()> {
        self.report.size = self.report.size.saturating_add(entry.size);
        if self.report.size > self.limits.bytes {
            return Err(Refusal::TooMany(format!("{} bytes of content", self.limits.bytes)));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.make(entry, name, "make file", |parent| openat(parent, name, flags, Mode::from(0o600)))?;
        let whole = [(0, entry.size)];
        let mut begun = 0;
        for (offset, length) in entry.sparse.as_deref().unwrap_or(&whole) {
            self.reader.sink.content(path, *offset, *length).map_err(TarError::Sink)?;
            let (mut at, mut rest) = (*offset, *length);
            while let Some(piece) = self.reader.content(rest)? {
                write_at(&fd, piece, at).map_err(failed(entry, "write file"))?;
                at += piece.len() as u64;
                rest -= piece.len() as u64;
                if at.saturating_sub(begun) >= EARLY_STEP {
                    tree::write_back(fd.as_fd(), begun, at).map_err(failed(entry, "write file"))?;
                    begun = at;
                }
            }
        }
        if entry.size >= tree::EARLY {
            tree::write_back(fd.as_fd(), begun, entry.size).map_err(failed(entry, "write file"))?;
        }
        if entry.sparse.is_some() {
            ftruncate(&fd, entry.size).map_err(failed(entry, "set length"))?;
        }
        self.open_metadata(entry, path, &fd)
    }

    fn directory(&mut self, entry: &Entry, path: &[u8], name: &[u8]) -> Step<()> {
        match mkdirat(self.parent_fd(), name, Mode::from(0o700)) {
            Err(Errno::EXIST) => {
                let old =
                    statat(self.parent_fd(), name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed(entry, "look at"))?;
                if FileType::from_raw_mode(old.st_mode) != FileType::Directory {
                    if is_whiteout(self.parent_fd(), name) {
                        self.report.opaque.push(path.to_vec());
                    }
                    self.make(entry, name, "make directory", |parent| mkdirat(parent, name, Mode::from(0o700)))?;
                }
            }
            other => other.map_err(failed(entry, "make directory"))?,
        }
        self.directory_metadata(path, entry)
    }

    fn hard_link(&mut self, entry: &Entry, path: &[u8], name: &[u8]) -> Step<()> {
        let target = normalise(&entry.link).map_err(|what| refuse(&entry.path, what))?;
        if target.is_empty() {
            return Err(refuse(&entry.path, "hard link to nothing"));
        }
        if target == path {
            return Ok(());
        }
        let (target_parent, target_name) = split(&target);
        let from =
            self.open_directory(target_parent).map_err(failed(entry, "open directory of the hard link's target"))?;
        // Looked at first: displacing the old name must not remove what the link points at.
        statat(&from, target_name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed(entry, "find the hard link's target in this layer"))?;
        self.make(entry, name, "make hard link", |parent| linkat(&from, target_name, parent, name, AtFlags::empty()))
    }

    fn whiteout(&mut self, entry: &Entry, parent: &[u8], name: &[u8]) -> Step<()> {
        if name == OPAQUE {
            self.enter(entry, parent)?;
            self.report.opaque.push(parent.to_vec());
            return Ok(());
        }
        if name.starts_with(AUFS) {
            return Ok(());
        }
        let hidden = &name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refuse(&entry.path, "deletion of no name"));
        }
        self.enter(entry, parent)?;
        match mknodat(self.parent_fd(), hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            // Deletions concern lower layers only; a directory of this layer then hides the lower one.
            Err(Errno::EXIST) => {
                let old =
                    statat(self.parent_fd(), hidden, AtFlags::SYMLINK_NOFOLLOW).map_err(failed(entry, "look at"))?;
                if FileType::from_raw_mode(old.st_mode) == FileType::Directory {
                    let path = if parent.is_empty() { hidden.to_vec() } else { [parent, b"/", hidden].concat() };
                    self.report.opaque.push(path);
                }
                Ok(())
            }
            other => other.map_err(failed(entry, "note deletion")),
        }
    }
}

/// Brings a path of the archive into the form `a/b/c`; the root is empty.
fn normalise(path: &[u8]) -> Result<Vec<u8>, &'static str> {
    if path.contains(&0) {
        return Err("path with a NUL byte");
    }
    let mut normal = Vec::with_capacity(path.len());
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err("path leaves the layer's root (\"..\")"),
            _ if part.len() > 255 => return Err("name longer than 255 bytes"),
            _ => {}
        }
        if !normal.is_empty() {
            normal.push(b'/');
        }
        normal.extend_from_slice(part);
    }
    if normal.len() > 4000 { Err("path longer than 4000 bytes") } else { Ok(normal) }
}

/// Splits a normal path into parent and name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    path.iter().rposition(|b| *b == b'/').map_or((b"", path), |at| (&path[..at], &path[at + 1..]))
}

fn is_whiteout(parent: &OwnedFd, name: &[u8]) -> bool {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0)
}

fn write_at(fd: &OwnedFd, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let count = rustix::io::pwrite(fd, bytes, at)?;
        bytes = &bytes[count..];
        at += count as u64;
    }
    Ok(())
}

fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(&path[..path.len().min(512)]).into_owned()
}

fn refuse(path: &[u8], what: &'static str) -> Refusal {
    Refusal::Entry { path: lossy(path), what }
}

pub(super) fn failed(entry: &Entry, action: &'static str) -> impl FnOnce(Errno) -> Refusal {
    let path = lossy(&entry.path);
    move |errno| Refusal::Io { path, action, source: errno.into() }
}

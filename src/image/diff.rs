//! Reads an upper directory as a layer tar (*OCI image-spec "Layer": changesets*), the same bytes every time.
//!
//! Order is by name, parents first. Overlay's marks become whiteouts: a 0:0 character device `.wh.<name>`, an opaque
//! directory `.wh..wh..opq` in it. Times are whole seconds, as Docker writes them. Sockets and devices are left out.

use super::early::Early;
use super::hasher::Hasher;
use super::split::SplitWriter;
use super::tar::{Kind, Sink, WriteEntry, Writer};
use super::tree;
use crate::base::{Digest, Timestamp};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, openat, readlinkat, statat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

/// Longest path, in bytes.
const MAX_PATH: usize = 4000;

/// How a layer tar is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Times after this one become this one: seconds since 1970 (`SOURCE_DATE_EPOCH`).
    pub clamp: Option<i64>,
}

/// A layer tar that was written.
#[derive(Clone, Debug)]
pub struct Diff {
    /// Its digest.
    pub diff_id: Digest,
    /// Its length in bytes.
    pub tar_size: u64,
    /// Bytes of file content.
    pub size: u64,
    /// Number of entries; 0 means nothing was changed.
    pub entries: u64,
}

/// Writes the tar of an upper directory, and more files after it, each a name and a content, for its owner alone.
///
/// # Errors
/// When a file cannot be read or the tar not be written.
pub fn write(upper: &OwnedFd, more: &[(String, Vec<u8>)], out: &mut dyn Write, options: &Options) -> io::Result<Diff> {
    Walk::new(Target { hash: Hasher::new(), split: None, tar: Some(out) }, *options).run(upper, more)
}

/// Writes the split form of an upper directory's tar, and hashes the tar that is not written.
pub(super) fn record(upper: &OwnedFd, split: File, options: &Options) -> io::Result<Diff> {
    Walk::new(Target { hash: Hasher::new(), split: Some(SplitWriter::new(split)?), tar: None }, *options)
        .run(upper, &[])
}

/// Where the bytes go.
struct Target<'a> {
    hash: Hasher,
    split: Option<SplitWriter<File>>,
    tar: Option<&'a mut dyn Write>,
}

impl Write for Target<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.write_all(bytes)?;
        if let Some(split) = &mut self.split {
            split.raw(bytes)?;
        }
        if let Some(tar) = &mut self.tar {
            tar.write_all(bytes)?;
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Target<'_> {
    /// Reads exactly `size` bytes of a file into the tar.
    fn content(&mut self, path: &[u8], file: &mut File, size: u64) -> io::Result<()> {
        if let Some(split) = &mut self.split {
            split.content(path, 0, size)?;
        }
        let stays = self.split.is_some();
        let mut rest = size;
        while rest > 0 {
            let got = self.hash.read(rest, |space| match file.read(space)? {
                // A running container cut the file meanwhile. The header is written, so a copy is filled up; a layer that
                // stays where it is would not fit its record.
                0 if stays => {
                    let path = String::from_utf8_lossy(path);
                    Err(io::Error::other(format!("{path} became shorter while it was read")))
                }
                0 => {
                    space.fill(0);
                    Ok(space.len())
                }
                count => Ok(count),
            })?;
            if let Some(tar) = &mut self.tar {
                tar.write_all(got)?;
            }
            rest -= got.len() as u64;
        }
        Ok(())
    }
}

struct Walk<'a> {
    writer: Writer<Target<'a>>,
    options: Options,
    /// Where each file with several names was written first.
    links: HashMap<(u64, u64), Vec<u8>>,
    early: Early,
    size: u64,
    entries: u64,
}

impl<'a> Walk<'a> {
    fn new(target: Target<'a>, options: Options) -> Self {
        Self {
            writer: Writer::new(target),
            options,
            links: HashMap::new(),
            early: Early::default(),
            size: 0,
            entries: 0,
        }
    }

    fn run(mut self, upper: &OwnedFd, more: &[(String, Vec<u8>)]) -> io::Result<Diff> {
        self.directory(upper, &[])?;
        for (name, content) in more {
            self.file(name, content)?;
        }
        self.early.finish()?;
        let Self { writer, size, entries, .. } = self;
        let Target { hash, split, .. } = writer.finish()?;
        if let Some(split) = split {
            split.finish()?;
        }
        let (diff_id, tar_size) = hash.finish();
        Ok(Diff { diff_id, tar_size, size, entries })
    }

    fn directory(&mut self, directory: &OwnedFd, path: &[u8]) -> io::Result<()> {
        let mut names: Vec<Vec<u8>> = tree::list(directory)?.into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        for name in names {
            let path = if path.is_empty() { name.clone() } else { [path, b"/", &name[..]].concat() };
            if path.len() > MAX_PATH {
                return Err(io::Error::other(format!(
                    "path longer than {MAX_PATH} bytes: {}...",
                    String::from_utf8_lossy(&path[..80])
                )));
            }
            match statat(directory, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {}
                other => self.one(directory, &name, &path, &other?)?,
            }
        }
        Ok(())
    }

    fn one(&mut self, directory: &OwnedFd, name: &[u8], path: &[u8], stat: &Stat) -> io::Result<()> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let file = (stat.st_dev, stat.st_ino);
        if kind != FileType::Directory && stat.st_nlink > 1 && kind != FileType::CharacterDevice {
            if let Some(first) = self.links.get(&file).cloned() {
                return self.header(path, &first, Kind::HardLink, stat, &[]);
            }
            self.links.insert(file, path.to_vec());
        }
        match kind {
            FileType::RegularFile => {
                let mut file = File::from(open(directory, name, OFlags::NONBLOCK)?);
                let size = stat.st_size as u64;
                self.header(path, b"", Kind::File, stat, &xattrs(&file)?)?;
                self.size = self.size.saturating_add(size);
                // The layer stays where it is, and the disk takes it while it is hashed.
                if size >= tree::EARLY && self.writer.out.split.is_some() {
                    self.early.take(&file, size)?;
                }
                self.writer.out.content(path, &mut file, size)
            }
            FileType::Directory => {
                let child = open(directory, name, OFlags::DIRECTORY)?;
                let attributes = xattrs(&child)?;
                self.header(&[path, b"/"].concat(), b"", Kind::Directory, stat, &attributes)?;
                if is_opaque(&child) {
                    self.header(&[path, b"/.wh..wh..opq"].concat(), b"", Kind::File, &whiteout(stat), &[])?;
                }
                self.directory(&child, path)
            }
            FileType::Symlink => {
                let target = readlinkat(directory, name, Vec::new())?;
                self.header(path, target.to_bytes(), Kind::Symlink, stat, &[])
            }
            FileType::Fifo => self.header(path, b"", Kind::Fifo, stat, &[]),
            FileType::CharacterDevice if stat.st_rdev == 0 => {
                let at = path.len() - name.len();
                let path = [&path[..at], b".wh.", name].concat();
                self.header(&path, b"", Kind::File, &whiteout(stat), &[])
            }
            _ => Ok(()),
        }
    }

    fn file(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let now = Timestamp::now().0.div_euclid(1_000_000_000);
        self.writer.entry(&WriteEntry {
            path: name.as_bytes(),
            link: b"",
            kind: Kind::File,
            mode: 0o600,
            uid: 0,
            gid: 0,
            mtime: (self.options.clamp.map_or(now, |clamp| now.min(clamp)), 0),
            size: content.len() as u64,
            xattrs: &[],
        })?;
        self.writer.out.write_all(content)
    }

    fn header(
        &mut self,
        path: &[u8],
        link: &[u8],
        kind: Kind,
        stat: &Stat,
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> io::Result<()> {
        self.entries += 1;
        let seconds = stat.st_mtime;
        let seconds = self.options.clamp.map_or(seconds, |clamp| seconds.min(clamp));
        self.writer.entry(&WriteEntry {
            path,
            link,
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (seconds, 0),
            size: if kind == Kind::File { stat.st_size as u64 } else { 0 },
            xattrs,
        })
    }
}

/// The header of a whiteout: empty, owned by root, without permissions.
fn whiteout(stat: &Stat) -> Stat {
    let mut stat = *stat;
    (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_size) = (0, 0, 0, 0);
    stat
}

fn open(directory: &OwnedFd, name: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    Ok(openat(directory, name, flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

fn is_opaque(directory: &OwnedFd) -> bool {
    let mut value = [0; 8];
    fgetxattr(directory, "trusted.overlay.opaque", &mut value).is_ok_and(|length| value[..length] == *b"y")
}

/// Reads the attributes that belong into an image, by name.
fn xattrs(file: &impl AsFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; 4096];
    let length = loop {
        match flistxattr(file, &mut names[..]) {
            Err(Errno::RANGE) if names.len() < 1 << 20 => names.resize(names.len() * 4, 0),
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            other => break other?,
        }
    };
    let mut attributes = Vec::new();
    for name in names[..length].split(|b| *b == 0).filter(|name| belongs(name)) {
        let mut value = vec![0; 256];
        let length = loop {
            match fgetxattr(file, name, &mut value[..]) {
                Err(Errno::RANGE) if value.len() < 1 << 17 => value.resize(value.len() * 8, 0),
                other => break other,
            }
        };
        match length {
            Ok(length) => attributes.push((name.to_vec(), value[..length].to_vec())),
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    attributes.sort_unstable();
    Ok(attributes)
}

fn belongs(name: &[u8]) -> bool {
    matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

//! Unpacks a layer's tar into a directory, in unprivileged processes.
//!
//! The parent never parses the archive. An *inflater* (when the stream is compressed) and an *unpacker* are forked, each in
//! a `jail`; the parent only moves and hashes bytes. The unpacker's root directory is the layer's tree, seen through an
//! idmapped mount, so it is nobody on the host and the ids on disk are plain. What needs privilege (overlay's mark of opaque
//! directories, file capabilities) it reports at the end, and the parent sets it by descriptor after checking again.

mod extract;
mod jail;
mod report;

use super::tree::open_in;
use crate::base::{Digest, Sha256};
use crate::sys::worker::Worker;
use report::Report;
use rustix::fs::{OFlags, XattrFlags, fsetxattr};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Bytes moved at once.
const CHUNK: usize = 1 << 20;

/// What a layer may hold at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of file content, holes included.
    pub bytes: u64,
    /// Bytes an inflated stream may have for each compressed one, beyond the first GiB.
    pub ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 4_000_000, bytes: 1 << 40, ratio: 500 }
    }
}

impl Limits {
    /// Returns how many bytes may come out of a compressed source; `None` where its length is not known.
    fn inflated(&self, source: Source<'_>) -> Option<u64> {
        match source {
            Source::Region { length, .. } => Some(length.saturating_mul(self.ratio).saturating_add(1 << 30)),
            Source::Stream { .. } => None,
        }
    }
}

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not.
    None,
    /// gzip, one or several members.
    Gzip,
    /// zstd.
    Zstd,
}

impl Compression {
    /// Tells the compression from the first bytes.
    pub fn of(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Where a layer's bytes come from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// A part of a file that can be read at any place.
    Region {
        /// The file.
        file: &'a File,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
    /// A pipe, after some bytes that were read already.
    Stream {
        /// The rest.
        file: &'a File,
        /// What was read.
        head: &'a [u8],
    },
}

impl Source<'_> {
    /// Returns the number of bytes, 0 where it is not known.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Region { length, .. } => *length,
            Self::Stream { .. } => 0,
        }
    }
}

/// A layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive was refused.
    #[error("unpack layer: {0}")]
    Refused(String),
    /// An unpacking process ended without a word.
    #[error("unpack layer: the {role} process was ended by signal {signal}{}", if *signal == libc::SIGSYS { " (a system call outside its list)" } else { "" })]
    Killed {
        /// Which one.
        role: &'static str,
        /// Signal number.
        signal: i32,
    },
    /// More bytes than the limit come out of few compressed ones.
    #[error(
        "unpack layer: {compressed} compressed bytes inflate to more than {inflated}: refused as a decompression bomb"
    )]
    Bomb {
        /// Compressed bytes.
        compressed: u64,
        /// Inflated bytes so far.
        inflated: u64,
    },
    /// The system refused something.
    #[error("unpack layer: {action}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> UnpackError {
    move |source| UnpackError::Io { action, source }
}

/// An unpacked layer.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// Digest of the uncompressed tar.
    pub(super) diff_id: Digest,
    /// Length of the uncompressed tar.
    pub(super) tar_size: u64,
    /// Digest of the source's bytes, when it is a region.
    pub(super) source_digest: Option<Digest>,
    /// Whether the split form gives the tar back.
    pub(super) exact: bool,
    /// Bytes of file content.
    pub(super) size: u64,
    /// Device nodes left out, some of them.
    pub(super) devices: Vec<String>,
}

/// Unpacks a source into the empty directory `tree` and writes the split form to `split`.
pub(super) fn unpack(
    source: Source<'_>,
    compression: Compression,
    tree: BorrowedFd<'_>,
    split: &File,
    limits: Limits,
) -> Result<Unpacked, UnpackError> {
    let inflater = match compression {
        Compression::None => None,
        _ => Some(Inflater::start(source, compression)?),
    };
    let (input, feed) = match (&inflater, source) {
        (None, Source::Region { .. }) => (None, None),
        _ => {
            let (read, write) = pipe()?;
            (Some(read), Some(write))
        }
    };
    let (channel, theirs) = channel()?;
    let mut keep = vec![theirs.as_fd(), split.as_fd()];
    match (&input, source) {
        (Some(pipe), _) => keep.push(pipe.as_fd()),
        (None, Source::Region { file, .. } | Source::Stream { file, .. }) => keep.push(file.as_fd()),
    }
    let worker = Worker::fork(&keep, || unpacker(theirs.as_fd(), input.as_ref(), source, split, limits))
        .map_err(failed("start the unpacking process"))?;
    drop((theirs, input));
    let admitted = jail::admit(worker.pid(), channel.as_fd(), Some(tree));
    let moved = match (admitted, feed) {
        (Err(error), _) => {
            // Without this the worker would wait for its tree for ever.
            let _ = rustix::net::shutdown(&channel, rustix::net::Shutdown::Write);
            Err(failed("confine the unpacking process")(error))
        }
        (Ok(()), Some(feed)) => match &inflater {
            Some(inflater) => {
                pump(&inflater.output, &[], feed, limits.inflated(source).map(|most| (source.length(), most)))
            }
            None => match source {
                Source::Stream { file, head } => pump(file, head, feed, None),
                Source::Region { .. } => Err(failed("choose a source")(io::ErrorKind::InvalidInput.into())),
            },
        },
        (Ok(()), None) => hash(source),
    };
    let report = Report::read(File::from(channel)).map_err(failed("read the unpacking process's report"))?;
    let code = worker.wait().map_err(failed("wait for the unpacking process"))?;
    // The inflater's word comes first: its failure is why the unpacker saw a truncated archive.
    let compressed = inflater.map(|inflater| inflater.finish(source)).transpose()?;
    let (diff_id, tar_size) = match (moved, &report) {
        // A worker that could not enter its jail says why; that it could not be let in follows from it.
        (Err(UnpackError::Io { .. }), Some(report)) if !report.failure.is_empty() => {
            return Err(UnpackError::Refused(printable(&report.failure)));
        }
        (_, None) if code < 0 => return Err(UnpackError::Killed { role: "unpacking", signal: -code }),
        (moved, _) => moved?,
    };
    let report = match report {
        Some(report) if report.failure.is_empty() => report,
        Some(report) => return Err(UnpackError::Refused(printable(&report.failure))),
        None => return Err(UnpackError::Refused(format!("the unpacking process ended with code {code}"))),
    };
    let source_digest = match (source, compressed) {
        (Source::Region { .. }, None) => Some(diff_id.clone()),
        (_, compressed) => compressed.flatten(),
    };
    finish_tree(tree, &report)?;
    let devices = report.devices.iter().map(|path| printable(&String::from_utf8_lossy(path))).collect();
    Ok(Unpacked { diff_id, tar_size, source_digest, exact: report.exact, size: report.size, devices })
}

/// The unpacking process.
fn unpacker(channel: BorrowedFd<'_>, input: Option<&OwnedFd>, source: Source<'_>, split: &File, limits: Limits) -> i32 {
    let work = || -> io::Result<Report> {
        let input: Box<dyn Read> = match (input, source) {
            (Some(pipe), _) => Box::new(Fd(pipe.as_fd())),
            (None, Source::Region { file, offset, length }) => Box::new(Region { file, offset, left: length }),
            (None, Source::Stream { .. }) => return Err(io::ErrorKind::InvalidInput.into()),
        };
        jail::enter(channel, true)?;
        let (mut report, result) = extract::Extractor::new(input, Fd(split.as_fd()), limits)?.run();
        if let Err(refusal) = result {
            report.failure = match std::error::Error::source(&refusal) {
                Some(cause) => format!("{refusal}: {cause}"),
                None => refusal.to_string(),
            };
        }
        Ok(report)
    };
    let report =
        work().unwrap_or_else(|error| Report { failure: format!("enter confinement: {error}"), ..Report::default() });
    i32::from(Fd(channel).write_all(&report.encode()).is_err() || !report.failure.is_empty())
}

/// A running inflater.
struct Inflater {
    worker: Worker,
    channel: OwnedFd,
    output: File,
}

impl Inflater {
    fn start(source: Source<'_>, compression: Compression) -> Result<Self, UnpackError> {
        let (output, write) = pipe()?;
        let (channel, theirs) = channel()?;
        let (Source::Region { file, .. } | Source::Stream { file, .. }) = source;
        let keep = [file.as_fd(), write.as_fd(), theirs.as_fd()];
        let worker = Worker::fork(&keep, || inflater(theirs.as_fd(), source, compression, &write))
            .map_err(failed("start the inflating process"))?;
        drop((theirs, write));
        jail::admit(worker.pid(), channel.as_fd(), None).map_err(failed("confine the inflating process"))?;
        Ok(Self { worker, channel, output: output.into() })
    }

    /// Hears what became of it; gives the digest of the compressed bytes of a region.
    fn finish(self, source: Source<'_>) -> Result<Option<Digest>, UnpackError> {
        let Self { worker, channel, output } = self;
        drop(output);
        let mut word = String::new();
        File::from(channel)
            .take(4096)
            .read_to_string(&mut word)
            .map_err(failed("read the inflating process's report"))?;
        match worker.wait().map_err(failed("wait for the inflating process"))? {
            0 => {}
            code if code < 0 => return Err(UnpackError::Killed { role: "inflating", signal: -code }),
            _ if word.is_empty() => return Err(UnpackError::Refused("the inflating process failed".to_owned())),
            _ => return Err(UnpackError::Refused(printable(&word))),
        }
        match source {
            Source::Region { .. } => hash(source).map(|(digest, _)| Some(digest)),
            Source::Stream { .. } => Ok(None),
        }
    }
}

/// The inflating process. A reader that went away is no failure of its own.
fn inflater(channel: BorrowedFd<'_>, source: Source<'_>, compression: Compression, output: &OwnedFd) -> i32 {
    let work = || -> io::Result<()> {
        jail::enter(channel, false)?;
        let input: Box<dyn Read> = match source {
            Source::Region { file, offset, length } => Box::new(Region { file, offset, left: length }),
            Source::Stream { file, head } => Box::new(head.chain(Fd(file.as_fd()))),
        };
        let input = io::BufReader::with_capacity(CHUNK / 4, input);
        let mut input: Box<dyn Read> = match compression {
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            _ => Box::new(zstd::Decoder::with_buffer(input)?),
        };
        let mut buffer = vec![0; CHUNK / 4];
        loop {
            let count = match input.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) => {
                    return Err(io::Error::new(
                        error.kind(),
                        format!("compressed stream is damaged or truncated: {error}"),
                    ));
                }
            };
            match Fd(output.as_fd()).write_all(&buffer[..count]) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                other => other?,
            }
        }
    };
    match work() {
        Ok(()) => 0,
        Err(error) => {
            let _ = Fd(channel).write_all(error.to_string().as_bytes());
            1
        }
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), UnpackError> {
    let (read, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| failed("make a pipe")(e.into()))?;
    // A smaller pipe is slower and nothing else.
    let _ = rustix::pipe::fcntl_setpipe_size(&write, CHUNK);
    Ok((read, write))
}

fn channel() -> Result<(OwnedFd, OwnedFd), UnpackError> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|e| failed("make a socket")(e.into()))
}

/// Moves a stream to the unpacker and hashes it on the way. A reader that went away ends it early; its report says why.
fn pump(mut from: &File, head: &[u8], to: OwnedFd, bound: Option<(u64, u64)>) -> Result<(Digest, u64), UnpackError> {
    let mut hash = Sha256::new();
    let mut to = File::from(to);
    let mut buffer = vec![0; CHUNK];
    let mut head = Some(head);
    loop {
        let piece = match head.take() {
            Some(head) if !head.is_empty() => head,
            _ => match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => &buffer[..count],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed("read archive")(error)),
            },
        };
        match to.write_all(piece) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            other => other.map_err(failed("pass the archive on"))?,
        }
        hash.update(piece);
        if let Some((compressed, most)) = bound.filter(|(_, most)| hash.length > *most) {
            return Err(UnpackError::Bomb { compressed, inflated: most });
        }
    }
    let length = hash.length;
    Ok((hash.finish(), length))
}

/// Hashes a region while the unpacker reads it.
fn hash(source: Source<'_>) -> Result<(Digest, u64), UnpackError> {
    let Source::Region { file, offset, length } = source else {
        return Err(failed("hash archive")(io::ErrorKind::InvalidInput.into()));
    };
    let mut hash = Sha256::new();
    let mut region = Region { file, offset, left: length };
    io::copy(&mut io::BufReader::with_capacity(CHUNK / 8, &mut region), &mut hash).map_err(failed("read archive"))?;
    let length = hash.length;
    Ok((hash.finish(), length))
}

/// Copies the uncompressed bytes of a source and returns their digest.
pub(super) fn copy_tar(
    source: Source<'_>,
    compression: Compression,
    out: &mut dyn Write,
) -> Result<Digest, UnpackError> {
    let mut hash = Sha256::new();
    let most = Limits::default().inflated(source);
    let mut copy = |from: &mut dyn Read| -> Result<(), UnpackError> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed("read archive")(error)),
            };
            hash.update(&buffer[..count]);
            if let Some(inflated) = most.filter(|most| compression != Compression::None && hash.length > *most) {
                return Err(UnpackError::Bomb { compressed: source.length(), inflated });
            }
            out.write_all(&buffer[..count]).map_err(failed("copy archive"))?;
        }
    };
    match (compression, source) {
        (Compression::None, Source::Region { file, offset, length }) => {
            copy(&mut Region { file, offset, left: length })?
        }
        (Compression::None, Source::Stream { file, head }) => copy(&mut head.chain(file))?,
        _ => {
            let inflater = Inflater::start(source, compression)?;
            copy(&mut &inflater.output)?;
            inflater.finish(source)?;
        }
    }
    Ok(hash.finish())
}

/// Sets what only the host may set, on what the report names, wherever that is a file of the right type in the tree.
fn finish_tree(tree: BorrowedFd<'_>, report: &Report) -> Result<(), UnpackError> {
    for path in &report.opaque {
        match open_in(tree, path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::DIRECTORY) {
            Ok(fd) => fsetxattr(fd, "trusted.overlay.opaque", b"y", XattrFlags::empty())
                .map_err(|e| failed("mark a directory opaque")(e.into()))?,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(failed("open an opaque directory")(errno.into())),
        }
    }
    for (path, value) in &report.capabilities {
        let Some(value) = plain_capability(value) else {
            return Err(UnpackError::Refused(printable(&format!(
                "entry {:?}: malformed file capability",
                String::from_utf8_lossy(path)
            ))));
        };
        match open_in(tree, path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK) {
            Ok(fd)
                if File::from(fd.try_clone().map_err(failed("open a file"))?).metadata().is_ok_and(|m| m.is_file()) =>
            {
                fsetxattr(fd, "security.capability", &value, XattrFlags::empty())
                    .map_err(|e| failed("set a file capability")(e.into()))?;
            }
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => {}
            Err(errno) => return Err(failed("open a file")(errno.into())),
        }
    }
    Ok(())
}

/// Brings a capability attribute into version 2, which names no root user; `None` when it has no known form (*capabilities(7)*).
fn plain_capability(value: &[u8]) -> Option<Vec<u8>> {
    let magic = u32::from_le_bytes(*value.first_chunk()?);
    match (magic >> 24, value.len()) {
        (2, 20) => Some(value.to_vec()),
        (3, 24) => {
            let magic = (magic & 0x00ff_ffff) | (2 << 24);
            Some([&magic.to_le_bytes()[..], &value[4..20]].concat())
        }
        _ => None,
    }
}

/// Makes a text of an unprivileged process fit for a terminal.
fn printable(text: &str) -> String {
    text.chars().take(600).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Reads and writes a borrowed descriptor.
struct Fd<'a>(BorrowedFd<'a>);

impl Read for Fd<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(self.0, buffer)?)
    }
}

impl Write for Fd<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(self.0, bytes)?)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a part of a file without moving its position; a file that ends early simply ends.
pub(super) struct Region<'a> {
    pub(super) file: &'a File,
    pub(super) offset: u64,
    pub(super) left: u64,
}

impl Read for Region<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

//! Unpacks a layer's tar into a directory, in unprivileged processes.
//!
//! The parent never parses the archive. An *inflater* (when the stream is compressed) and an *unpacker* are forked, each in
//! a `jail`; the parent only moves and hashes bytes. The unpacker's root directory is the layer's tree, seen through an
//! idmapped mount, so it is nobody on the host and the ids on disk are plain. What needs privilege (overlay's mark of opaque
//! directories, file capabilities) it reports at the end, and the parent sets it by descriptor after checking again.

mod extract;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod inflate;
mod jail;
mod marks;
mod metadata;
mod report;
mod stream;

pub(super) use inflate::beginning;
pub(super) use stream::copy_tar;

use crate::base::Digest;
use crate::sys::fault::{self, Point};
use crate::sys::worker::Worker;
use inflate::Inflater;
use marks::finish_tree;
use report::Report;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use stream::{hash, pump, pump_pages};

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
        let bound = |length: u64| length.saturating_mul(self.ratio).saturating_add(1 << 30);
        match source {
            Source::Region { length, .. } => Some(bound(length)),
            Source::Stream { length, .. } => length.map(bound),
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
    /// bzip2, one or several streams.
    Bzip2,
    /// xz, one or several streams.
    Xz,
}

impl Compression {
    /// Tells the compression from the first bytes.
    pub fn of(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
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
        /// Number of bytes, where it is known.
        length: Option<u64>,
    },
}

impl Source<'_> {
    /// Returns the number of bytes, 0 where it is not known.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Region { length, .. } => *length,
            Self::Stream { length, .. } => length.unwrap_or(0),
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
                pump_pages(&inflater.output, feed, limits.inflated(source).map(|most| (source.length(), most)))
            }
            None => match source {
                Source::Stream { file, head, .. } => pump(file, head, feed),
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
        (Err(UnpackError::Io { .. }), Some(report))
            if !report.failure.is_empty() && !report.failure.ends_with(jail::GAVE_UP) =>
        {
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
    fault::fail(Point::Unpacked).map_err(failed("read the unpacking process's report"))?;
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

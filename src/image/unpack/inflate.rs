//! The inflating process: decompresses a source in a jail of its own, whose other end reads the tar.

use super::stream::hash;
use super::{CHUNK, Compression, Fd, Region, Source, UnpackError, channel, failed, jail, pipe, printable};
use crate::base::Digest;
use crate::sys::worker::Worker;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes that are inflated first.
const FIRST: usize = 512;
/// Most memory that an xz stream may ask for, KiB; `xz -9` asks for 64 MiB.
const XZ_MEMORY: u32 = 256 << 10;

/// Returns the first bytes, at most so many, of what a compressed file holds; less where it is damaged.
pub(in crate::image) fn beginning(
    source: Source<'_>,
    compression: Compression,
    most: usize,
) -> Result<Vec<u8>, UnpackError> {
    let inflater = Inflater::start(source, compression)?;
    let mut bytes = Vec::new();
    (&inflater.output).take(most as u64).read_to_end(&mut bytes).map_err(failed("read archive"))?;
    // Dropped, the process is killed: nobody wants the rest.
    Ok(bytes)
}

/// A running inflater.
pub(super) struct Inflater {
    worker: Worker,
    channel: OwnedFd,
    pub(super) output: File,
}

impl Inflater {
    pub(super) fn start(source: Source<'_>, compression: Compression) -> Result<Self, UnpackError> {
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
    pub(super) fn finish(self, source: Source<'_>) -> Result<Option<Digest>, UnpackError> {
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
            Source::Stream { file, head, .. } => Box::new(head.chain(Fd(file.as_fd()))),
        };
        let input = io::BufReader::with_capacity(CHUNK / 4, input);
        let mut input: Box<dyn Read> = match compression {
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
            Compression::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(input, true, XZ_MEMORY)),
            Compression::Zstd | Compression::None => Box::new(zstd::Decoder::with_buffer(input)?),
        };
        let mut buffer = vec![0; CHUNK / 4];
        // A decoder that fails before it has filled the buffer keeps what it had: the first bytes go alone, for they tell
        // what this is.
        let mut room = FIRST;
        loop {
            let read = input.read(&mut buffer[..room]);
            room = CHUNK / 4;
            let count = match read {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) => {
                    return Err(io::Error::new(
                        error.kind(),
                        format!("compressed stream is damaged or truncated: {error}"),
                    ));
                }
            };
            crate::sys::fault::fail(crate::sys::fault::Point::Inflate)?;
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

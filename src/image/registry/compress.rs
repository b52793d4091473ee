//! Compressing a layer on all processors: pieces of fixed length, each compressed by itself, so that the same layer gives the
//! same bytes on any machine.

use crate::oci::media;
use flate2::{Compress, Crc, FlushCompress};
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};

/// Most threads.
const MOST_THREADS: usize = 8;
/// Level of gzip; that of the tools.
const GZIP_LEVEL: u32 = 6;
/// Level of zstd; its own default.
const ZSTD_LEVEL: i32 = 3;

/// How layers are compressed for a registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// gzip, which every engine reads.
    #[default]
    Gzip,
    /// zstd, which engines of today read.
    Zstd,
    /// Not.
    None,
}

impl Format {
    /// Returns what a layer compressed so is called (*OCI image-spec "Image Layer Filesystem Changeset"*).
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Gzip => media::LAYER_GZIP,
            Self::Zstd => media::LAYER_ZSTD,
            Self::None => media::LAYER,
        }
    }

    /// Bytes of a piece.
    fn piece(self) -> usize {
        match self {
            Self::Gzip | Self::None => 1 << 20,
            Self::Zstd => 4 << 20,
        }
    }

    /// Compresses one piece: a run of complete deflate blocks (*RFC 1951*), or a frame of zstd (*RFC 8878*).
    fn pack(self, piece: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            Self::None => Ok(piece),
            Self::Zstd => zstd::bulk::compress(&piece, ZSTD_LEVEL),
            Self::Gzip => {
                let mut deflate = Compress::new(flate2::Compression::new(GZIP_LEVEL), false);
                // What does not compress grows by 5 bytes for each 16 KiB, and by the mark at the end.
                let mut out = Vec::with_capacity(piece.len() + piece.len() / 2048 + 256);
                deflate.compress_vec(&piece, &mut out, FlushCompress::Sync).map_err(io::Error::other)?;
                let whole = deflate.total_in() == piece.len() as u64 && out.len() < out.capacity();
                if whole { Ok(out) } else { Err(io::Error::other("a piece grew by being compressed")) }
            }
        }
    }
}

/// Compresses what `produce` writes and writes it to `out`.
///
/// # Errors
/// What `produce`, the compression or `out` say.
pub(super) fn compress(
    format: Format,
    produce: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send,
    out: &mut dyn Write,
) -> io::Result<()> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(MOST_THREADS);
    let (jobs, work) = sync_channel::<Job>(threads);
    let (order, results) = sync_channel(threads * 2);
    let work = Mutex::new(work);
    std::thread::scope(|scope| {
        // The receivers go with whoever works, so that nobody writes to what nobody reads.
        let work = &work;
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(move || pack_all(format, work))).collect();
        let producer = scope.spawn(move || {
            let mut pieces = Pieces { size: format.piece(), waiting: Vec::new(), jobs, order, crc: Crc::new() };
            produce(&mut pieces)?;
            pieces.send()?;
            Ok::<_, io::Error>((pieces.crc.sum(), pieces.crc.amount()))
        });
        let written = write_all(format, results, out);
        let produced = producer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        drop(workers);
        // Whoever cannot write ends the producer; whoever cannot produce has a reason of its own.
        let (sum, length) = match (written, produced) {
            (Err(error), Err(other)) if other.kind() == io::ErrorKind::BrokenPipe => return Err(error),
            (written, produced) => {
                let produced = produced?;
                written?;
                produced
            }
        };
        match format {
            // An empty last block, then checksum and length (*RFC 1952*).
            Format::Gzip => {
                out.write_all(&[3, 0])?;
                out.write_all(&sum.to_le_bytes())?;
                out.write_all(&length.to_le_bytes())
            }
            // Nothing is a frame, too.
            Format::Zstd if length == 0 => out.write_all(&format.pack(Vec::new())?),
            _ => Ok(()),
        }
    })
}

type Packed = io::Result<Vec<u8>>;

/// A piece to compress, and where the result goes.
struct Job(Vec<u8>, Sender<Packed>);

fn pack_all(format: Format, work: &Mutex<Receiver<Job>>) {
    loop {
        let job = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job(piece, to)) = job else { return };
        // Nobody waits for it any more: the next ones say so, too.
        let _ = to.send(format.pack(piece));
    }
}

/// Writes the results in the order of their pieces.
fn write_all(format: Format, results: Receiver<Receiver<Packed>>, out: &mut dyn Write) -> io::Result<()> {
    if format == Format::Gzip {
        // Neither name nor time: the same layer gives the same bytes.
        out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])?;
    }
    for result in results {
        let packed = result.recv().map_err(|_| io::Error::other("a compressing thread has ended"))?;
        out.write_all(&packed?)?;
    }
    Ok(())
}

/// Cuts what is written into pieces.
struct Pieces {
    size: usize,
    waiting: Vec<u8>,
    jobs: SyncSender<Job>,
    order: SyncSender<Receiver<Packed>>,
    crc: Crc,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.waiting);
        self.crc.update(&piece);
        let (to, result) = channel();
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.order.send(result).map_err(|_| gone(()))?;
        self.jobs.send(Job(piece, to)).map_err(|_| gone(()))
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.waiting.capacity() == 0 {
            self.waiting.reserve_exact(self.size);
        }
        let count = bytes.len().min(self.size - self.waiting.len());
        self.waiting.extend_from_slice(&bytes[..count]);
        if self.waiting.len() == self.size {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn packed(format: Format, input: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        compress(format, |to| input.chunks(70_001).try_for_each(|chunk| to.write_all(chunk)), &mut out).unwrap();
        out
    }

    fn unpacked(format: Format, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match format {
            Format::Gzip => drop(flate2::bufread::GzDecoder::new(bytes).read_to_end(&mut out).unwrap()),
            Format::Zstd => drop(zstd::Decoder::new(bytes).unwrap().read_to_end(&mut out).unwrap()),
            Format::None => out.extend_from_slice(bytes),
        }
        out
    }

    #[test]
    fn what_is_compressed_comes_out_again_and_always_the_same() {
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let text: Vec<u8> = (0..9_000_000_u32).map(|at| if at % 3 == 0 { noise() } else { b'x' }).collect();
        let pure: Vec<u8> = (0..3_000_000).map(|_| noise()).collect();
        for format in [Format::Gzip, Format::Zstd, Format::None] {
            for input in [&b""[..], b"a", &text[..1 << 20], &text[..(1 << 20) + 1], &text, &pure] {
                let once = packed(format, input);
                assert!(unpacked(format, &once) == input, "{format:?} {}", input.len());
                assert!(packed(format, input) == once, "{format:?} {}", input.len());
            }
            let small = packed(format, &text).len();
            assert!(format == Format::None || small < text.len() * 6 / 10, "{format:?} {small}");
        }
    }

    #[test]
    fn failures_of_either_side_end_it() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::other("full"))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let endless = |to: &mut dyn Write| loop {
            to.write_all(&[0; 4096])?;
        };
        let error = compress(Format::Gzip, endless, &mut Full).unwrap_err();
        assert_eq!(error.to_string(), "full");
        let failing = |to: &mut dyn Write| {
            to.write_all(&[0; 3_000_000])?;
            Err(io::Error::other("damaged"))
        };
        let error = compress(Format::Zstd, failing, &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "damaged");
    }
}

//! The split form of a layer: all bytes of its tar that are not file content, and where the content lies.
//!
//! With the unpacked tree it gives the original tar back byte for byte, so the tar itself need not be kept. A record is a
//! letter and its fields, little-endian: `R` length bytes; `P` path length, path, offset, length (content of a file of the
//! tree, path relative to its root). The whole is compressed with zstd.

use super::tar::Sink;
use crate::base::Digest;
use crate::base::Sha256;
use rustix::fs::OFlags;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

/// Raw bytes gathered before a record is written.
const RAW: usize = 64 << 10;
/// Bytes copied at once.
const COPY: usize = 256 << 10;

/// Writes the split form.
pub(super) struct SplitWriter<W: Write> {
    out: zstd::Encoder<'static, W>,
    raw: Vec<u8>,
}

impl<W: Write> SplitWriter<W> {
    /// Starts writing.
    pub(super) fn new(out: W) -> io::Result<Self> {
        Ok(Self { out: zstd::Encoder::new(out, 1)?, raw: Vec::with_capacity(RAW) })
    }

    fn flush_raw(&mut self) -> io::Result<()> {
        if self.raw.is_empty() {
            return Ok(());
        }
        self.out.write_all(b"R")?;
        self.out.write_all(&(self.raw.len() as u32).to_le_bytes())?;
        self.out.write_all(&self.raw)?;
        self.raw.clear();
        Ok(())
    }

    /// Notes that the next bytes of the tar are content of a file.
    pub(super) fn content(&mut self, path: &[u8], offset: u64, length: u64) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        self.flush_raw()?;
        let path_length = u16::try_from(path.len()).map_err(|_| io::Error::other("path longer than 65535 bytes"))?;
        self.out.write_all(b"P")?;
        self.out.write_all(&path_length.to_le_bytes())?;
        self.out.write_all(path)?;
        self.out.write_all(&offset.to_le_bytes())?;
        self.out.write_all(&length.to_le_bytes())
    }

    /// Writes what is left.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.flush_raw()?;
        self.out.finish()
    }
}

impl<W: Write> Sink for SplitWriter<W> {
    fn raw(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = bytes.len().min(RAW - self.raw.len());
            self.raw.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if self.raw.len() == RAW {
                self.flush_raw()?;
            }
        }
        Ok(())
    }
}

/// Puts a layer's tar together again, writes it to `out` and returns its digest and length.
///
/// The caller compares the digest: the record was written by an unprivileged process and is believed only when it fits.
///
/// # Errors
/// When the record is damaged, a file is missing, or reading or writing fails.
pub(super) fn assemble(split: &File, root: BorrowedFd<'_>, out: &mut dyn Write) -> io::Result<(Digest, u64)> {
    let mut records = BufReader::new(zstd::Decoder::new(split)?);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; COPY];
    let mut open: Option<(Vec<u8>, File)> = None;
    let damaged = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    loop {
        let mut letter = [0];
        if records.read(&mut letter)? == 0 {
            let length = hash.length;
            return Ok((hash.finish(), length));
        }
        match letter[0] {
            b'R' => {
                let mut rest = u32::from_le_bytes(array(&mut records)?) as usize;
                while rest > 0 {
                    let count = rest.min(COPY);
                    records.read_exact(&mut buffer[..count])?;
                    hash.update(&buffer[..count]);
                    out.write_all(&buffer[..count])?;
                    rest -= count;
                }
            }
            b'P' => {
                let mut path = vec![0; usize::from(u16::from_le_bytes(array(&mut records)?))];
                records.read_exact(&mut path)?;
                let offset = u64::from_le_bytes(array(&mut records)?);
                let length = u64::from_le_bytes(array(&mut records)?);
                if open.as_ref().is_none_or(|(name, _)| *name != path) {
                    let file = open_content(root, &path)?;
                    open = Some((path, file));
                }
                let file = &open.as_ref().ok_or_else(|| damaged("no file"))?.1;
                copy_range(file, offset, length, &mut buffer, &mut hash, out)?;
            }
            _ => return Err(damaged("layer record is damaged")),
        }
    }
}

fn array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Opens a regular file of a layer's tree; links in the middle of the path resolve inside the tree, as they did on the way in.
fn open_content(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<File> {
    let file = File::from(super::tree::open_in(root, path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "content of a layer is no regular file"));
    }
    Ok(file)
}

fn copy_range(
    file: &File,
    offset: u64,
    length: u64,
    buffer: &mut [u8],
    hash: &mut Sha256,
    out: &mut dyn Write,
) -> io::Result<()> {
    let (mut at, mut rest) = (offset, length);
    while rest > 0 {
        let count = usize::try_from(rest).unwrap_or(usize::MAX).min(buffer.len());
        let count = file.read_at(&mut buffer[..count], at)?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file of the layer is shorter than its record"));
        }
        hash.update(&buffer[..count]);
        out.write_all(&buffer[..count])?;
        at = at.saturating_add(count as u64);
        rest -= count as u64;
    }
    Ok(())
}

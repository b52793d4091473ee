//! Reads a tar stream entry by entry and tells which bytes are file content.

use super::extensions::Extensions;
use super::header::{BLOCK, Header, Kind};
use std::io::{self, Read};

/// Bytes read at once: large pieces lie in large pages of the cache, and still in the processor's.
const BUFFER: usize = 256 << 10;
/// Largest extended header or long name, in bytes.
const MAX_EXTENSION: u64 = 1 << 20;
/// Largest file, in bytes (what ext4 can hold).
pub(super) const MAX_FILE: u64 = 16 << 40;

/// A stream that is no tar archive, or a damaged one.
#[derive(Debug, thiserror::Error)]
pub(in crate::image) enum TarError {
    /// The stream could not be read.
    #[error("read archive")]
    Read(#[source] io::Error),
    /// The stream could not be passed on.
    #[error("pass on archive")]
    Sink(#[source] io::Error),
    /// The stream ends inside an entry.
    #[error("archive is truncated at byte {0}")]
    Truncated(u64),
    /// A header that makes no sense.
    #[error("archive header at byte {at}: {what}")]
    Header {
        /// Byte in the stream.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// Takes the bytes of the stream that are not file content, in order.
pub(in crate::image) trait Sink {
    /// Takes bytes.
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// Forgets them.
impl Sink for () {
    fn raw(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// One entry with all extensions applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::image) struct Entry {
    /// Path as the archive has it.
    pub(in crate::image) path: Vec<u8>,
    /// Target of links.
    pub(in crate::image) link: Vec<u8>,
    /// What it is.
    pub(in crate::image) kind: Kind,
    /// Permission bits with set-id and sticky.
    pub(in crate::image) mode: u32,
    /// Owner.
    pub(in crate::image) uid: u64,
    /// Group.
    pub(in crate::image) gid: u64,
    /// Modification time: seconds and nanoseconds.
    pub(in crate::image) mtime: (i64, u32),
    /// Length of the file; of sparse ones with their holes.
    pub(in crate::image) size: u64,
    /// Segments of a sparse file: offset and length, in order.
    pub(in crate::image) sparse: Option<Vec<(u64, u64)>>,
    /// Extended attributes.
    pub(in crate::image) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A streaming reader.
pub(in crate::image) struct Reader<R, S> {
    input: R,
    /// Takes what is not content.
    pub(in crate::image) sink: S,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the stream before `start`.
    pub(super) position: u64,
    /// Content bytes of the present entry not yet taken.
    pub(super) left: u64,
    /// Bytes of padding after the content.
    padding: usize,
}

impl<R: Read, S: Sink> Reader<R, S> {
    /// Starts at the beginning of a stream.
    pub(in crate::image) fn new(input: R, sink: S) -> Self {
        Self { input, sink, buffer: vec![0; BUFFER], start: 0, end: 0, position: 0, left: 0, padding: 0 }
    }

    /// Returns how many bytes of the stream were used so far.
    pub(in crate::image) fn position(&self) -> u64 {
        self.position
    }

    /// Reads more; false at the end of the stream.
    fn fill(&mut self) -> Result<bool, TarError> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        loop {
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.end += count;
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        }
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        self.position += count as u64;
    }

    /// Takes one block and passes it on; `None` at the end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        while self.end - self.start < BLOCK {
            if !self.fill()? {
                return match self.end - self.start {
                    0 => Ok(None),
                    _ => Err(TarError::Truncated(self.position + (self.end - self.start) as u64)),
                };
            }
        }
        let mut block = [0; BLOCK];
        block.copy_from_slice(&self.buffer[self.start..self.start + BLOCK]);
        self.sink.raw(&block).map_err(TarError::Sink)?;
        self.consume(BLOCK);
        Ok(Some(block))
    }

    pub(super) fn must_block(&mut self) -> Result<[u8; BLOCK], TarError> {
        self.block()?.ok_or(TarError::Truncated(self.position))
    }

    /// Returns the next piece of the present entry's content; `None` when it is all taken.
    ///
    /// The caller accounts for these bytes: they are not passed to the sink.
    pub(in crate::image) fn content(&mut self, most: u64) -> Result<Option<&[u8]>, TarError> {
        let most = most.min(self.left);
        if most == 0 {
            return Ok(None);
        }
        if self.start == self.end && !self.fill()? {
            return Err(TarError::Truncated(self.position));
        }
        let count = usize::try_from(most).unwrap_or(usize::MAX).min(self.end - self.start);
        let from = self.start;
        self.consume(count);
        self.left -= count as u64;
        Ok(Some(&self.buffer[from..from + count]))
    }

    /// Passes rest and padding of the present entry to the sink.
    fn finish_entry(&mut self) -> Result<(), TarError> {
        let mut rest = self.left + self.padding as u64;
        self.left = 0;
        self.padding = 0;
        while rest > 0 {
            if self.start == self.end && !self.fill()? {
                return Err(TarError::Truncated(self.position));
            }
            let count = usize::try_from(rest).unwrap_or(usize::MAX).min(self.end - self.start);
            self.sink.raw(&self.buffer[self.start..self.start + count]).map_err(TarError::Sink)?;
            self.consume(count);
            rest -= count as u64;
        }
        Ok(())
    }

    /// Passes everything after the end mark to the sink.
    fn finish_stream(&mut self) -> Result<(), TarError> {
        loop {
            self.sink.raw(&self.buffer[self.start..self.end]).map_err(TarError::Sink)?;
            self.consume(self.end - self.start);
            if !self.fill()? {
                return Ok(());
            }
        }
    }

    fn begin_content(&mut self, size: u64) {
        self.left = size;
        self.padding = ((BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64) as usize;
    }

    /// Reads the content of an extension entry whole.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_EXTENSION {
            return Err(TarError::Header { at: self.position, what: "extended header longer than 1 MiB" });
        }
        let mut data = Vec::with_capacity(size as usize);
        for _ in 0..size.div_ceil(BLOCK as u64) {
            data.extend_from_slice(&self.must_block()?);
        }
        data.truncate(size as usize);
        Ok(data)
    }

    /// Returns the next entry; `None` when the archive is over (the stream is then read to its end).
    pub(in crate::image) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        self.finish_entry()?;
        let mut extensions = Extensions::default();
        loop {
            let at = self.position;
            let fail = |what| TarError::Header { at, what };
            let Some(block) = self.block()? else {
                return if at == 0 { Err(fail("the archive is empty")) } else { Ok(None) };
            };
            if block.iter().all(|b| *b == 0) {
                self.finish_stream()?;
                return Ok(None);
            }
            let header = Header(&block);
            if !header.checksum_fits() {
                return Err(fail("wrong checksum: this is no tar archive, or it is damaged"));
            }
            let size =
                header.size().and_then(|size| u64::try_from(size).ok()).ok_or_else(|| fail("size is no number"))?;
            match header.letter() {
                b'L' => extensions.path = Some(until_nul(self.extension(size)?)),
                b'K' => extensions.link = Some(until_nul(self.extension(size)?)),
                b'x' => {
                    let data = self.extension(size)?;
                    extensions.read(&data).ok_or_else(|| fail("malformed extended header"))?;
                }
                b'g' => {
                    self.extension(size)?;
                }
                letter => return self.entry(at, letter, &header, size, extensions).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        at: u64,
        letter: u8,
        header: &Header<'_>,
        size: u64,
        ext: Extensions,
    ) -> Result<Entry, TarError> {
        let fail = |what| TarError::Header { at, what };
        let path = ext.sparse_name.clone().or(ext.path.clone()).unwrap_or_else(|| header.path());
        let kind = match letter {
            0 | b'0' | b'7' if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' | b'4' => Kind::Device,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            _ => return Err(fail("entry of an unknown type")),
        };
        let size = ext.size.unwrap_or(size);
        if size > MAX_FILE {
            return Err(fail("file larger than 16 TiB"));
        }
        // Entries without content may carry a size of what they point at; Go ignores it, and so do all engines.
        self.begin_content(if kind == Kind::File { size } else { 0 });
        let positive = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        let mut entry = Entry {
            path,
            link: ext.link.clone().unwrap_or_else(|| header.link()),
            kind,
            mode: positive(header.mode()).ok_or_else(|| fail("mode is no number"))? as u32 & 0o7777,
            uid: ext.uid.or(positive(header.uid())).ok_or_else(|| fail("owner is no number"))?,
            gid: ext.gid.or(positive(header.gid())).ok_or_else(|| fail("group is no number"))?,
            mtime: ext.mtime.or(header.mtime().map(|seconds| (seconds, 0))).ok_or_else(|| fail("time is no number"))?,
            size: if kind == Kind::File { size } else { 0 },
            sparse: None,
            xattrs: Vec::new(),
        };
        if kind == Kind::File {
            self.sparse_map(letter, header, &ext, &mut entry)?;
        }
        entry.xattrs = ext.xattrs;
        Ok(entry)
    }
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    if let Some(end) = text.iter().position(|b| *b == 0) {
        text.truncate(end);
    }
    text
}

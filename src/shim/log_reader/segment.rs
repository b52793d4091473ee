//! One segment of a log, read record by record through a window; a torn record is where it ends for now.

use super::super::log::{HEADER, Header, MAX_PAYLOAD, segment_name};
use super::LogError;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// How much is read from a segment at once, bytes.
const WINDOW: usize = 64 << 10;

/// One segment, read through a window.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    path: PathBuf,
    pub(super) number: u64,
    /// Bytes from `offset` on.
    pub(super) window: Vec<u8>,
    /// Where in the file the window begins.
    offset: u64,
    /// Where in the window the next record begins.
    next: usize,
}

impl Segment {
    /// Returns where in the file a byte of the window lies.
    pub(super) fn position(&self, at: usize) -> u64 {
        self.offset + at as u64
    }

    /// Opens a segment; `None` when it is gone.
    pub(super) fn open(dir: &Path, number: u64) -> Result<Option<Self>, LogError> {
        let path = dir.join(segment_name(number));
        match File::open(&path) {
            Ok(file) => Ok(Some(Self { file, path, number, window: Vec::new(), offset: 0, next: 0 })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LogError { path, source }),
        }
    }

    /// Returns the next whole record as its header and its payload's range in the window; `None` where none is (yet).
    pub(super) fn next_record(&mut self) -> Result<Option<(Header, usize, usize)>, LogError> {
        if !self.fill(HEADER)? {
            return Ok(None);
        }
        let header =
            self.window.get(self.next..self.next + HEADER).and_then(|bytes| Header::decode(bytes.try_into().ok()?));
        let Some(header) = header else { return Ok(None) };
        if !self.fill(HEADER + header.length)? {
            return Ok(None);
        }
        let start = self.next + HEADER;
        self.next = start + header.length;
        Ok(Some((header, start, self.next)))
    }

    /// Makes sure that so many bytes follow in the window; false when the file has fewer.
    fn fill(&mut self, wanted: usize) -> Result<bool, LogError> {
        debug_assert!(wanted <= HEADER + MAX_PAYLOAD);
        if self.window.len() - self.next >= wanted {
            return Ok(true);
        }
        self.window.drain(..self.next);
        self.offset += self.next as u64;
        self.next = 0;
        while self.window.len() < wanted {
            let filled = self.window.len();
            self.window.resize(filled + WINDOW.max(wanted - filled), 0);
            let got = self.file.read_at(&mut self.window[filled..], self.offset + filled as u64);
            self.window.truncate(filled + got.as_ref().map_or(0, |n| *n));
            match got {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(LogError { path: self.path.clone(), source }),
            }
        }
        Ok(true)
    }
}

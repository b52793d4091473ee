//! A container's log on disk, and its writer.
//!
//! A log is a directory of segments `0000000001.log`, `0000000002.log`, ... The writer appends to the newest and begins
//! another when it is full; the oldest beyond the plan's number is removed. Numbers only grow, so a reader that is
//! overtaken by rotation never mistakes one segment for another.
//!
//! A segment is a row of records, one for each read from the container, both streams in one sequence:
//!
//! | bytes | |
//! |---|---|
//! | 0..2 | `0xB1 0x6B` |
//! | 2 | stream: 1 stdout, 2 stderr |
//! | 3 | exclusive or of the other 15 bytes |
//! | 4..8 | length of the payload, little-endian |
//! | 8..16 | nanoseconds since 1970, little-endian |
//!
//! then the payload as the container wrote it; a line may go on in a later record of its stream. Whatever does not parse
//! (the tail torn by a kill or a power cut) ends its segment; the next writer cuts it off.

use super::error::{ShimError, io_error};
use super::plan::LogPlan;
use crate::base::Timestamp;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::io::IoSlice;
use std::path::{Path, PathBuf};

/// Size of a record's header in bytes.
pub(super) const HEADER: usize = 16;
/// Longest payload of a record in bytes.
pub(super) const MAX_PAYLOAD: usize = 128 << 10;
/// Smallest segment; smaller plans are rounded up.
const MIN_SEGMENT: u64 = 4 << 10;
const MAGIC: [u8; 2] = [0xB1, 0x6B];

/// Which stream a record came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    /// Returns 1 for stdout, 2 for stderr, as in the Engine API's frames.
    pub fn number(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) stream: LogStream,
    pub(super) timestamp: Timestamp,
    pub(super) length: usize,
}

impl Header {
    fn encode(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..2].copy_from_slice(&MAGIC);
        bytes[2] = self.stream.number();
        bytes[4..8].copy_from_slice(&(self.length as u32).to_le_bytes());
        bytes[8..].copy_from_slice(&self.timestamp.0.to_le_bytes());
        bytes[3] = bytes.iter().fold(0, |sum, byte| sum ^ byte);
        bytes
    }

    /// Reads a header; `None` when the bytes are none.
    pub(super) fn decode(bytes: &[u8; HEADER]) -> Option<Self> {
        let [m0, m1, stream, _, l0, l1, l2, l3, time @ ..] = *bytes;
        let sum = bytes.iter().fold(0, |sum, byte| sum ^ byte);
        let stream = match stream {
            1 => LogStream::Stdout,
            2 => LogStream::Stderr,
            _ => return None,
        };
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let good = [m0, m1] == MAGIC && sum == 0 && (1..=MAX_PAYLOAD).contains(&length);
        good.then_some(Self { stream, timestamp: Timestamp(i64::from_le_bytes(time)), length })
    }
}

/// Returns the name of a segment.
pub(super) fn segment_name(number: u64) -> String {
    format!("{number:010}.log")
}

/// Returns the numbers of the segments in a directory, oldest first; none when the directory is missing.
pub(super) fn segments(dir: &Path) -> std::io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(numbers),
        other => other?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|digits| digits.parse().ok());
        numbers.extend(number.filter(|number| segment_name(*number).as_str() == name));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Appends records and rotates.
#[derive(Debug)]
pub(super) struct LogWriter {
    path: PathBuf,
    /// The directory and the segment; made by the first record, so that a silent container has none.
    open: Option<(OwnedFd, OwnedFd)>,
    /// Number of the segment that is open or comes first.
    number: u64,
    /// Oldest segment that may still exist.
    oldest: u64,
    /// Bytes in the segment that are whole records.
    written: u64,
    max_size: u64,
    max_files: u64,
}

impl LogWriter {
    /// Opens a log for appending and cuts off a torn tail; one that holds nothing yet is made by its first record.
    ///
    /// # Errors
    /// When the directory or the newest segment cannot be opened or read.
    pub(super) fn open(plan: &LogPlan) -> Result<Self, ShimError> {
        let what = || format!("open log {}", plan.dir.display());
        let numbers = segments(&plan.dir).map_err(|source| ShimError::Io { what: what(), source })?;
        let number = numbers.last().copied().unwrap_or(1);
        let mut writer = Self {
            path: plan.dir.clone(),
            open: None,
            number,
            oldest: numbers.first().copied().unwrap_or(number),
            written: 0,
            max_size: plan.max_size.max(MIN_SEGMENT),
            max_files: u64::from(plan.max_files.max(1)),
        };
        if !numbers.is_empty() {
            let (_, file) = writer.opened().map_err(io_error(what()))?;
            let size = rustix::fs::fstat(&*file).map_err(io_error(what()))?.st_size as u64;
            writer.written = cut_torn_tail(file, size).map_err(io_error(what()))?;
        }
        Ok(writer)
    }

    /// Returns the directory and the segment, making what is missing.
    fn opened(&mut self) -> Result<&mut (OwnedFd, OwnedFd), Errno> {
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                match rustix::fs::mkdir(&self.path, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno),
                }
                let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
                let dir = rustix::fs::open(&self.path, flags, Mode::empty())?;
                let file = open_segment(&dir, self.number, OFlags::empty())?;
                (dir, file)
            }
        };
        Ok(self.open.insert(open))
    }

    /// Appends one chunk of a stream, at most [`MAX_PAYLOAD`] bytes.
    ///
    /// # Errors
    /// When the disk is full or fails; then nothing of the chunk is kept and the log stays whole.
    pub(super) fn append(&mut self, stream: LogStream, timestamp: Timestamp, payload: &[u8]) -> Result<(), Errno> {
        if payload.is_empty() || payload.len() > MAX_PAYLOAD {
            return if payload.is_empty() { Ok(()) } else { Err(Errno::INVAL) };
        }
        let size = (HEADER + payload.len()) as u64;
        if self.written > 0 && self.written + size > self.max_size {
            self.rotate()?;
        }
        let header = Header { stream, timestamp, length: payload.len() }.encode();
        let written = self.written;
        let (_, file) = self.opened()?;
        write_all(file, &header, payload).or_else(|errno| rustix::fs::ftruncate(file, written).and(Err(errno)))?;
        self.written += size;
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), Errno> {
        // Old segments go first, so that a full disk gets room again.
        while self.oldest + self.max_files <= self.number + 1 && self.oldest < self.number {
            self.remove_oldest()?;
        }
        let next = self.number + 1;
        let (dir, file) = self.opened()?;
        *file = open_segment(dir, next, OFlags::EXCL)?;
        self.number = next;
        self.written = 0;
        while self.oldest + self.max_files <= self.number {
            self.remove_oldest()?;
        }
        Ok(())
    }

    fn remove_oldest(&mut self) -> Result<(), Errno> {
        let oldest = self.oldest;
        let (dir, _) = self.opened()?;
        match rustix::fs::unlinkat(dir, segment_name(oldest), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {
                self.oldest += 1;
                Ok(())
            }
            Err(errno) => Err(errno),
        }
    }
}

fn open_segment(dir: &OwnedFd, number: u64, extra: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOFOLLOW | extra;
    rustix::fs::openat(dir, segment_name(number), flags, Mode::RUSR | Mode::WUSR)
}

fn write_all(file: &OwnedFd, header: &[u8], payload: &[u8]) -> Result<(), Errno> {
    let (mut header, mut payload) = (header, payload);
    while !header.is_empty() || !payload.is_empty() {
        match rustix::io::writev(file, &[IoSlice::new(header), IoSlice::new(payload)]) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => {
                let of_header = n.min(header.len());
                header = &header[of_header..];
                payload = &payload[n - of_header..];
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Walks the headers of a segment and truncates it after its last whole record; returns the length kept.
fn cut_torn_tail(file: &OwnedFd, size: u64) -> Result<u64, Errno> {
    let mut at = 0;
    let mut window = vec![0; 64 << 10];
    let (mut start, mut filled) = (0u64, 0usize);
    while at < size {
        if at < start || at + HEADER as u64 > start + filled as u64 {
            (start, filled) = (at, rustix::io::pread(file, &mut window[..], at)?);
        }
        let offset = (at - start) as usize;
        let header =
            window[..filled].get(offset..offset + HEADER).and_then(|bytes| Header::decode(bytes.try_into().ok()?));
        match header.map(|header| at + (HEADER + header.length) as u64) {
            Some(end) if end <= size => at = end,
            _ => break,
        }
    }
    if at < size {
        rustix::fs::ftruncate(file, at)?;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_a_round_trip_and_one_wrong_bit_does_not() {
        let header = Header { stream: LogStream::Stderr, timestamp: Timestamp(1_700_000_000_123_456_789), length: 77 };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Some(header));
        for bit in 0..HEADER * 8 {
            let mut wrong = bytes;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&wrong), None, "bit {bit}");
        }
        assert_eq!(Header::decode(&[0; HEADER]), None);
    }

    #[test]
    fn a_log_without_output_leaves_nothing_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let plan = LogPlan { dir: dir.path().join("log"), max_size: 4096, max_files: 3 };
        let mut writer = LogWriter::open(&plan).unwrap();
        writer.append(LogStream::Stdout, Timestamp(1), b"").unwrap();
        assert!(!plan.dir.exists());
        writer.append(LogStream::Stdout, Timestamp(1), b"x").unwrap();
        assert_eq!(segments(&plan.dir).unwrap(), [1]);
    }

    #[test]
    fn only_the_newest_segments_stay() {
        let dir = tempfile::tempdir().unwrap();
        let plan = LogPlan { dir: dir.path().join("log"), max_size: 4096, max_files: 3 };
        let mut writer = LogWriter::open(&plan).unwrap();
        for _ in 0..20 {
            writer.append(LogStream::Stdout, Timestamp(1), &[b'x'; 1000]).unwrap();
        }
        assert_eq!(segments(&plan.dir).unwrap(), [3, 4, 5]);
        drop(writer);
        assert_eq!(LogWriter::open(&plan).unwrap().number, 5);
        for number in [3, 4, 5] {
            assert!(std::fs::metadata(plan.dir.join(segment_name(number))).unwrap().len() <= 4096);
        }
    }

    #[test]
    fn one_segment_only_is_a_plan_too() {
        let dir = tempfile::tempdir().unwrap();
        let plan = LogPlan { dir: dir.path().join("log"), max_size: 4096, max_files: 1 };
        let mut writer = LogWriter::open(&plan).unwrap();
        for _ in 0..20 {
            writer.append(LogStream::Stdout, Timestamp(1), &[b'x'; 1000]).unwrap();
        }
        assert_eq!(segments(&plan.dir).unwrap(), [5]);
    }

    #[test]
    fn a_torn_tail_is_cut_off_before_more_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let plan = LogPlan { dir: dir.path().join("log"), max_size: 1 << 20, max_files: 3 };
        for tail in 1..HEADER + 5 {
            let mut writer = LogWriter::open(&plan).unwrap();
            writer.append(LogStream::Stdout, Timestamp(1), b"whole").unwrap();
            let whole = writer.written;
            writer.append(LogStream::Stdout, Timestamp(2), b"torn!").unwrap();
            rustix::fs::ftruncate(&writer.opened().unwrap().1, whole + tail as u64).unwrap();
            drop(writer);
            assert_eq!(LogWriter::open(&plan).unwrap().written, whole, "tail of {tail} bytes");
        }
    }
}

//! Reads a container's log, also while it is written and rotated.
//!
//! Memory is bounded by one record, whatever the log's size: `tail` counts lines backwards segment by segment and then
//! reads forwards.

use super::log::{HEADER, Header, LogStream, MAX_PAYLOAD, segment_name, segments};
use crate::base::Timestamp;
use rustix::event::PollFlags;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::inotify;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How much is read from a segment at once.
const WINDOW: usize = 64 << 10;
/// How long a follower sleeps at most before it looks whether the shim still lives.
const LOOK: Duration = Duration::from_millis(500);

/// What of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Only the last so many lines.
    pub tail: Option<u64>,
    /// Only what was written at this time or later.
    pub since: Option<Timestamp>,
    /// Only what was written at this time or earlier.
    pub until: Option<Timestamp>,
    /// The shim's directory: wait for more as long as its container runs.
    pub follow: Option<PathBuf>,
}

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
#[error("read log {}", path.display())]
pub struct LogError {
    /// The log's directory or segment.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: io::Error,
}

/// A piece of a log: a line with its newline, or the part of a line that was written by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEntry<'a> {
    /// Where it was written to.
    pub stream: LogStream,
    /// When it was written.
    pub timestamp: Timestamp,
    /// What was written, its newline included.
    pub bytes: &'a [u8],
    /// Whether it begins a line of its stream (`--timestamps` prints the time there).
    pub starts_line: bool,
}

/// An open log.
#[derive(Debug)]
pub struct LogReader {
    dir: PathBuf,
    options: LogOptions,
    /// Lines still to be left out (`tail`).
    skip: u64,
    segment: Option<Segment>,
    /// The record being taken apart: its header, and the range of the window not yet given out.
    record: Option<(Header, usize, usize)>,
    /// Whether the next byte of a stream begins a line, by stream number.
    line_start: [bool; 3],
    watch: Option<OwnedFd>,
    /// Whether the container had ended before the last look at the log's end.
    ended: bool,
    /// Whether `until` was reached.
    finished: bool,
}

impl LogReader {
    /// Opens a log; a directory that does not exist is an empty log.
    ///
    /// # Errors
    /// When the directory or a segment cannot be read.
    pub fn open(dir: &Path, options: LogOptions) -> Result<Self, LogError> {
        let watch = match &options.follow {
            Some(run_dir) => {
                watch(dir, run_dir).map_err(|errno| LogError { path: dir.to_owned(), source: errno.into() })?
            }
            None => None,
        };
        let mut reader = Self {
            dir: dir.to_owned(),
            options,
            skip: 0,
            segment: None,
            record: None,
            line_start: [true; 3],
            watch,
            ended: false,
            finished: false,
        };
        let numbers = segments(dir).map_err(|source| LogError { path: dir.to_owned(), source })?;
        let first = match reader.options.tail {
            Some(lines) => reader.find_tail(&numbers, lines)?,
            None => numbers.first().copied(),
        };
        if let Some(number) = first {
            reader.segment = reader.open_from(number)?;
        }
        Ok(reader)
    }

    /// Returns the next piece, or `None` at the end: of the log, at `until`, or, when following, of the container.
    ///
    /// # Errors
    /// When a segment cannot be read.
    #[expect(
        clippy::should_implement_trait,
        reason = "the piece borrows from the reader, which an iterator cannot give"
    )]
    pub fn next(&mut self) -> Result<Option<LogEntry<'_>>, LogError> {
        while !self.finished {
            let Some((header, start, end)) = self.record else {
                if !self.next_record()? {
                    return Ok(None);
                }
                continue;
            };
            let Some(segment) = &self.segment else { return Ok(None) };
            let rest = &segment.window[start..end];
            let length = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
            let whole = rest[length - 1] == b'\n';
            self.record = (start + length < end).then_some((header, start + length, end));
            let stream = usize::from(header.stream.number());
            let starts_line = std::mem::replace(&mut self.line_start[stream], whole);
            if self.options.until.is_some_and(|until| header.timestamp > until) {
                self.finished = true;
                return Ok(None);
            }
            if self.skip > 0 {
                self.skip -= u64::from(whole);
                continue;
            }
            if self.options.since.is_some_and(|since| header.timestamp < since) {
                continue;
            }
            // Borrowed again here, because a borrow that is returned cannot end inside the loop.
            let bytes = self.segment.as_ref().map_or(&[][..], |segment| &segment.window[start..start + length]);
            return Ok(Some(LogEntry { stream: header.stream, timestamp: header.timestamp, bytes, starts_line }));
        }
        Ok(None)
    }

    /// Finds the segment in which the last `lines` lines begin and how many lines before them to leave out.
    fn find_tail(&mut self, numbers: &[u64], lines: u64) -> Result<Option<u64>, LogError> {
        let mut found = 0u64;
        // The last byte of each stream, by stream number; a stream that does not end in a newline is one more line.
        let mut last: [Option<u8>; 3] = [None; 3];
        for number in numbers.iter().rev() {
            let Some(mut segment) = Segment::open(&self.dir, *number)? else { break };
            let mut last_here = [None; 3];
            while let Some((header, start, end)) = segment.next_record()? {
                if self.options.until.is_some_and(|until| header.timestamp > until) {
                    break;
                }
                let bytes = &segment.window[start..end];
                found += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
                last_here[usize::from(header.stream.number())] = bytes.last().copied();
            }
            for (last, here) in last.iter_mut().zip(last_here) {
                if last.is_none() && here.is_some() {
                    *last = here;
                    found += u64::from(here != Some(b'\n'));
                }
            }
            if found >= lines {
                self.skip = found - lines;
                return Ok(Some(*number));
            }
        }
        Ok(numbers.first().copied())
    }

    /// Moves to the next whole record, waiting for one when following; false at the end.
    fn next_record(&mut self) -> Result<bool, LogError> {
        loop {
            if let Some(segment) = &mut self.segment {
                // Looked up before the read: what a segment holds once a later one exists is all it will ever hold.
                let later = self.dir.join(segment_name(segment.number + 1)).exists();
                self.record = segment.next_record()?;
                if self.record.is_some() {
                    return Ok(true);
                }
                let number = segment.number;
                if later || self.overtaken(number)? {
                    self.segment = self.open_from(number + 1)?;
                    continue;
                }
            } else if let Some(number) =
                segments(&self.dir).map_err(|source| LogError { path: self.dir.clone(), source })?.first()
            {
                self.segment = self.open_from(*number)?;
                continue;
            }
            let Some(run_dir) = &self.options.follow else { return Ok(false) };
            if self.ended {
                return Ok(false);
            }
            self.ended = !super::lock::is_alive(run_dir);
            if !self.ended {
                self.sleep();
            }
        }
    }

    /// Tells whether rotation removed the segment that is being read and those right after it.
    fn overtaken(&self, number: u64) -> Result<bool, LogError> {
        if self.dir.join(segment_name(number)).exists() {
            return Ok(false);
        }
        let numbers = segments(&self.dir).map_err(|source| LogError { path: self.dir.clone(), source })?;
        Ok(numbers.first().is_some_and(|first| *first > number))
    }

    /// Opens a segment, or the first later one when rotation has removed it.
    fn open_from(&self, number: u64) -> Result<Option<Segment>, LogError> {
        let numbers = segments(&self.dir).map_err(|source| LogError { path: self.dir.clone(), source })?;
        for candidate in numbers.into_iter().filter(|candidate| *candidate >= number) {
            if let Some(segment) = Segment::open(&self.dir, candidate)? {
                return Ok(Some(segment));
            }
        }
        Ok(None)
    }

    /// Sleeps until something was written, the shim left, or half a second went by.
    fn sleep(&self) {
        let Some(watch) = &self.watch else { return std::thread::sleep(LOOK / 10) };
        if let Ok(true) = super::codec::wait(watch.as_fd(), PollFlags::IN, Some(Instant::now() + LOOK)) {
            let mut events = [0u8; 4096];
            // The events themselves say nothing that is not looked up again.
            let _ = rustix::io::read(watch, &mut events);
        }
    }
}

/// One segment, read through a window.
#[derive(Debug)]
struct Segment {
    file: File,
    path: PathBuf,
    number: u64,
    /// Bytes from `offset` on.
    window: Vec<u8>,
    /// Where in the file the window begins.
    offset: u64,
    /// Where in the window the next record begins.
    next: usize,
}

impl Segment {
    /// Opens a segment; `None` when it is gone.
    fn open(dir: &Path, number: u64) -> Result<Option<Self>, LogError> {
        let path = dir.join(segment_name(number));
        match File::open(&path) {
            Ok(file) => Ok(Some(Self { file, path, number, window: Vec::new(), offset: 0, next: 0 })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LogError { path, source }),
        }
    }

    /// Returns the next whole record as its header and its payload's range in the window; `None` where none is (yet).
    fn next_record(&mut self) -> Result<Option<(Header, usize, usize)>, LogError> {
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

/// Watches a log's directory and a shim's; `None` when the log's directory is missing.
fn watch(dir: &Path, run_dir: &Path) -> Result<Option<OwnedFd>, rustix::io::Errno> {
    use inotify::WatchFlags;
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let log = inotify::add_watch(&watch, dir, WatchFlags::MODIFY | WatchFlags::CREATE);
    // The shim removes its socket when it is done; a directory that is gone says the same.
    let _ = inotify::add_watch(&watch, run_dir, WatchFlags::DELETE | WatchFlags::DELETE_SELF);
    Ok(log.is_ok().then_some(watch))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "fixtures, not records")]
mod tests {
    use super::*;
    use crate::shim::LogPlan;
    use crate::shim::log::LogWriter;

    struct Fixture {
        _dir: tempfile::TempDir,
        plan: LogPlan,
        writer: LogWriter,
    }

    fn fixture(max_size: u64, max_files: u32) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let plan = LogPlan { dir: dir.path().join("log"), max_size, max_files };
        let writer = LogWriter::open(&plan).unwrap();
        Fixture { _dir: dir, plan, writer }
    }

    fn read(plan: &LogPlan, options: LogOptions) -> Vec<(u8, String, bool)> {
        let mut reader = LogReader::open(&plan.dir, options).unwrap();
        let mut entries = Vec::new();
        while let Some(entry) = reader.next().unwrap() {
            entries.push((entry.stream.number(), String::from_utf8(entry.bytes.to_vec()).unwrap(), entry.starts_line));
        }
        entries
    }

    fn text(plan: &LogPlan, options: LogOptions) -> String {
        read(plan, options).into_iter().map(|(_, text, _)| text).collect()
    }

    fn tail(lines: u64) -> LogOptions {
        LogOptions { tail: Some(lines), ..LogOptions::default() }
    }

    #[test]
    fn streams_order_and_partial_lines_are_kept() {
        let mut fixture = fixture(1 << 20, 2);
        for (stream, bytes) in [(LogStream::Stdout, "a\nb"), (LogStream::Stderr, "err\n"), (LogStream::Stdout, "c\n")] {
            fixture.writer.append(stream, Timestamp(1), bytes.as_bytes()).unwrap();
        }
        let expected = [(1, "a\n", true), (1, "b", true), (2, "err\n", true), (1, "c\n", false)];
        assert_eq!(
            read(&fixture.plan, LogOptions::default()),
            expected.map(|(stream, text, start)| (stream, text.to_owned(), start))
        );
    }

    #[test]
    fn tail_gives_the_last_lines_across_segments() {
        let mut fixture = fixture(4096, 100);
        let lines: Vec<String> = (0..1000).map(|n| format!("line {n}\n")).collect();
        for line in &lines {
            fixture.writer.append(LogStream::Stdout, Timestamp(1), line.as_bytes()).unwrap();
        }
        for wanted in [0, 1, 2, 50, 169, 170, 500, 999, 1000, 5000] {
            assert_eq!(
                text(&fixture.plan, tail(wanted)),
                lines[1000usize.saturating_sub(wanted as usize)..].concat(),
                "tail {wanted}"
            );
        }
    }

    #[test]
    fn an_unfinished_last_line_counts_as_a_line() {
        let mut fixture = fixture(1 << 20, 2);
        fixture.writer.append(LogStream::Stdout, Timestamp(1), b"one\ntwo\nthree").unwrap();
        assert_eq!(text(&fixture.plan, tail(1)), "three");
        assert_eq!(text(&fixture.plan, tail(2)), "two\nthree");
    }

    #[test]
    fn since_and_until_bound_the_times() {
        let mut fixture = fixture(1 << 20, 2);
        for time in 1..=9 {
            fixture.writer.append(LogStream::Stdout, Timestamp(time), format!("{time}").as_bytes()).unwrap();
        }
        let between = |since, until| LogOptions {
            since: Some(Timestamp(since)),
            until: Some(Timestamp(until)),
            ..LogOptions::default()
        };
        assert_eq!(text(&fixture.plan, between(3, 5)), "345");
        assert_eq!(text(&fixture.plan, between(10, 20)), "");
    }

    #[test]
    fn a_torn_record_ends_what_is_read_and_nothing_else() {
        let mut fixture = fixture(1 << 20, 2);
        fixture.writer.append(LogStream::Stdout, Timestamp(1), b"whole\n").unwrap();
        let segment = fixture.plan.dir.join(segment_name(1));
        let whole = std::fs::read(&segment).unwrap();
        for garbage in [&b"\xB1\x6B"[..], &[0; 40], &[0xFF; 100], &whole[..whole.len() - 1]] {
            std::fs::write(&segment, [&whole[..], garbage].concat()).unwrap();
            assert_eq!(text(&fixture.plan, LogOptions::default()), "whole\n");
            assert_eq!(text(&fixture.plan, tail(1)), "whole\n");
        }
    }

    #[test]
    fn a_torn_segment_does_not_hide_the_next_one() {
        let mut fixture = fixture(4096, 9);
        fixture.writer.append(LogStream::Stdout, Timestamp(1), &[b'x'; 4070]).unwrap();
        fixture.writer.append(LogStream::Stdout, Timestamp(1), b"next\n").unwrap();
        let segment = fixture.plan.dir.join(segment_name(1));
        std::fs::write(&segment, &std::fs::read(&segment).unwrap()[..2000]).unwrap();
        assert_eq!(text(&fixture.plan, LogOptions::default()), "next\n");
    }

    #[test]
    fn a_reader_overtaken_by_rotation_goes_on_with_what_is_left() {
        let mut fixture = fixture(4096, 2);
        fixture.writer.append(LogStream::Stdout, Timestamp(1), b"first\n").unwrap();
        let mut reader = LogReader::open(&fixture.plan.dir, LogOptions::default()).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().bytes, b"first\n");
        for n in 0..10 {
            fixture
                .writer
                .append(LogStream::Stdout, Timestamp(1), format!("{n}{}\n", "x".repeat(3000)).as_bytes())
                .unwrap();
        }
        let mut firsts = String::new();
        while let Some(entry) = reader.next().unwrap() {
            firsts.push(entry.bytes[0] as char);
        }
        assert_eq!(firsts, "089", "the segment already open, then the two that are left");
    }

    #[test]
    fn following_sees_all_that_is_written_until_the_shim_is_gone() {
        let mut fixture = fixture(4096, 1000);
        let run_dir = tempfile::tempdir().unwrap();
        let lock = crate::shim::lock::tests::lock_in_child(run_dir.path());
        let options = LogOptions { follow: Some(run_dir.path().to_owned()), ..LogOptions::default() };
        let dir = fixture.plan.dir.clone();
        let seen = std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let mut reader = LogReader::open(&dir, options).unwrap();
                let mut seen = String::new();
                while let Some(entry) = reader.next().unwrap() {
                    seen.push_str(std::str::from_utf8(entry.bytes).unwrap());
                }
                seen
            });
            for n in 0..2000 {
                fixture.writer.append(LogStream::Stdout, Timestamp(1), format!("{n}\n").as_bytes()).unwrap();
            }
            drop(lock);
            reader.join().unwrap()
        });
        assert_eq!(seen, (0..2000).map(|n| format!("{n}\n")).collect::<String>());
    }
}

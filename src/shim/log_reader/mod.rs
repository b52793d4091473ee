//! Reads a container's log, also while it is written and rotated.
//!
//! Memory is bounded by one record, whatever the log's size: `tail` counts lines backwards segment by segment and then
//! reads forwards.

mod segment;

use self::segment::Segment;
use super::codec;
use super::log::{Header, LogStream, segment_name, segments};
use crate::base::Timestamp;
use rustix::event::PollFlags;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::inotify;
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
    /// Where the log's last lines that have no newline end, by segment and byte in it: these are lines to be left out too.
    open_ends: Vec<(u64, u64)>,
    segment: Option<Segment>,
    /// The record being taken apart: its header, and the range of the window not yet given out.
    record: Option<(Header, usize, usize)>,
    /// Whether the next byte of a stream begins a line, by stream number.
    line_start: [bool; 3],
    watch: Option<Watch>,
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
            Some(run_dir) => Some(
                Watch::new(dir, run_dir).map_err(|errno| LogError { path: dir.to_owned(), source: errno.into() })?,
            ),
            None => None,
        };
        let mut reader = Self {
            dir: dir.to_owned(),
            options,
            skip: 0,
            open_ends: Vec::new(),
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
                let end = (segment.number, segment.position(start + length));
                self.skip -= u64::from(whole || self.open_ends.contains(&end));
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
        // Whether each stream's end was seen, by stream number; one that does not end in a newline is one more line.
        let mut seen = [false; 3];
        for number in numbers.iter().rev() {
            let Some(mut segment) = Segment::open(&self.dir, *number)? else { break };
            let mut last_here = [None; 3];
            while let Some((header, start, end)) = segment.next_record()? {
                if self.options.until.is_some_and(|until| header.timestamp > until) {
                    break;
                }
                let bytes = &segment.window[start..end];
                found += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
                let open = bytes.last() != Some(&b'\n');
                last_here[usize::from(header.stream.number())] = Some((open, segment.position(end)));
            }
            for (seen, here) in seen.iter_mut().zip(last_here) {
                let Some((open, end)) = here.filter(|_| !*seen) else { continue };
                *seen = true;
                if open {
                    found += 1;
                    self.open_ends.push((*number, end));
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
    fn sleep(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.sleep(&self.dir);
        }
    }
}

/// Sees that a log grows.
#[derive(Debug)]
struct Watch {
    inotify: OwnedFd,
    /// Whether the log has a directory and it is watched; without one, what it will be made in is.
    made: bool,
}

impl Watch {
    const GROWS: inotify::WatchFlags = inotify::WatchFlags::MODIFY.union(inotify::WatchFlags::CREATE);

    /// Watches a log and its shim's directory.
    fn new(dir: &Path, run_dir: &Path) -> Result<Self, Errno> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let mut watch = Self { inotify: inotify::init(flags)?, made: false };
        if let Some(parent) = dir.parent() {
            // Before the log itself, so that there is no moment in which it comes unseen.
            let _ = inotify::add_watch(&watch.inotify, parent, inotify::WatchFlags::CREATE);
        }
        watch.look(dir);
        // The shim removes its socket when it is done; a directory that is gone says the same.
        let gone = inotify::WatchFlags::DELETE | inotify::WatchFlags::DELETE_SELF;
        let _ = inotify::add_watch(&watch.inotify, run_dir, gone);
        Ok(watch)
    }

    fn look(&mut self, dir: &Path) {
        self.made = self.made || inotify::add_watch(&self.inotify, dir, Self::GROWS).is_ok();
    }

    /// Sleeps until something happened that is worth a look, half a second at most.
    fn sleep(&mut self, dir: &Path) {
        if let Ok(true) = codec::wait(self.inotify.as_fd(), PollFlags::IN, Some(Instant::now() + LOOK)) {
            let mut events = [0u8; 4096];
            // The events themselves say nothing that is not looked up again.
            let _ = rustix::io::read(&self.inotify, &mut events);
            self.look(dir);
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "fixtures, not records")]
mod tests;

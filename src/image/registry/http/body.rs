//! Bodies of answers, and the connections they come through.

use super::Http;
use super::head::{Framing, Head, MAX_HEAD, chunk_length};
use super::stream::{Broken, Stream};
use crate::image::registry::error::{RegistryError, Result};
use crate::image::registry::url::Origin;
use std::io;
use std::time::{Duration, Instant};

/// Bytes read at once where the caller has no room of its own.
const BUFFER: usize = 16 << 10;
/// Longest line between two pieces.
const MAX_LINE: usize = 4096;
/// Fewest bytes of a body within the idle time; a connection that brings less counts as stalled.
const CRAWL: u64 = 4096;
/// Most bytes that are read and thrown away so that a connection can be used again.
const DRAINED: usize = 64 << 10;

/// Why an answer could not be read.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection broke or was late.
    Broken(Broken),
    /// What came is no answer.
    Malformed(&'static str),
}

impl From<Broken> for Fault {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

/// A connection and what was read from it and not yet looked at.
pub(super) struct Connection<'a> {
    pub(super) stream: Stream<'a>,
    buffer: Vec<u8>,
    start: usize,
}

impl<'a> Connection<'a> {
    pub(super) fn new(stream: Stream<'a>) -> Self {
        Self { stream, buffer: Vec::new(), start: 0 }
    }

    /// Reads more into the buffer.
    fn fill(&mut self, until: Instant) -> Result<(), Broken> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let filled = self.buffer.len();
        self.buffer.resize(filled + BUFFER, 0);
        let count = self.stream.read(&mut self.buffer[filled..], until);
        self.buffer.truncate(filled + count.as_ref().map_or(0, |count| *count));
        match count? {
            0 => Err(Broken::Io(io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }

    /// Reads the head of the final answer; those that only announce one are passed over.
    pub(super) fn head(&mut self, until: Instant) -> Result<Head, Fault> {
        let mut passed = 0;
        loop {
            if self.buffer.len() > self.start
                && let Some((head, length)) = Head::parse(&self.buffer[self.start..]).map_err(Fault::Malformed)?
            {
                self.start += length;
                passed += 1;
                match head.status {
                    101 => return Err(Fault::Malformed("the answer changes the protocol")),
                    100..200 if passed < 16 => continue,
                    100..200 => return Err(Fault::Malformed("the answer does not begin")),
                    _ => return Ok(head),
                }
            }
            self.fill(until)?;
        }
    }

    /// Reads some bytes of a body.
    fn some(&mut self, into: &mut [u8], until: Instant) -> Result<usize, Broken> {
        let waiting = &self.buffer[self.start..];
        if waiting.is_empty() {
            return self.stream.read(into, until);
        }
        let count = waiting.len().min(into.len());
        into[..count].copy_from_slice(&waiting[..count]);
        self.start += count;
        Ok(count)
    }

    /// Reads a line of a chunked body.
    fn line(&mut self, until: Instant) -> Result<Vec<u8>, Fault> {
        loop {
            let waiting = &self.buffer[self.start..];
            if let Some(end) = waiting.windows(2).position(|two| two == b"\r\n") {
                let line = waiting[..end].to_vec();
                self.start += end + 2;
                return Ok(line);
            }
            if waiting.len() > MAX_LINE {
                return Err(Fault::Malformed("a piece of the answer has no length"));
            }
            self.fill(until)?;
        }
    }
}

/// What is left of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// This many bytes.
    Bytes(u64),
    /// This many bytes of a piece, and perhaps more pieces; `first` before the first one.
    Piece { bytes: u64, first: bool },
    /// All until the connection ends.
    All,
    /// Nothing.
    Nothing,
}

/// The body of an answer.
pub(in crate::image::registry) struct Body<'h, 'a> {
    http: &'h Http<'a>,
    connection: Option<Connection<'a>>,
    /// Where the connection may be used again.
    origin: Option<Origin>,
    left: Left,
    /// Length that was announced.
    length: Option<u64>,
    url: String,
    pace: Pace,
}

/// How much came in how much waiting; what the reader does in between does not count.
#[derive(Default)]
struct Pace {
    waited: Duration,
    bytes: u64,
}

impl<'h, 'a> Body<'h, 'a> {
    pub(super) fn new(
        http: &'h Http<'a>,
        connection: Connection<'a>,
        origin: Option<Origin>,
        framing: Framing,
        url: String,
    ) -> Self {
        let (left, length) = match framing {
            Framing::Length(bytes) => (Left::Bytes(bytes), Some(bytes)),
            Framing::Chunked => (Left::Piece { bytes: 0, first: true }, None),
            Framing::Close => (Left::All, None),
        };
        let pace = Pace::default();
        let mut body = Self { http, connection: Some(connection), origin, left, length, url, pace };
        if body.left == Left::Bytes(0) {
            body.end();
        }
        body
    }

    /// Returns the number of bytes that was announced.
    pub(in crate::image::registry) fn length(&self) -> Option<u64> {
        self.length
    }

    /// The body has been read: the connection can be used again.
    fn end(&mut self) {
        self.left = Left::Nothing;
        if let (Some(connection), Some(origin)) = (self.connection.take(), self.origin.take())
            // What nobody asked for belongs to no answer.
            && connection.start == connection.buffer.len()
        {
            self.http.keep(origin, connection);
        }
    }

    /// Reads some bytes; 0 at the end. A body that ends before its announced length is a broken connection, and one that
    /// hardly moves is late.
    ///
    /// # Errors
    /// When the connection breaks or is late, the body is malformed, or the caller wants to stop.
    pub(in crate::image::registry) fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        let idle = self.http.deadlines.idle;
        // Where the next bytes are always there already, no wait would hear it.
        if self.http.halt.is_over() {
            return Err(self.broken(Fault::Broken(Broken::Interrupted), idle));
        }
        loop {
            let began = Instant::now();
            let result = self.attempt(into, began + idle.saturating_sub(self.pace.waited));
            self.pace.waited += began.elapsed();
            self.pace.bytes += *result.as_ref().unwrap_or(&0) as u64;
            let enough = self.pace.bytes >= CRAWL;
            if self.pace.waited >= idle && enough {
                self.pace = Pace::default();
            }
            match result {
                Err(Fault::Broken(Broken::Late)) if enough => {}
                Err(fault) => return Err(self.broken(fault, idle)),
                Ok(count) => return Ok(count),
            }
        }
    }

    /// Reads a document whole, within the time for one.
    ///
    /// # Errors
    /// As [`Self::read`], and when it is longer than `most` bytes.
    pub(in crate::image::registry) fn document(&mut self, most: u64, what: &str) -> Result<Vec<u8>> {
        let limit = self.http.deadlines.document;
        let until = Instant::now() + limit;
        let too_long = || RegistryError::TooLong { what: what.to_owned(), most };
        if self.length.is_some_and(|length| length > most) {
            return Err(too_long());
        }
        let mut bytes = Vec::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            match self.attempt(&mut buffer, until) {
                Ok(0) => return Ok(bytes),
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                Err(fault) => return Err(self.broken(fault, limit)),
            }
            if bytes.len() as u64 > most {
                return Err(too_long());
            }
        }
    }

    /// Reads over what is left when that is little, so that the connection can be used again.
    pub(in crate::image::registry) fn drain(mut self) {
        let until = Instant::now() + Duration::from_secs(1);
        let mut buffer = vec![0; BUFFER];
        let mut read = 0;
        while read < DRAINED {
            match self.attempt(&mut buffer, until) {
                Ok(count) if count > 0 => read += count,
                _ => return,
            }
        }
    }

    fn attempt(&mut self, into: &mut [u8], until: Instant) -> Result<usize, Fault> {
        let Some(connection) = self.connection.as_mut() else { return Ok(0) };
        let count = piece(connection, &mut self.left, into, until)?;
        if count == 0 || self.left == Left::Bytes(0) {
            self.end();
        }
        Ok(count)
    }

    /// Gives the connection up and says why.
    fn broken(&mut self, fault: Fault, after: Duration) -> RegistryError {
        self.connection = None;
        let url = self.url.clone();
        match fault {
            Fault::Broken(Broken::Interrupted) => RegistryError::Interrupted,
            Fault::Broken(Broken::Late) => RegistryError::TimedOut { url, what: "too little came", after },
            Fault::Broken(Broken::Io(source) | Broken::Source(source)) => RegistryError::Transfer { url, source },
            Fault::Malformed(what) => RegistryError::Malformed { url, what },
        }
    }
}

/// Reads some bytes of a body; 0 when it has ended as it should.
fn piece(connection: &mut Connection<'_>, left: &mut Left, into: &mut [u8], until: Instant) -> Result<usize, Fault> {
    let space = into.len();
    let room = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX).min(space);
    let cut = || Fault::Broken(Broken::Io(io::ErrorKind::UnexpectedEof.into()));
    match *left {
        Left::Nothing | Left::Bytes(0) => Ok(0),
        Left::All => Ok(connection.some(into, until)?),
        Left::Bytes(bytes) => match connection.some(&mut into[..room(bytes)], until)? {
            0 => Err(cut()),
            count => {
                *left = Left::Bytes(bytes - count as u64);
                Ok(count)
            }
        },
        Left::Piece { mut bytes, first } => {
            if bytes == 0 {
                if !first && !connection.line(until)?.is_empty() {
                    return Err(Fault::Malformed("a piece of the answer is longer than it says"));
                }
                bytes = chunk_length(&connection.line(until)?).map_err(Fault::Malformed)?;
                if bytes == 0 {
                    let mut trailer = 0;
                    loop {
                        let line = connection.line(until)?;
                        trailer += line.len();
                        if line.is_empty() {
                            *left = Left::Nothing;
                            return Ok(0);
                        }
                        if trailer > MAX_HEAD {
                            return Err(Fault::Malformed("the end of the answer is longer than 64 KiB"));
                        }
                    }
                }
            }
            match connection.some(&mut into[..room(bytes)], until)? {
                0 => Err(cut()),
                count => {
                    *left = Left::Piece { bytes: bytes - count as u64, first: false };
                    Ok(count)
                }
            }
        }
    }
}

//! The container's standard streams: from its pipes or terminal to the log and to attached clients, and from them to
//! its stdin.
//!
//! Nothing is lost and nothing grows without bound: a client that is slow to read stops the reading of the container's
//! output, which in the end stops the writer, as in Docker; a client that is gone is dropped. The pipes are watched
//! edge-triggered, so that the kernel hands them over in the order in which they were written to first: what is written
//! to one stream after the other keeps its order in the log.

use super::client_stream::ClientStream;
use super::error::{ShimError, io_error};
use super::log::{LogStream, LogWriter, MAX_PAYLOAD};
use super::plan::LogPlan;
use super::poller::{Poller, Token, read_some, set_nonblocking};
use crate::base::Timestamp;
use rustix::event::epoll::EventFlags;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Size of the read buffer while little is written.
const SMALL: usize = 4 << 10;
/// Size of the read buffer, and of the container's pipes, while a lot is written.
const LARGE: usize = MAX_PAYLOAD;
/// Reads in a row before other events get their turn.
const TURN: usize = 16;
/// Bytes of stdin kept for a container that does not read.
const STDIN_LIMIT: usize = 64 << 10;
/// Silence after which the large buffer is given back.
const IDLE: Duration = Duration::from_secs(1);

/// An output of the container.
#[derive(Debug)]
struct Output {
    descriptor: OwnedFd,
    stream: LogStream,
    token: Token,
    /// Whether bytes are (or may be) waiting that no further event will tell of.
    more: bool,
}

/// All streams of a container.
#[derive(Debug)]
pub(super) struct Streams {
    log: Option<LogWriter>,
    /// Chunks the log could not take (disk full).
    pub(super) lost: u64,
    outputs: Vec<Output>,
    /// Write end of stdin, unless there is a terminal.
    stdin: Option<OwnedFd>,
    stdin_buffer: Vec<u8>,
    stdin_ended: bool,
    terminal: bool,
    clients: BTreeMap<u32, ClientStream>,
    next_client: u32,
    buffer: Vec<u8>,
    last_large: Option<Instant>,
}

impl Streams {
    /// Opens the log.
    pub(super) fn new(log: Option<&LogPlan>) -> Result<Self, ShimError> {
        Ok(Self {
            log: log.map(LogWriter::open).transpose()?,
            lost: 0,
            outputs: Vec::new(),
            stdin: None,
            stdin_buffer: Vec::new(),
            stdin_ended: false,
            terminal: false,
            clients: BTreeMap::new(),
            next_client: 0,
            buffer: Vec::new(),
            last_large: None,
        })
    }

    /// Makes the pipes of the next run and returns the container's ends; none for a terminal, which the sandbox makes.
    pub(super) fn open(
        &mut self,
        poller: &Poller,
        terminal: bool,
        stdin_open: bool,
    ) -> Result<Option<[OwnedFd; 3]>, ShimError> {
        self.close();
        self.terminal = terminal;
        if terminal {
            return Ok(None);
        }
        let fail = || io_error("make the container's pipes");
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(fail());
        let ((out, out_child), (err, err_child)) = (pipe()?, pipe()?);
        self.add_output(poller, out, LogStream::Stdout, Token::Stdout).map_err(fail())?;
        self.add_output(poller, err, LogStream::Stderr, Token::Stderr).map_err(fail())?;
        let stdin = if stdin_open {
            let (child, ours) = pipe()?;
            set_nonblocking(&ours).map_err(fail())?;
            poller.watch(&ours, Token::Stdin, EventFlags::OUT | EventFlags::ET).map_err(fail())?;
            self.stdin = Some(ours);
            child
        } else {
            rustix::fs::open(
                "/dev/null",
                rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            )
            .map_err(io_error("open /dev/null"))?
        };
        Ok(Some([stdin, out_child, err_child]))
    }

    /// Takes over the master of the terminal the sandbox made.
    pub(super) fn set_terminal(&mut self, poller: &Poller, master: OwnedFd) -> Result<(), Errno> {
        self.add_output(poller, master, LogStream::Stdout, Token::Stdout)
    }

    fn add_output(
        &mut self,
        poller: &Poller,
        descriptor: OwnedFd,
        stream: LogStream,
        token: Token,
    ) -> Result<(), Errno> {
        set_nonblocking(&descriptor)?;
        let writable = if self.terminal { EventFlags::OUT } else { EventFlags::empty() };
        poller.watch(&descriptor, token, EventFlags::IN | EventFlags::ET | writable)?;
        // What is there already is an event, too. A look without one would ask stdout first, whatever was written first.
        self.outputs.push(Output { descriptor, stream, token, more: false });
        Ok(())
    }

    /// Changes the terminal's size.
    pub(super) fn resize(&self, rows: u16, columns: u16) -> Result<(), Errno> {
        match self.outputs.first().filter(|_| self.terminal) {
            Some(output) => {
                let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
                rustix::termios::tcsetwinsize(&output.descriptor, size)
            }
            None => Err(Errno::NOTTY),
        }
    }

    /// Adds an attached client and returns its end of the stream.
    pub(super) fn attach(&mut self, poller: &Poller, input: bool, output: bool) -> Result<OwnedFd, Errno> {
        let (ours, theirs) = super::codec::socket_pair()?;
        let number = self.next_client;
        self.next_client += 1;
        self.clients.insert(number, ClientStream::new(poller, number, ours, input, output)?);
        Ok(theirs)
    }

    /// Number of attached clients.
    pub(super) fn client_count(&self) -> usize {
        self.clients.len()
    }

    /// Handles an event of the container's streams or of a client.
    pub(super) fn handle(&mut self, poller: &Poller, token: Token, flags: EventFlags) {
        match token {
            Token::Stdin => self.flush_stdin(poller),
            Token::Client(number) => self.client_event(poller, number, flags),
            _ => {
                if let Some(output) = self.outputs.iter_mut().find(|output| output.token == token) {
                    output.more |= flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR);
                }
                if self.terminal && flags.contains(EventFlags::OUT) {
                    self.flush_stdin(poller);
                }
                self.pump_token(poller, token);
            }
        }
    }

    /// Goes on with what an earlier turn left; true when there is still more to do at once.
    pub(super) fn pump(&mut self, poller: &Poller) -> bool {
        for token in [Token::Stdout, Token::Stderr] {
            self.pump_token(poller, token);
        }
        !self.congested() && self.outputs.iter().any(|output| output.more)
    }

    fn pump_token(&mut self, poller: &Poller, token: Token) {
        let Some(at) = self.outputs.iter().position(|output| output.token == token) else { return };
        for _ in 0..TURN {
            if !self.outputs[at].more || self.congested() {
                return;
            }
            if !self.read_once(poller, at) {
                self.outputs.remove(at);
                return;
            }
        }
    }

    /// Reads once from an output; false at its end.
    fn read_once(&mut self, poller: &Poller, at: usize) -> bool {
        if self.buffer.is_empty() {
            self.buffer.resize(SMALL, 0);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let output = &mut self.outputs[at];
        let got = read_some(&output.descriptor, &mut buffer);
        let (stream, alive) = (output.stream, !matches!(got, Ok(Some(0)) | Err(_)));
        let read = got.ok().flatten().unwrap_or(0);
        // A pipe that gave less than asked for is empty; a terminal gives one write at a time.
        output.more = read == buffer.len() || (self.terminal && read > 0);
        if read == SMALL && buffer.len() == SMALL && !self.terminal {
            // A bigger pipe means fewer turns; a refusal (the user's pipe quota) leaves the default of 64 KiB.
            let _ = rustix::pipe::fcntl_setpipe_size(&output.descriptor, LARGE);
        }
        if read > 0 {
            self.distribute(poller, stream, &buffer[..read]);
        }
        if read == buffer.len() {
            if read == SMALL {
                buffer = vec![0; LARGE];
            }
            self.last_large = Some(Instant::now());
        }
        self.buffer = buffer;
        alive
    }

    fn distribute(&mut self, poller: &Poller, stream: LogStream, bytes: &[u8]) {
        if let Some(log) = &mut self.log
            && log.append(stream, Timestamp::now(), bytes).is_err()
        {
            self.lost += 1;
        }
        self.clients.retain(|number, client| client.output(poller, *number, stream.number(), bytes));
    }

    fn congested(&self) -> bool {
        self.clients.values().any(ClientStream::congested)
    }

    fn client_event(&mut self, poller: &Poller, number: u32, flags: EventFlags) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let mut alive = client.flush(poller, number);
        if alive && client.takes_input() && flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP) {
            let room = STDIN_LIMIT.saturating_sub(self.stdin_buffer.len());
            let ended = client.input(poller, number, &mut self.stdin_buffer, room);
            // A client that closed altogether has detached; one that only stopped sending has said "end of file".
            self.stdin_ended |= ended && !flags.contains(EventFlags::HUP);
        }
        alive &= !flags.intersects(EventFlags::HUP | EventFlags::ERR);
        if !alive {
            self.clients.remove(&number);
        }
        self.flush_stdin(poller);
    }

    /// Writes what clients sent to the container's stdin, as far as it takes it.
    fn flush_stdin(&mut self, poller: &Poller) {
        let target =
            if self.terminal { self.outputs.first().map(|output| &output.descriptor) } else { self.stdin.as_ref() };
        let mut broken = target.is_none();
        let mut written = 0;
        while let Some(target) = target
            && written < self.stdin_buffer.len()
        {
            match rustix::io::write(target, &self.stdin_buffer[written..]) {
                Ok(n) => written += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        self.stdin_buffer.drain(..written);
        if broken {
            // Nobody reads any more: what clients send from now on is dropped, as a pipe would.
            self.stdin_buffer = Vec::new();
            self.stdin = None;
        }
        if self.stdin_buffer.is_empty() {
            self.stdin_buffer = Vec::new();
            if self.stdin_ended {
                self.stdin = None;
            }
            for (number, client) in &mut self.clients {
                client.resume_input(poller, *number);
            }
        }
    }

    /// Reads what is left after the container's last process ended; clients take it however slow they are.
    pub(super) fn drain(&mut self, poller: &Poller) {
        for at in (0..self.outputs.len()).rev() {
            // A process outside the container may hold a pipe open and write on; a pipe full is all that is owed.
            for _ in 0..64 {
                self.outputs[at].more = true;
                if !self.read_once(poller, at) || !self.outputs[at].more {
                    break;
                }
            }
        }
        self.close();
    }

    fn close(&mut self) {
        self.outputs.clear();
        self.stdin = None;
        self.stdin_buffer = Vec::new();
        self.stdin_ended = false;
    }

    /// Tells every client the exit code and that nothing follows.
    pub(super) fn end(&mut self, poller: &Poller, code: i32) {
        let code = code.to_string();
        self.clients.retain(|number, client| client.end(poller, *number, code.as_bytes()));
        self.buffer = Vec::new();
    }

    /// Tells whether a client has not taken all of its bytes yet.
    pub(super) fn unsent(&self) -> bool {
        self.clients.values().any(ClientStream::unsent)
    }

    /// Returns when the large buffer may be given back.
    pub(super) fn idle_at(&self) -> Option<Instant> {
        self.last_large.map(|at| at + IDLE)
    }

    /// Gives the large buffer back after a second of silence.
    pub(super) fn trim(&mut self, now: Instant) {
        if self.idle_at().is_some_and(|at| at <= now) {
            self.last_large = None;
            self.buffer = Vec::new();
        }
    }
}

//! Streams of an added process without a terminal.
//!
//! The process never gets our own descriptors: through `/proc/self/fd` it could open the files behind them anew, and a
//! terminal of the host could be typed into. It gets pipes, and we copy.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes copied at once.
const CHUNK: usize = 64 << 10;

/// Our ends of the pipes.
pub(super) struct Relay {
    stdin: Option<OwnedFd>,
    outputs: [Option<OwnedFd>; 2],
}

/// The process's ends.
pub(super) struct Ends {
    /// Its input, if it has one.
    pub(super) stdin: Option<OwnedFd>,
    /// Its output.
    pub(super) stdout: OwnedFd,
    /// Its error output.
    pub(super) stderr: OwnedFd,
}

impl Relay {
    /// Makes the pipes.
    pub(super) fn new(interactive: bool) -> std::io::Result<(Self, Ends)> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC);
        let (out, stdout) = pipe()?;
        let (err, stderr) = pipe()?;
        let (stdin, input) = if interactive { Some(pipe()?) } else { None }.unzip();
        Ok((Self { stdin: input, outputs: [Some(out), Some(err)] }, Ends { stdin, stdout, stderr }))
    }

    /// Copies until both outputs have ended, or the process has (`done` becomes readable) and nothing is left in them.
    pub(super) fn copy(mut self, done: BorrowedFd<'_>) -> std::io::Result<()> {
        let (input, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let targets = [stdout.as_fd(), stderr.as_fd()];
        let mut buffer = vec![0u8; CHUNK];
        while self.outputs.iter().any(Option::is_some) {
            let (ended, readable, typed) = self.wait(done, input.as_fd())?;
            for (index, target) in targets.into_iter().enumerate() {
                if readable[index]
                    && let Some(output) = &self.outputs[index]
                    && copy_once(output.as_fd(), target, &mut buffer)? == 0
                {
                    self.outputs[index] = None;
                }
            }
            // A child of it in the background may hold the pipes for ever.
            if ended && readable == [false, false] {
                return Ok(());
            }
            if typed && let Some(pipe) = &self.stdin {
                match copy_once(input.as_fd(), pipe.as_fd(), &mut buffer) {
                    Ok(0) => self.stdin = None,
                    // It reads no more.
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => self.stdin = None,
                    other => drop(other?),
                }
            }
        }
        Ok(())
    }

    /// Waits for anything to happen: whether the process has ended, which outputs and whether our input can be read.
    fn wait(&self, done: BorrowedFd<'_>, input: BorrowedFd<'_>) -> std::io::Result<(bool, [bool; 2], bool)> {
        let mut polled = vec![PollFd::from_borrowed_fd(done, PollFlags::IN)];
        let open: Vec<usize> = (0..2).filter(|index| self.outputs[*index].is_some()).collect();
        polled.extend(self.outputs.iter().flatten().map(|output| PollFd::new(output, PollFlags::IN)));
        if self.stdin.is_some() {
            polled.push(PollFd::from_borrowed_fd(input, PollFlags::IN));
        }
        while let Err(errno) = poll(&mut polled, None) {
            if errno != Errno::INTR {
                return Err(errno.into());
            }
        }
        let happened: Vec<bool> = polled.iter().map(|one| !one.revents().is_empty()).collect();
        let mut readable = [false; 2];
        for (place, index) in open.iter().enumerate() {
            readable[*index] = happened[1 + place];
        }
        Ok((happened[0], readable, self.stdin.is_some() && happened[1 + open.len()]))
    }
}

/// Reads once and writes all of it; returns how much.
fn copy_once(from: BorrowedFd<'_>, to: BorrowedFd<'_>, buffer: &mut [u8]) -> std::io::Result<usize> {
    let length = loop {
        match rustix::io::read(from, &mut *buffer) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut rest = &buffer[..length];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => drop(poll(&mut [PollFd::from_borrowed_fd(to, PollFlags::OUT)], None)),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(length)
}

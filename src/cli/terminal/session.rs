//! Copying between the user's streams and an attached container's, in one thread.

use super::frames::Frames;
use super::raw::RawMode;
use super::signals::Signals;
use super::{stdin_is_terminal, window_size};
use crate::cli::context::named;
use crate::cli::detach::{DetachKeys, Typed};
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use std::io;

/// Largest piece copied at once, in bytes.
const PIECE: usize = 64 << 10;
/// SIGINT and SIGTERM passed on after which the user is let go of a container that heeds none of them, as with Docker.
const URGENT: u32 = 3;

/// Who carries out what the terminal asks for.
pub(in crate::cli) trait Remote {
    /// Changes the size of the container's terminal.
    fn resize(&mut self, rows: u16, columns: u16);
    /// Sends a signal to the container.
    fn signal(&mut self, number: i32);
}

/// How the other side speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Framing {
    /// Frames as in `shim::protocol`: streams 1 and 2, and 3 with the exit code.
    Frames,
    /// Bytes as they are: the master of a terminal.
    Raw,
}

/// What is to be copied.
pub(in crate::cli) struct Session<'a> {
    /// The other side.
    pub(in crate::cli) stream: BorrowedFd<'a>,
    /// How it speaks.
    pub(in crate::cli) framing: Framing,
    /// Whether our stdin goes there.
    pub(in crate::cli) stdin: bool,
    /// Whether it has a terminal: keys may detach, and our signals are our own.
    pub(in crate::cli) tty: bool,
    /// Whether our signals are passed on.
    pub(in crate::cli) forward_signals: bool,
    /// Detach keys.
    pub(in crate::cli) keys: DetachKeys,
    /// Which of stdout and stderr are shown.
    pub(in crate::cli) show: [bool; 2],
    /// How often the container was asked to end so far.
    pub(in crate::cli) urged: u32,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Ending {
    /// The container ended with this code.
    Exited(i32),
    /// The user typed the detach keys.
    Detached,
    /// The stream ended without a code.
    Closed,
    /// We were told to end by this signal, which was not passed on.
    Interrupted(i32),
    /// The container was asked to end by this signal, again and again, and goes on.
    Unheeded(i32),
}

/// Writes all bytes to a descriptor that may be slow.
fn write_all(descriptor: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(descriptor, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&descriptor, PollFlags::OUT)], None);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// What one look at our signals found.
enum Told {
    Nothing,
    End(i32),
    Leave(i32),
}

impl Session<'_> {
    /// Copies until the container ends, the stream closes or the user detaches.
    ///
    /// # Errors
    /// When a descriptor fails; a reader of our stdout that has gone is `BrokenPipe`.
    pub(in crate::cli) fn copy(mut self, signals: &Signals, remote: &mut dyn Remote) -> io::Result<Ending> {
        let _raw = if self.tty && self.stdin && stdin_is_terminal() { Some(RawMode::enter()?) } else { None };
        if self.tty
            && let Some((rows, columns)) = window_size()
        {
            remote.resize(rows, columns);
        }
        let input = std::io::stdin();
        let mut reading = self.stdin;
        let mut pending: Vec<u8> = Vec::new();
        let mut closing = false;
        let mut buffer = vec![0u8; PIECE];
        let mut frames = Frames::default();
        loop {
            let stream = self.stream;
            let mut wanted = PollFlags::IN;
            if !pending.is_empty() {
                wanted |= PollFlags::OUT;
            }
            let mut polled = vec![PollFd::new(&stream, wanted), PollFd::new(&signals.descriptor, PollFlags::IN)];
            // Input is read only when the last piece has gone: a container that does not read slows nobody but itself.
            if reading && pending.is_empty() {
                polled.push(PollFd::new(&input, PollFlags::IN));
            }
            match poll(&mut polled, None) {
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
                Ok(_) => {}
            }
            let ready: Vec<PollFlags> = polled.iter().map(PollFd::revents).collect();
            if ready[1].intersects(PollFlags::IN) {
                match self.heed(signals, remote)? {
                    Told::Nothing => {}
                    Told::End(number) => return Ok(Ending::Interrupted(number)),
                    Told::Leave(number) => return Ok(Ending::Unheeded(number)),
                }
            }
            if ready[0].intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
                && let Some(ending) = self.receive(&mut buffer, &mut frames)?
            {
                return Ok(ending);
            }
            if ready[0].contains(PollFlags::OUT) && !pending.is_empty() {
                self.send(&mut pending, &mut reading)?;
            }
            if ready.get(2).is_some_and(|flags| flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)) {
                match rustix::io::read(&input, &mut buffer) {
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    Ok(0) | Err(_) => {
                        reading = false;
                        closing = true;
                    }
                    Ok(count) => match self.typed(&buffer[..count]) {
                        Typed::Forward(bytes) => pending = bytes,
                        Typed::Detach(bytes) => {
                            let _ = write_all(self.stream, &bytes);
                            return Ok(Ending::Detached);
                        }
                    },
                }
            }
            if closing && pending.is_empty() {
                closing = false;
                self.end_input();
            }
        }
    }

    fn typed(&mut self, bytes: &[u8]) -> Typed {
        if self.tty { self.keys.feed(bytes) } else { Typed::Forward(bytes.to_vec()) }
    }

    /// Says that no more input comes: the end of a socket's direction, or Ctrl-D on a terminal.
    fn end_input(&self) {
        match self.framing {
            Framing::Frames => {
                let _ = rustix::net::shutdown(self.stream, rustix::net::Shutdown::Write);
            }
            Framing::Raw => {
                let _ = rustix::io::write(self.stream, b"\x04");
            }
        }
    }

    /// Writes what fits of the input, without waiting.
    fn send(&self, pending: &mut Vec<u8>, reading: &mut bool) -> io::Result<()> {
        let result = match self.framing {
            Framing::Frames => rustix::net::send(
                self.stream,
                pending,
                rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL,
            ),
            // A terminal takes at least one byte when it polls writable; a small piece does not block for long.
            Framing::Raw => rustix::io::write(self.stream, &pending[..pending.len().min(256)]),
        };
        match result {
            Ok(count) => {
                pending.drain(..count);
                Ok(())
            }
            Err(Errno::INTR | Errno::AGAIN) => Ok(()),
            // The container closed its stdin: what it still writes is wanted all the same.
            Err(Errno::PIPE | Errno::CONNRESET | Errno::IO) => {
                pending.clear();
                *reading = false;
                Ok(())
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn receive(&self, buffer: &mut [u8], frames: &mut Frames) -> io::Result<Option<Ending>> {
        let count = match rustix::io::read(self.stream, &mut *buffer) {
            Ok(count) => count,
            Err(Errno::INTR | Errno::AGAIN) => return Ok(None),
            // A terminal whose last process has gone reads as an error.
            Err(Errno::IO | Errno::CONNRESET) => 0,
            Err(errno) => return Err(errno.into()),
        };
        if count == 0 {
            return Ok(Some(Ending::Closed));
        }
        let show = self.show;
        let mut write = |stream: u8, bytes: &[u8]| match stream {
            1 if show[0] => write_all(std::io::stdout().as_fd(), bytes).map_err(named("stdout")),
            2 if show[1] => write_all(std::io::stderr().as_fd(), bytes).map_err(named("stderr")),
            _ => Ok(()),
        };
        match self.framing {
            Framing::Raw => write(1, &buffer[..count]).map(|()| None),
            Framing::Frames => Ok(frames.feed(&buffer[..count], &mut write)?.map(Ending::Exited)),
        }
    }

    fn heed(&mut self, signals: &Signals, remote: &mut dyn Remote) -> io::Result<Told> {
        while let Some(info) = signals.descriptor.read_signal()? {
            let number = info.ssi_signo as i32;
            if number == Signal::SIGWINCH as i32 {
                if self.tty
                    && let Some((rows, columns)) = window_size()
                {
                    remote.resize(rows, columns);
                }
            } else if self.forward_signals && !self.tty {
                remote.signal(number);
                self.urged += u32::from(number == Signal::SIGINT as i32 || number == Signal::SIGTERM as i32);
                if self.urged >= URGENT {
                    return Ok(Told::Leave(number));
                }
            } else if number != Signal::SIGCONT as i32 && number != Signal::SIGTSTP as i32 {
                return Ok(Told::End(number));
            }
        }
        Ok(Told::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::frame;
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    struct Deaf;
    impl Remote for Deaf {
        fn resize(&mut self, _: u16, _: u16) {}
        fn signal(&mut self, _: i32) {}
    }

    /// A session that only shows what comes.
    fn listening(stream: BorrowedFd<'_>) -> Session<'_> {
        Session {
            stream,
            framing: Framing::Frames,
            stdin: false,
            tty: false,
            forward_signals: false,
            keys: DetachKeys::parse("").unwrap(),
            show: [true, true],
            urged: 0,
        }
    }

    #[test]
    fn the_exit_code_ends_the_session() {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        rustix::io::write(&theirs, &frame(3, b"7")).unwrap();
        let session = listening(ours.as_fd());
        let signals = Signals::take().unwrap();
        assert_eq!(session.copy(&signals, &mut Deaf).unwrap(), Ending::Exited(7));
    }

    #[test]
    fn a_stream_that_closes_early_is_no_exit_code() {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        drop(theirs);
        let session = listening(ours.as_fd());
        assert_eq!(session.copy(&Signals::take().unwrap(), &mut Deaf).unwrap(), Ending::Closed);
    }
}

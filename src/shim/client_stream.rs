//! One attached client: frames towards it, bytes of stdin from it.

use super::codec::send_some;
use super::poller::{Poller, Token};
use rustix::event::epoll::EventFlags;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown};

/// Bytes kept for a client before it counts as slow.
const SLOW: usize = 256 << 10;
/// Stream number of the frame that ends a stream.
const END: u8 = 3;

/// One attached client.
#[derive(Debug)]
pub(super) struct ClientStream {
    socket: OwnedFd,
    input: bool,
    output: bool,
    /// Frames not yet sent, from `sent` on.
    outbox: Vec<u8>,
    sent: usize,
    /// Whether its input waits until the container has read what came before.
    input_held: bool,
    interest: EventFlags,
}

impl ClientStream {
    /// Takes over our end of a client's stream.
    pub(super) fn new(poller: &Poller, number: u32, socket: OwnedFd, input: bool, output: bool) -> Result<Self, Errno> {
        let interest = if input { EventFlags::IN | EventFlags::RDHUP } else { EventFlags::empty() };
        poller.watch(&socket, Token::Client(number), interest)?;
        Ok(Self { socket, input, output, outbox: Vec::new(), sent: 0, input_held: false, interest })
    }

    /// Tells whether it sends stdin.
    pub(super) fn takes_input(&self) -> bool {
        self.input
    }

    /// Tells whether the container's output must wait for this client.
    pub(super) fn congested(&self) -> bool {
        self.outbox.len() - self.sent > SLOW
    }

    /// Tells whether it has not taken all of its bytes yet.
    pub(super) fn unsent(&self) -> bool {
        self.sent < self.outbox.len()
    }

    /// Sends a chunk of output; false when the client is gone.
    pub(super) fn output(&mut self, poller: &Poller, number: u32, stream: u8, bytes: &[u8]) -> bool {
        !self.output || self.frame(poller, number, stream, bytes)
    }

    /// Sends the last frame and ends our direction; false when the client is gone.
    pub(super) fn end(&mut self, poller: &Poller, number: u32, code: &[u8]) -> bool {
        self.frame(poller, number, END, code)
    }

    fn frame(&mut self, poller: &Poller, number: u32, stream: u8, bytes: &[u8]) -> bool {
        let mut header = [stream, 0, 0, 0, 0, 0, 0, 0];
        header[4..].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
        self.outbox.extend_from_slice(&header);
        self.outbox.extend_from_slice(bytes);
        self.flush(poller, number)
    }

    /// Sends what it takes of its outbox; false when the client is gone.
    pub(super) fn flush(&mut self, poller: &Poller, number: u32) -> bool {
        while self.unsent() {
            match send_some(self.socket.as_fd(), &self.outbox[self.sent..], &[]) {
                Ok(n) => self.sent += n,
                Err(Errno::AGAIN) => break,
                Err(_) => return false,
            }
        }
        if !self.unsent() {
            (self.outbox, self.sent) = (Vec::new(), 0);
        } else if self.sent > SLOW {
            self.outbox.drain(..self.sent);
            self.sent = 0;
        }
        self.set_interest(poller, number)
    }

    /// Moves at most `room` bytes of its stdin to `buffer`; true at its end of file.
    pub(super) fn input(&mut self, poller: &Poller, number: u32, buffer: &mut Vec<u8>, room: usize) -> bool {
        let mut ended = false;
        if room == 0 {
            self.input_held = true;
        } else {
            let filled = buffer.len();
            buffer.resize(filled + room.min(16 << 10), 0);
            let got = rustix::net::recv(&self.socket, &mut buffer[filled..], RecvFlags::DONTWAIT);
            buffer.truncate(filled + got.map_or(0, |(n, _)| n));
            ended = matches!(got, Ok((0, _)));
        }
        self.input &= !ended;
        self.set_interest(poller, number);
        ended
    }

    /// Reads its input again after the container has taken what came before.
    pub(super) fn resume_input(&mut self, poller: &Poller, number: u32) {
        if std::mem::take(&mut self.input_held) {
            self.set_interest(poller, number);
        }
    }

    fn set_interest(&mut self, poller: &Poller, number: u32) -> bool {
        let mut wanted = EventFlags::empty();
        if self.input && !self.input_held {
            wanted |= EventFlags::IN | EventFlags::RDHUP;
        }
        if self.unsent() {
            wanted |= EventFlags::OUT;
        }
        if wanted == self.interest {
            return true;
        }
        self.interest = wanted;
        poller.change(&self.socket, Token::Client(number), wanted).is_ok()
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        // The client sees the end even if a forked process still holds the socket for a moment.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }
}

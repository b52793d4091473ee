//! A digest of many bytes, computed on a thread of its own while more of them are read.

use crate::base::{Digest, Sha256};
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

/// Bytes handed over at once: they stay in a processor's cache from one side to the other.
const PIECE: usize = 256 << 10;
/// Pieces on their way at most.
const WAITING: usize = 4;

/// Takes bytes and hashes them in order. Fewer than a piece of them are hashed where they are.
#[derive(Debug)]
pub(super) struct Hasher {
    beside: Option<Beside>,
    piece: Vec<u8>,
    filled: usize,
    /// Bytes taken so far.
    length: u64,
}

/// A thread that hashes.
#[derive(Debug)]
struct Beside {
    full: SyncSender<(Vec<u8>, usize)>,
    empty: Receiver<Vec<u8>>,
    thread: JoinHandle<Sha256>,
}

impl Hasher {
    pub(super) fn new() -> Self {
        Self { beside: None, piece: Vec::new(), filled: 0, length: 0 }
    }

    /// Takes what `read` puts into the space it is given, and returns what it did: nothing is copied on the way. The space is at
    /// most `most` bytes, and at least one.
    ///
    /// # Errors
    /// Those of `read`, and when no thread can be started.
    pub(super) fn read(&mut self, most: u64, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<&[u8]> {
        if self.filled == self.piece.len() {
            self.hand_over()?;
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(self.piece.len() - self.filled);
        let from = self.filled;
        let count = read(&mut self.piece[from..from + most])?;
        self.filled += count;
        self.length += count as u64;
        Ok(&self.piece[from..self.filled])
    }

    /// Gives a full piece away and takes an empty one.
    fn hand_over(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            self.piece = vec![0; PIECE];
            return Ok(());
        }
        let beside = match self.beside.take() {
            Some(beside) => beside,
            None => Beside::start()?,
        };
        let piece = beside.empty.try_recv().unwrap_or_else(|_| vec![0; PIECE]);
        // It can only have ended in a panic, which the last call tells.
        let _ = beside.full.send((std::mem::replace(&mut self.piece, piece), self.filled));
        self.filled = 0;
        self.beside = Some(beside);
        Ok(())
    }

    /// Returns the digest of all that was taken, and how many bytes that was.
    pub(super) fn finish(mut self) -> (Digest, u64) {
        let mut hash = self.beside.take().map_or_else(Sha256::new, Beside::end);
        hash.update(&self.piece[..self.filled]);
        (hash.finish(), self.length)
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let copied = self.read(bytes.len() as u64, |space| {
            space.copy_from_slice(&bytes[..space.len()]);
            Ok(space.len())
        });
        copied.map(<[u8]>::len)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        // Whoever gave it up has failed with something else, and may fork: that is for processes with one thread.
        let _ = self.beside.take().map(Beside::end);
    }
}

impl Beside {
    fn start() -> io::Result<Self> {
        let (full, pieces) = sync_channel::<(Vec<u8>, usize)>(WAITING);
        let (back, empty) = channel();
        let work = move || {
            let mut hash = Sha256::new();
            for (piece, filled) in pieces {
                hash.update(&piece[..filled]);
                // Nobody wants the last ones back.
                let _ = back.send(piece);
            }
            hash
        };
        Ok(Self { full, empty, thread: std::thread::Builder::new().spawn(work)? })
    }

    /// Waits until all is hashed.
    fn end(self) -> Sha256 {
        drop(self.full);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_all_bytes_in_order() {
        let bytes: Vec<u8> = (0..PIECE * 9 + 77).map(|at| (at / 251 % 256) as u8).collect();
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, PIECE * 2, bytes.len()] {
            for step in [1 << 12, 100_003, bytes.len()] {
                let mut hasher = Hasher::new();
                for chunk in bytes[..length].chunks(step) {
                    hasher.write_all(chunk).unwrap();
                }
                assert_eq!(hasher.finish(), (Digest::of(&bytes[..length]), length as u64), "{length} by {step}");
            }
        }
    }

    #[test]
    fn what_is_read_into_it_is_given_back_and_counted() {
        let bytes: Vec<u8> = (0..PIECE * 3).map(|at| at as u8).collect();
        let (mut hasher, mut rest) = (Hasher::new(), &bytes[..]);
        hasher.write_all(b"first").unwrap();
        while !rest.is_empty() {
            let got = hasher.read(70_000, |space| io::Read::read(&mut rest, space)).unwrap().to_vec();
            let at = bytes.len() - rest.len();
            assert!(!got.is_empty() && got.len() <= 70_000 && got == bytes[at - got.len()..at]);
        }
        assert!(hasher.read(1, |_| Err(io::ErrorKind::Other.into())).is_err());
        let (digest, length) = hasher.finish();
        assert_eq!((digest, length), (Digest::of(&[b"first", &bytes[..]].concat()), 5 + bytes.len() as u64));
    }
}

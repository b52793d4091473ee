//! Files on their way to the disk while something else is done with them.

use super::tree;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Files that wait at most.
const WAITING: usize = 8;

/// A thread that starts the writing of files: the kernel finds room for all of a file before it says that it has begun.
/// There is none before the first file.
#[derive(Debug, Default)]
pub(super) struct Early(Option<Thread>);

/// Where it takes files from, and what it ends with.
type Thread = (SyncSender<(File, u64)>, JoinHandle<io::Result<()>>);

impl Early {
    /// Takes a file of a length.
    pub(super) fn take(&mut self, file: &File, length: u64) -> io::Result<()> {
        if self.0.is_none() {
            let (sender, receiver) = sync_channel::<(File, u64)>(WAITING);
            let one = |(file, length): (File, u64)| Ok(tree::write_back(file.as_fd(), 0, length)?);
            let thread = std::thread::Builder::new().spawn(move || receiver.into_iter().try_for_each(one))?;
            self.0 = Some((sender, thread));
        }
        let file = file.try_clone()?;
        match self.0.as_ref().map(|(sender, _)| sender.send((file, length))) {
            // It has ended, and knows why.
            Some(Err(_)) => self.finish(),
            _ => Ok(()),
        }
    }

    /// Waits until all writing has begun.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let Some((sender, thread)) = self.0.take() else { return Ok(()) };
        drop(sender);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        // Whoever did not ask has failed with something else.
        let _ = self.finish();
    }
}

//! The same work on many things, by several threads.

use super::Entry;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;

/// Things that wait for each thread at most.
const WAITING: usize = 16;
/// Bytes and files from which on several threads read or write: below, making them takes longer than it saves.
const SEVERAL: (u64, usize) = (8 << 20, 200);
/// Most threads. Files that are not in memory are waited for, so that more of them help than there are processors.
const MOST_WORKERS: usize = 4;

/// How many threads are worth their making for some files.
pub(super) fn workers<'e>(entries: impl IntoIterator<Item = &'e Entry>) -> usize {
    let (mut bytes, mut count) = (0, 0);
    for entry in entries {
        bytes += entry.bytes();
        count += 1;
    }
    if count > 1 && (bytes >= SEVERAL.0 || count >= SEVERAL.1) { MOST_WORKERS } else { 0 }
}

/// Has `work` done on everything that `produce` gives, by so many threads, or at once where that is none; ends when all is
/// done.
///
/// # Errors
/// The first failure of either; what was given after it is not begun.
pub(super) fn side_by_side<T: Send, E: Send>(
    threads: usize,
    work: impl Fn(T) -> Result<(), E> + Sync,
    produce: impl FnOnce(&mut dyn FnMut(T) -> Result<(), E>) -> Result<(), E>,
) -> Result<(), E> {
    if threads == 0 {
        return produce(&mut |thing| work(thing));
    }
    let (failed, failure) = (AtomicBool::new(false), Mutex::new(None));
    let lock = || failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (sender, receiver) = sync_channel::<T>(threads * WAITING);
    let receiver = Mutex::new(receiver);
    let next = || receiver.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv().ok();
    let run = || {
        while let Some(thing) = next() {
            // Once something has failed the rest is taken and left, so that nobody waits to give it.
            if !failed.load(Ordering::Relaxed)
                && let Err(error) = work(thing)
            {
                lock().get_or_insert(error);
                failed.store(true, Ordering::Relaxed);
            }
        }
    };
    let produced = std::thread::scope(|scope| {
        let mut begun = 0;
        for _ in 0..threads {
            begun += usize::from(std::thread::Builder::new().spawn_scoped(scope, run).is_ok());
        }
        let produced = produce(&mut |thing| {
            // Held no longer than this: a worker that fails waits for it.
            let error = lock().take();
            match error {
                Some(error) => Err(error),
                // The system has no room for threads.
                None if begun == 0 => work(thing),
                None => {
                    // Receivers end with the sender.
                    let _ = sender.send(thing);
                    Ok(())
                }
            }
        });
        drop(sender);
        produced
    });
    produced?;
    failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn everything_is_done_once_by_any_number_of_threads() {
        for threads in [0, 1, 4] {
            let seen = Mutex::new(BTreeSet::new());
            let work = |number: u32| -> Result<(), ()> {
                assert!(seen.lock().unwrap().insert(number), "{number} twice");
                Ok(())
            };
            side_by_side(threads, work, |give| (0..1000).try_for_each(give)).unwrap();
            assert_eq!(seen.into_inner().unwrap().len(), 1000);
        }
    }

    #[test]
    fn the_first_failure_ends_it_and_is_told() {
        for threads in [0, 1, 4] {
            let work = |number: u32| if number == 7 { Err(number) } else { Ok(()) };
            let mut given = 0;
            let result = side_by_side(threads, work, |give| {
                (0..100_000).try_for_each(|number| {
                    given += 1;
                    give(number)
                })
            });
            assert_eq!(result, Err(7));
            assert!(given < 100_000, "{threads}: all was given");
            let produced = side_by_side(threads, |_: u32| Ok(()), |_| Err(8));
            assert_eq!(produced, Err(8));
        }
    }
}

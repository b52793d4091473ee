//! The same work on many things, by several threads.

use super::Entry;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Most things that a thread takes at once.
const PORTION: usize = 32;
/// Bytes and files from which on several threads read or write: below, making them takes longer than it saves.
const SEVERAL: (u64, usize) = (8 << 20, 200);
/// Most threads. Files that are not in memory are waited for, so that more of them help than there are processors.
const MOST_WORKERS: usize = 4;

/// How many threads some files are worth.
pub(super) fn workers<'e>(entries: impl IntoIterator<Item = &'e Entry>) -> usize {
    let (mut bytes, mut count) = (0, 0);
    for entry in entries {
        bytes += entry.bytes();
        count += 1;
    }
    if count > 1 && (bytes >= SEVERAL.0 || count >= SEVERAL.1) { MOST_WORKERS } else { 1 }
}

/// Does `work` on each of some things, by so many threads, this one among them. Each keeps a state of its own from one thing
/// to the next.
///
/// # Errors
/// The first failure; things after it are not begun.
pub(super) fn side_by_side<'t, T: Sync, S: Default, E: Send>(
    threads: usize,
    things: &'t [T],
    work: impl Fn(&mut S, &'t T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    // Of few things, which may be large, each thread takes one.
    let portion = (things.len() / (threads.max(1) * 8)).clamp(1, PORTION);
    let (next, failed, failure) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
    let run = || {
        let mut state = S::default();
        while let Some(rest) = things.get(next.fetch_add(portion, Ordering::Relaxed)..) {
            if rest.is_empty() {
                return;
            }
            for thing in rest.iter().take(portion) {
                if failed.load(Ordering::Relaxed) {
                    return;
                }
                if let Err(error) = work(&mut state, thing) {
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    failed.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        // Where the system has no room for threads, this one does what is left to do.
        let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, run).is_ok();
        let _ = (1..threads).all(spawn);
        run();
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn everything_is_done_once_by_any_number_of_threads() {
        for (threads, count) in [(0, 1000), (1, 1000), (4, 0), (4, 1), (4, 7), (4, 33), (4, 100_000)] {
            let (seen, begun) = (Mutex::new(BTreeSet::new()), AtomicUsize::new(0));
            let work = |state: &mut Vec<u32>, number: &u32| -> Result<(), ()> {
                begun.fetch_add(usize::from(state.is_empty()), Ordering::Relaxed);
                state.push(*number);
                assert!(seen.lock().unwrap().insert(*number), "{number} twice");
                Ok(())
            };
            side_by_side(threads, &Vec::from_iter(0..count), work).unwrap();
            assert_eq!(seen.into_inner().unwrap().len(), count as usize);
            assert!(begun.into_inner() <= threads.max(1), "a state for each thread");
        }
    }

    #[test]
    fn the_first_failure_ends_it_and_is_told() {
        for threads in [0, 1, 4] {
            let done = AtomicUsize::new(0);
            let work = |(): &mut (), number: &u32| {
                done.fetch_add(1, Ordering::Relaxed);
                if *number == 7 { Err(*number) } else { Ok(()) }
            };
            assert_eq!(side_by_side(threads, &Vec::from_iter(0..1_000_000), work), Err(7));
            assert!(done.into_inner() < 1_000_000, "{threads}: all was done");
        }
    }
}

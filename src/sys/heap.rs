//! The heap of this program's Rust code: dlmalloc behind a lock of ours.
//!
//! The C library's allocator maps and unmaps pages for many small objects: a start of a container paid some hundred such
//! calls, each with a page fault. It stays in place for the C code (zstd, the C library itself).
#![allow(unsafe_code)]

use dlmalloc::Dlmalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU32, Ordering};

/// Under a sanitizer its own allocator stays, which watches every object.
#[cfg(not(fuzzing))]
#[global_allocator]
static HEAP: Heap = Heap::new();
#[cfg(fuzzing)]
static HEAP: Heap = Heap::new();

const FREE: u32 = 0;
const TAKEN: u32 = 1;
/// Taken, and somebody sleeps until it is free.
const AWAITED: u32 = 2;

/// An allocator and the lock in front of it (*futex(2)*).
struct Heap {
    lock: AtomicU32,
    inner: UnsafeCell<Dlmalloc>,
}

// SAFETY: `inner` is reached through `Heap::take` alone, whose guard one thread holds at a time.
unsafe impl Sync for Heap {}

/// The heap as long as nobody else may touch it.
struct Taken<'a>(&'a Heap);

impl Heap {
    const fn new() -> Self {
        Self { lock: AtomicU32::new(FREE), inner: UnsafeCell::new(Dlmalloc::new()) }
    }

    #[inline]
    fn take(&self) -> Taken<'_> {
        if self.lock.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.wait();
        }
        Taken(self)
    }

    #[cold]
    fn wait(&self) {
        // Another thread holds it for a few hundred instructions; beyond that it was interrupted.
        for _ in 0..100 {
            std::hint::spin_loop();
            if self.lock.load(Ordering::Relaxed) == FREE
                && self.lock.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return;
            }
        }
        while self.lock.swap(AWAITED, Ordering::Acquire) != FREE {
            let _ = rustix::thread::futex::wait(&self.lock, rustix::thread::futex::Flags::PRIVATE, AWAITED, None);
        }
    }
}

impl Taken<'_> {
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "the guard is what makes it exclusive; each holder asks once")]
    fn heap(&self) -> &mut Dlmalloc {
        // SAFETY: this guard is the only one (see `take`), and no reference outlives the call it was made for.
        unsafe { &mut *self.0.inner.get() }
    }
}

impl Drop for Taken<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.0.lock.swap(FREE, Ordering::Release) == AWAITED {
            let _ = rustix::thread::futex::wake(&self.0.lock, rustix::thread::futex::Flags::PRIVATE, 1);
        }
    }
}

// SAFETY: dlmalloc gives blocks of the layout asked for that overlap no other, and the lock makes one call at a time of all
// threads' calls; nothing here unwinds.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout is a valid one (GlobalAlloc's contract), which is all that is asked.
        unsafe { self.take().heap().malloc(layout.size(), layout.align()) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller gives a block of this allocator with the layout it was made with (GlobalAlloc's contract).
        unsafe { self.take().heap().free(block, layout.size(), layout.align()) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as `alloc`.
        unsafe { self.take().heap().calloc(layout.size(), layout.align()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as `dealloc`; the new size is not 0 and fits a layout (GlobalAlloc's contract).
        unsafe { self.take().heap().realloc(block, layout.size(), layout.align(), size) }
    }
}

/// Forks while no other thread is inside the heap, so that the child, which has only the calling thread, finds it whole.
/// Returns what fork(2) returns.
pub(super) fn fork() -> libc::pid_t {
    let _still = HEAP.take();
    // SAFETY: fork has no memory precondition; both processes give their copy of the lock back.
    unsafe { libc::fork() }
}

#[cfg(test)]
mod tests {
    use super::fork;
    use rustix::process::{Pid, WaitOptions, waitpid};
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Ends the threads also when the test fails.
    struct Done<'a>(&'a AtomicBool);

    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Runs `body` while three threads take and give back memory all the time.
    fn beside_busy_threads(body: impl FnOnce()) {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _ends = Done(&done);
            for size in [24, 900, 70_000] {
                let done = &done;
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        let block = std::hint::black_box(vec![size as u8; size]);
                        assert!(block.iter().all(|byte| *byte == size as u8));
                    }
                });
            }
            body();
        });
    }

    #[test]
    fn a_fork_of_a_busy_process_can_allocate() {
        beside_busy_threads(|| {
            for _ in 0..300 {
                let pid = fork();
                if pid == 0 {
                    // SAFETY: alarm(2) takes a number; the child waits for no lock longer than that.
                    unsafe { libc::alarm(10) };
                    let block = std::hint::black_box(vec![7u8; 3000]);
                    // SAFETY: _exit(2) does not return.
                    unsafe { libc::_exit(i32::from(block[2999] != 7)) }
                }
                let (_, status) = waitpid(Pid::from_raw(pid), WaitOptions::empty()).unwrap().unwrap();
                assert_eq!(status.exit_status(), Some(0), "{status:?}");
            }
        });
    }

    #[test]
    fn blocks_of_many_threads_do_not_overlap() {
        beside_busy_threads(|| {
            let mut blocks: Vec<Vec<u32>> = Vec::new();
            for number in 0..20_000_u32 {
                let mut block = vec![number; (number as usize * 37) % 700 + 1];
                block.extend([number; 9]);
                if blocks.len() < 200 {
                    blocks.push(block);
                } else {
                    blocks[number as usize % 200] = block;
                }
            }
            for block in blocks {
                assert!(block.iter().all(|word| *word == block[0]));
            }
        });
    }
}

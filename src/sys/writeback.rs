//! Starting to write what a file holds in memory to its disk, so that a later sync has less to wait for.
#![allow(unsafe_code)]

use super::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Starts writing the changed pages of `length` bytes at `offset` to the disk and does not wait for them
/// (*sync_file_range(2)*, `SYNC_FILE_RANGE_WRITE`). It makes nothing durable: that is still for *syncfs(2)*.
///
/// # Errors
/// When the file cannot be written back: `EIO`, `ENOSPC`; `ESPIPE` for what is no file.
pub fn start_writeback(file: BorrowedFd<'_>, offset: u64, length: u64) -> Result<()> {
    let (offset, length) = (i64::try_from(offset).unwrap_or(i64::MAX), i64::try_from(length).unwrap_or(i64::MAX));
    // SAFETY: the call takes numbers only; the descriptor is open as long as it is borrowed.
    check(unsafe {
        libc::syscall(libc::SYS_sync_file_range, file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE)
    })
    .map(drop)
}

/// Returns how many pages of a file have changed and are not on their way to the disk (*cachestat(2)*, Linux 6.5).
///
/// # Errors
/// `ENOSYS` on older kernels.
#[cfg(test)]
pub(crate) fn dirty_pages(file: BorrowedFd<'_>) -> Result<u64> {
    /// Number of the call, the same on all architectures.
    const CACHESTAT: libc::c_long = 451;
    // The range (all of the file), and the five counts the kernel gives: cached, dirty, in writeback, evicted, lately so.
    let (range, mut counts) = ([0u64; 2], [0u64; 5]);
    // SAFETY: both arrays have the size and alignment of the structures the call reads and writes, and outlive it.
    check(unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), range.as_ptr(), counts.as_mut_ptr(), 0) })?;
    Ok(counts[1])
}

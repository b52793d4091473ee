//! How the kernel schedules this process (*sched(7)*).

use super::{Result, check};

/// Policies that come before all ordinary processes.
const REAL_TIME: [i32; 3] = [libc::SCHED_FIFO, libc::SCHED_RR, libc::SCHED_DEADLINE];

/// Leaves a real-time policy for the ordinary one; any other policy, and the niceness, stay as they are.
///
/// # Errors
/// As sched_setscheduler(2).
pub fn leave_real_time() -> Result<()> {
    // musl's functions of these names do nothing but fail: POSIX means processes, Linux threads.
    // SAFETY: takes one integer, 0 for the caller.
    let policy = check(unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) })? as i32;
    if !REAL_TIME.contains(&(policy & !libc::SCHED_RESET_ON_FORK)) {
        return Ok(());
    }
    // The kernel's sched_param is one integer; musl's is longer.
    let priority = 0i32;
    // SAFETY: the kernel reads one live integer.
    check(unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_OTHER, &raw const priority) }).map(drop)
}

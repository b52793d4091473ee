//! Credentials: ids, groups, capabilities, no_new_privs.
#![allow(unsafe_code)]

use super::process::prctl;
use super::{Result, check};

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The capability sets of this thread; bit N is capability number N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// In force.
    pub effective: u64,
    /// May be put in force.
    pub permitted: u64,
    /// May be inherited by programs with file capabilities.
    pub inheritable: u64,
}

/// Returns this thread's capability sets.
///
/// # Errors
/// As capget(2).
pub fn capabilities() -> Result<Capabilities> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [CapabilityData::default(); 2];
    // SAFETY: version 3 reads one header and writes two data blocks, which is what is passed.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) })?;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(Capabilities {
        effective: join(data[0].effective, data[1].effective),
        permitted: join(data[0].permitted, data[1].permitted),
        inheritable: join(data[0].inheritable, data[1].inheritable),
    })
}

/// Sets this thread's capability sets.
///
/// # Errors
/// `EPERM` when a set would grow beyond the permitted one.
pub fn set_capabilities(sets: Capabilities) -> Result<()> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let half = |shift: u32| CapabilityData {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads one header and two data blocks, which is what is passed.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Removes from the bounding set every capability that is not in `keep`, and clears the ambient set.
///
/// # Errors
/// `EPERM` without `CAP_SETPCAP`.
pub fn limit_bounding_set(keep: u64) -> Result<()> {
    for number in 0..64u64 {
        if keep >> number & 1 == 0 && prctl(libc::PR_CAPBSET_DROP, number).is_err() {
            // EINVAL marks the end of the kernel's list; anything else is a refusal.
            // SAFETY: reads one bit, takes integers only.
            if unsafe { libc::prctl(libc::PR_CAPBSET_READ, number, 0, 0, 0) } < 0 {
                break;
            }
            return Err(rustix::io::Errno::PERM);
        }
    }
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64)
}

/// Gives up gaining rights by execve, for good.
///
/// # Errors
/// As prctl(2).
pub fn set_no_new_privileges() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Replaces the supplementary groups of this process (which has one thread).
///
/// # Errors
/// As setgroups(2).
pub fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: the kernel reads `len` ids from a live slice.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Sets real, effective and saved group and user id, in this order.
///
/// # Errors
/// `EINVAL` when an id has no image in the user namespace; otherwise as setresuid(2).
pub fn set_ids(uid: u32, gid: u32) -> Result<()> {
    // SAFETY: integers only; the raw call acts on this thread, the only one of its process.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Runs `body` with another file system user and group id but all capabilities still in force.
///
/// # Errors
/// `EPERM` when the ids could not be changed; otherwise what `body` returns.
pub fn with_file_ids<T>(uid: u32, gid: u32, body: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = capabilities()?;
    let (old_gid, old_uid) = (set_file_id(libc::SYS_setfsgid, gid), set_file_id(libc::SYS_setfsuid, uid));
    let restore = || {
        set_file_id(libc::SYS_setfsuid, old_uid);
        set_file_id(libc::SYS_setfsgid, old_gid);
        set_capabilities(before)
    };
    // Both calls return the previous value, changed or not: asking for an impossible id tells the present one.
    let changed = set_file_id(libc::SYS_setfsuid, u32::MAX) == uid && set_file_id(libc::SYS_setfsgid, u32::MAX) == gid;
    // Leaving uid 0 dropped the file capabilities from the effective set.
    let result = match set_capabilities(before) {
        Ok(()) if changed => body(),
        Ok(()) => Err(rustix::io::Errno::PERM),
        Err(error) => Err(error),
    };
    restore()?;
    result
}

fn set_file_id(call: libc::c_long, id: u32) -> u32 {
    // SAFETY: integers only; setfsuid and setfsgid cannot fail, they return the previous id.
    unsafe { libc::syscall(call, id) as u32 }
}

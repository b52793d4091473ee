//! Loading a seccomp program into the calling thread.
#![allow(unsafe_code)]

use std::io;

/// `BPF_MAXINSNS`: the kernel refuses longer programs.
pub const MAX_INSTRUCTIONS: usize = 4096;

/// `SECCOMP_SET_MODE_FILTER` of *seccomp(2)*.
const SET_MODE_FILTER: libc::c_ulong = 1;
/// `SECCOMP_GET_ACTION_AVAIL` of *seccomp(2)*.
const GET_ACTION_AVAIL: libc::c_ulong = 2;
/// `SECCOMP_RET_KILL_PROCESS` of *seccomp(2)*.
const KILL_PROCESS: u32 = 0x8000_0000;

/// Unpacks `code << 48 | jt << 40 | jf << 32 | k`.
fn unpack(word: u64) -> libc::sock_filter {
    libc::sock_filter { code: (word >> 48) as u16, jt: (word >> 40) as u8, jf: (word >> 32) as u8, k: word as u32 }
}

/// Loads a program, packed as in `security::SeccompFilter`, into the calling thread; it holds for all its children and
/// cannot be taken back.
///
/// Needs `no_new_privs` to be set before, or `CAP_SYS_ADMIN` in the caller's user namespace: it sets neither itself.
/// Allocates once, so a caller that must not allocate cannot use it; a forked process with one thread can.
///
/// # Errors
/// `EINVAL` for a program that is empty, longer than 4096 instructions or refused by the kernel's checker, `EACCES`
/// when neither condition above holds.
pub fn load(program: &[u64]) -> io::Result<()> {
    if program.is_empty() || program.len() > MAX_INSTRUCTIONS {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut filter: Vec<libc::sock_filter> = program.iter().copied().map(unpack).collect();
    let fprog = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: `fprog` points to `len` instructions in `filter`, both alive across the call; the kernel copies and checks
    // them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, 0 as libc::c_ulong, &raw const fprog) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns whether the kernel has seccomp filters with the kill-process action (4.14).
pub fn available() -> bool {
    let action = KILL_PROCESS;
    // SAFETY: the kernel reads four bytes at the address of `action`, which is alive across the call.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0 as libc::c_ulong, &raw const action) };
    result == 0
}

/// Makes any system call, for tests of filters: the result, or the error number.
///
/// Arguments are numbers, never addresses of ours.
#[cfg(test)]
pub(crate) fn raw_call(number: i64, arguments: [u64; 6]) -> Result<i64, i32> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: callers pass calls that are refused, or that touch no memory of ours with such arguments.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 { Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::CapabilitySet;
    use crate::security::seccomp::{ProfileOptions, ProfileSource, load_profile};

    /// Runs `body` in a forked child and returns its wait status.
    fn in_child(body: impl FnOnce() -> i32) -> i32 {
        // The child calls only what takes no lock of another thread (system calls and allocation) and leaves by _exit.
        let pid = crate::sys::heap::fork();
        assert!(pid >= 0);
        if pid == 0 {
            let code = body();
            // SAFETY: ends the child at once, without unwinding into the test harness.
            unsafe { libc::_exit(code) }
        }
        let mut status = 0;
        // SAFETY: `status` is alive across the call and `pid` is our own child.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        status
    }

    /// Makes the 32-bit `getpid` (number 20, which is `writev` for 64-bit programs).
    fn getpid_i386() -> i32 {
        let result: i64;
        // SAFETY: the 32-bit entry keeps all registers but eax on Linux; getpid takes no argument and touches no memory.
        unsafe {
            std::arch::asm!("int 0x80", inlateout("rax") 20_i64 => result, out("r8") _, out("r9") _, out("r10") _,
                out("r11") _);
        }
        result as i32
    }

    fn default_program() -> Vec<u64> {
        let options = ProfileOptions { capabilities: CapabilitySet::DEFAULT, kernel: (6, 18), i386: false };
        load_profile(ProfileSource::Default, &options).unwrap().instructions
    }

    fn load_unprivileged(program: &[u64]) -> Option<()> {
        rustix::thread::set_no_new_privs(true).ok()?;
        load(program).ok()
    }

    #[test]
    fn the_32_bit_entry_kills_under_the_default_profile() {
        let open = in_child(|| i32::from(getpid_i386() <= 0));
        if libc::WIFSIGNALED(open) || libc::WEXITSTATUS(open) != 0 {
            // A kernel without CONFIG_IA32_EMULATION: nothing to close.
            return;
        }
        let program = default_program();
        let closed = in_child(|| load_unprivileged(&program).map_or(2, |()| getpid_i386()));
        assert!(libc::WIFSIGNALED(closed), "status {closed:#x}");
        assert_eq!(libc::WTERMSIG(closed), libc::SIGSYS);
    }

    #[test]
    fn a_filter_holds_for_children() {
        let program = default_program();
        let status = in_child(|| {
            if load_unprivileged(&program).is_none() {
                return 2;
            }
            let inner = in_child(|| i32::from(raw_call(libc::SYS_keyctl, [0; 6]) != Err(libc::EPERM)));
            i32::from(inner != 0)
        });
        assert_eq!(status, 0);
    }

    #[test]
    fn bad_programs_are_refused_before_and_by_the_kernel() {
        if !crate::tests::root() {
            return;
        }
        for program in [&[][..], &[0; MAX_INSTRUCTIONS + 1][..], &[0x0005_0000_0000_0009][..]] {
            assert_eq!(load(program).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
        assert!(available());
    }
}

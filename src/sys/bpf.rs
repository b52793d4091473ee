//! Programs of the kernel's BPF machine for control groups (*bpf(2)*).
#![allow(unsafe_code)]

use super::{Result, check};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Programs of groups above stay in force, and groups below may add theirs: all must allow.
const ALLOW_MULTI: u32 = 2;

#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

/// Loads a program that decides on the use of device nodes; one instruction is eight bytes as the kernel lays them out.
///
/// # Errors
/// As bpf(2): `EINVAL` without `CONFIG_CGROUP_BPF`, `EACCES` when the verifier refuses, `EPERM` without `CAP_BPF`.
pub fn load_device_program(instructions: &[u64]) -> Result<OwnedFd> {
    // No function of the kernel is called that asks for one of its licenses.
    const LICENSE: &CStr = c"Apache-2.0";
    let mut name = [0; 16];
    name[..16 - 1].copy_from_slice(b"bulkhead_device");
    let attributes = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name,
    };
    // SAFETY: `attributes` is live and of the size given; it points to a live slice of the length given and to a
    // NUL-terminated constant, which the kernel only reads.
    let fd = check(unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attributes, size_of::<Load>()) })?;
    // SAFETY: the call returned a new descriptor, close-on-exec, that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches such a program to a control group (version 2) given by its directory; it stays as long as the group.
///
/// # Errors
/// As bpf(2).
pub fn attach_device_program(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let attributes = Attach {
        target: group.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
        replaced: 0,
    };
    // SAFETY: `attributes` is live and of the size given, and holds no pointer.
    check(unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attributes, size_of::<Attach>()) }).map(drop)
}

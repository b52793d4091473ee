//! The one Landlock question the `landlock` crate keeps to itself: which version the kernel speaks.
#![allow(unsafe_code)]

/// `LANDLOCK_CREATE_RULESET_VERSION` of *landlock_create_ruleset(2)*.
const VERSION_FLAG: libc::c_ulong = 1;

/// Returns the kernel's Landlock ABI version; 0 when Landlock is not built in or not enabled at boot.
pub fn landlock_abi() -> u32 {
    // SAFETY: with the version flag the kernel wants a null attribute and size 0, and touches no memory of ours.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0 as libc::c_ulong,
            VERSION_FLAG,
        )
    };
    u32::try_from(version).unwrap_or(0)
}

//! Seccomp: profiles in Docker's format compiled to one search-tree program, our own profiles, and a cache of compiled
//! ones.
//!
//! The verdict of a number that is in no table is ENOSYS, so that programs fall back as on an older kernel; of one that is
//! known and not allowed, the profile's default (EPERM). 32-bit system calls kill the process before their number is
//! read, unless a profile lists `SCMP_ARCH_X86` and [`ProfileOptions::i386`] asks for it. Numbers of the x32 interface are
//! ENOSYS always: distributions build kernels without it.

mod cache;
mod compile;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod interpret;
mod prebuilt;
mod profile;
mod rules;
mod syscalls;

#[cfg(test)]
mod builtin_tests;
#[cfg(test)]
mod tests;

pub use cache::load_cached;
pub use interpret::{Call, run};
pub use syscalls::name as syscall_name;

#[cfg(test)]
use super::capabilities::Capability;
use super::hardening::{CapabilitySet, SeccompFilter};
use profile::Profile;

/// `BPF_MAXINSNS`.
const MAX_INSTRUCTIONS: usize = 4096;
/// `AUDIT_ARCH_X86_64` of *linux/audit.h*.
pub(crate) const AUDIT_ARCH_X86_64: u32 = 0xC000_003E;
/// `AUDIT_ARCH_I386` of *linux/audit.h*.
pub(crate) const AUDIT_ARCH_I386: u32 = 0x4000_0003;

/// Verdict: the process dies.
pub const KILL_PROCESS: u32 = 0x8000_0000;
/// Verdict: the thread dies.
pub const KILL_THREAD: u32 = 0;
/// Verdict: SIGSYS.
pub const TRAP: u32 = 0x0003_0000;
/// Verdict: the call fails with the error number in the lower 16 bits.
pub const ERRNO: u32 = 0x0005_0000;
/// Verdict: a tracer decides; without one the call fails with ENOSYS.
pub const TRACE: u32 = 0x7ff0_0000;
/// Verdict: allowed and logged.
pub const LOG: u32 = 0x7ffc_0000;
/// Verdict: allowed.
pub const ALLOW: u32 = 0x7fff_0000;

/// ENOSYS.
const ENOSYS: u32 = 38;

/// Operation codes of classic BPF that our programs use.
mod code {
    /// `BPF_LD | BPF_W | BPF_ABS`.
    pub(super) const LOAD: u16 = 0x20;
    /// `BPF_ALU | BPF_AND | BPF_K`.
    pub(super) const AND: u16 = 0x54;
    /// `BPF_JMP | BPF_JA`.
    pub(super) const JUMP: u16 = 0x05;
    /// `BPF_JMP | BPF_JEQ | BPF_K`.
    pub(super) const JUMP_EQUAL: u16 = 0x15;
    /// `BPF_JMP | BPF_JGT | BPF_K`.
    pub(super) const JUMP_GREATER: u16 = 0x25;
    /// `BPF_JMP | BPF_JGE | BPF_K`.
    pub(super) const JUMP_GREATER_EQUAL: u16 = 0x35;
    /// `BPF_RET | BPF_K`.
    pub(super) const RETURN: u16 = 0x06;
}

/// Where a profile comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileSource<'a> {
    /// Ours for ordinary images.
    Default,
    /// Ours with less.
    Strict,
    /// One in Docker's format.
    File {
        /// Its name, for `inspect` and messages.
        name: &'a str,
        /// Its text.
        text: &'a str,
    },
}

impl<'a> ProfileSource<'a> {
    fn name(&self) -> &'a str {
        match self {
            Self::Default => "default",
            Self::Strict => "strict",
            Self::File { name, .. } => name,
        }
    }

    fn text(&self) -> &'a str {
        match self {
            Self::Default => include_str!("default.json"),
            Self::Strict => include_str!("strict.json"),
            Self::File { text, .. } => text,
        }
    }
}

/// What a compiled profile depends on besides its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfileOptions {
    /// The container's capabilities; entries may depend on them.
    pub capabilities: CapabilitySet,
    /// First two numbers of the kernel's release; entries may depend on it.
    pub kernel: (u32, u32),
    /// Whether 32-bit programs may run, if the profile lists them too.
    pub i386: bool,
}

/// Why a profile could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The text is too long.
    #[error("seccomp profile {profile} is longer than {limit} bytes")]
    TooLarge {
        /// Name of the profile.
        profile: String,
        /// Longest length accepted, in bytes.
        limit: usize,
    },
    /// Not JSON, or not of this shape.
    #[error("parse seccomp profile {profile}")]
    Parse {
        /// Name of the profile.
        profile: String,
        /// Cause, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// An argument number above 5.
    #[error("seccomp profile: argument index {0} is not between 0 and 5")]
    Argument(u32),
    /// An error number the kernel cannot return.
    #[error("seccomp profile: errno {0} is above 4095")]
    Errno(u32),
    /// `minKernel` is not `MAJOR.MINOR`.
    #[error("seccomp profile: minKernel {0:?} is not MAJOR.MINOR")]
    Kernel(String),
    /// The profile wants a supervisor in user space.
    #[error("seccomp profile: SCMP_ACT_NOTIFY is not supported; use SCMP_ACT_ERRNO or SCMP_ACT_ALLOW")]
    Notify,
    /// 32-bit programs were asked for and the profile does not list them.
    #[error("seccomp profile lists no rules for 32-bit programs (SCMP_ARCH_X86 in archMap or architectures)")]
    NoI386,
    /// Names times conditions make more rules than any program holds.
    #[error("seccomp profile has more than {0} rules with conditions; the kernel takes 4096 instructions")]
    TooManyRules(usize),
    /// The kernel takes 4096 instructions.
    #[error("seccomp profile compiles to {0} instructions; the kernel takes 4096")]
    TooLong(usize),
}

/// Returns the compiled filter of a profile, from the program itself where a compiled one is built in.
///
/// # Errors
/// When the text is no profile, or asks for what cannot be had; never for built-in profiles without `i386`.
pub fn load_profile(source: ProfileSource<'_>, options: &ProfileOptions) -> Result<SeccompFilter, SeccompError> {
    match prebuilt::find(source, options) {
        Some(instructions) => Ok(SeccompFilter { profile: source.name().to_owned(), instructions }),
        None => compile_profile(source, options),
    }
}

/// Compiles a profile.
fn compile_profile(source: ProfileSource<'_>, options: &ProfileOptions) -> Result<SeccompFilter, SeccompError> {
    let profile = Profile::parse(source.name(), source.text())?;
    let (main, i386) = rules::decide(&profile, options)?;
    let instructions = compile::compile(&main, i386.as_ref())?;
    debug_assert!(interpret::is_well_formed(&instructions));
    Ok(SeccompFilter { profile: source.name().to_owned(), instructions })
}

/// Returns the capabilities that entries of a profile depend on.
#[cfg(test)]
fn relevant(profile: &Profile) -> CapabilitySet {
    let known = profile.capability_names().filter_map(|name| Capability::parse(name).ok());
    known.fold(CapabilitySet::EMPTY, CapabilitySet::with)
}

/// How many x86-64 system calls a program lets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// With any argument (as far as all-zero and all-one arguments tell).
    pub allowed: usize,
    /// With some arguments.
    pub conditional: usize,
}

impl SeccompFilter {
    /// Counts what the filter allows, by running it on every known number.
    pub fn count(&self) -> Count {
        let mut count = Count { allowed: 0, conditional: 0 };
        for (_, number) in syscalls::X86_64 {
            let passes = |arguments| {
                run(&self.instructions, &Call::x86_64(u32::from(number), arguments))
                    .is_some_and(|(verdict, _)| verdict == ALLOW || verdict == LOG)
            };
            // Constant verdicts are reached without looking at an argument.
            match reads_arguments(&self.instructions, u32::from(number)) {
                true => count.conditional += 1,
                false => count.allowed += usize::from(passes([0; 6])),
            }
        }
        count
    }
}

/// Returns whether the way of a number through a program meets a load of an argument.
fn reads_arguments(program: &[u64], number: u32) -> bool {
    interpret::reads_arguments(program, &Call::x86_64(number, [0; 6]))
}

//! Which walls a request asks for (pure, but for reading a profile file).

use super::record::SeccompChoice;
use super::request::HardeningRequest;
use crate::security::{Hardening, Level, capabilities};
use std::path::PathBuf;

/// Covered by an empty file or directory: what tells about the host or lets a process touch it
/// (*OCI runtime-spec "Masked Paths"*; Docker's list and the rest of `facts/security.md`).
const MASKED: [&str; 17] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/slabinfo",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/devices/system/cpu/cpu0/thermal_throttle",
    "/sys/firmware",
    "/sys/kernel/security",
];

/// Made read-only (*OCI runtime-spec "Readonly Paths"*).
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A hardening option cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HardeningError {
    /// Unknown option.
    #[error(
        "invalid --security-opt {0:?}; known are no-new-privileges[=false], seccomp=default|strict|unconfined|FILE, landlock=off, systempaths=unconfined, strict"
    )]
    Option(String),
    /// An option of a security module we do not drive.
    #[error("--security-opt {0:?} is not supported: this program confines with seccomp and Landlock, not with {1}")]
    Module(String, &'static str),
    /// A capability that does not exist.
    #[error(transparent)]
    Capability(#[from] capabilities::CapabilityError),
    /// The profile file cannot be read.
    #[error("opening seccomp profile ({}) failed", path.display())]
    Profile {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// The walls asked for; the text of a profile file comes along.
#[derive(Debug)]
pub(super) struct Walls {
    /// The walls, without the compiled filter.
    pub hardening: Hardening,
    /// Which profile.
    pub seccomp: SeccompChoice,
    /// Text of a profile file.
    pub profile: Option<Vec<u8>>,
}

/// Turns `--privileged`, `--cap-*` and `--security-opt` into walls.
///
/// # Errors
/// See [`HardeningError`].
pub(super) fn walls(request: &HardeningRequest) -> Result<Walls, HardeningError> {
    let mut walls = Walls {
        hardening: Hardening {
            level: if request.privileged { Level::Privileged } else { Level::Default },
            capabilities: Default::default(),
            no_new_privileges: !request.privileged,
            seccomp: None,
            landlock: !request.privileged,
            masked_paths: Vec::new(),
            readonly_paths: Vec::new(),
        },
        seccomp: if request.privileged { SeccompChoice::Unconfined } else { SeccompChoice::Default },
        profile: None,
    };
    let mut system_paths = !request.privileged;
    for option in &request.security_opt {
        apply(option, &mut walls, &mut system_paths)?;
    }
    if system_paths {
        walls.hardening.masked_paths = MASKED.map(str::to_owned).to_vec();
        walls.hardening.readonly_paths = READ_ONLY.map(str::to_owned).to_vec();
    }
    walls.hardening.capabilities =
        capabilities::resolve(walls.hardening.level, &request.cap_add, &request.cap_drop, request.privileged)?;
    Ok(walls)
}

fn apply(option: &str, walls: &mut Walls, system_paths: &mut bool) -> Result<(), HardeningError> {
    // Docker accepts both `key=value` and the older `key:value`.
    let (key, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
    match (key, value) {
        ("no-new-privileges", "" | "true") => walls.hardening.no_new_privileges = true,
        ("no-new-privileges", "false") => walls.hardening.no_new_privileges = false,
        ("strict", "") => {
            walls.hardening.level = Level::Strict;
            walls.seccomp = SeccompChoice::Strict;
        }
        ("landlock", "off" | "unconfined") => walls.hardening.landlock = false,
        ("systempaths", "unconfined") => *system_paths = false,
        ("seccomp", "unconfined") => walls.seccomp = SeccompChoice::Unconfined,
        ("seccomp", "default" | "builtin") => walls.seccomp = SeccompChoice::Default,
        ("seccomp", "strict") => walls.seccomp = SeccompChoice::Strict,
        ("seccomp", file) if !file.is_empty() => {
            let path = PathBuf::from(file);
            let text = std::fs::read(&path).map_err(|source| HardeningError::Profile { path, source })?;
            walls.profile = Some(text);
            walls.seccomp = SeccompChoice::File(file.to_owned());
        }
        ("apparmor", "unconfined") | ("label", "disable") => {}
        ("apparmor", _) => return Err(HardeningError::Module(option.to_owned(), "AppArmor")),
        ("label", _) => return Err(HardeningError::Module(option.to_owned(), "SELinux")),
        _ => return Err(HardeningError::Option(option.to_owned())),
    }
    Ok(())
}

//! Which walls a request asks for (pure, but for reading a profile file).

use super::record::SeccompChoice;
use super::request::HardeningRequest;
use crate::sandbox::{Namespace, UserNamespace};
use crate::security::capabilities::Capability;
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

/// Adds `NET_RAW` for `ping` where it is fenced: in a network and a user namespace that are not the host's, behind a
/// profile of ours that was compiled without it and so lets ICMP sockets alone pass, with the kernel's own headers.
/// Docker gives it unfenced.
pub(super) fn with_ping(
    hardening: Hardening,
    (choice, cap_drop): (&SeccompChoice, &[String]),
    userns: &UserNamespace,
    net: &Namespace,
) -> Hardening {
    let own = !matches!(userns, UserNamespace::Host { .. }) && *net != Namespace::Host;
    let fenced = hardening.seccomp.is_some() && matches!(choice, SeccompChoice::Default | SeccompChoice::Strict);
    // A list that was refused made no container.
    let wanted = capabilities::ping_by_default(hardening.level, cap_drop).unwrap_or(false);
    let set = hardening.capabilities;
    let capabilities = if own && fenced && wanted { set.with(Capability::NET_RAW) } else { set };
    Hardening { capabilities, ..hardening }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::{CapabilitySet, SeccompFilter};

    #[test]
    fn ping_is_given_where_it_is_fenced() {
        let range = UserNamespace::Range { base: 0x7000_0000 };
        let host = UserNamespace::Host { because: "--userns=host".to_owned() };
        let check = |request: &HardeningRequest, userns: &UserNamespace, net: Namespace, given: bool| {
            let Walls { hardening, seccomp, .. } = walls(request).unwrap();
            let filter = SeccompFilter { profile: "x".to_owned(), instructions: vec![0] };
            let compiled = (seccomp != SeccompChoice::Unconfined).then_some(filter);
            let hardening = Hardening { seccomp: compiled, ..hardening };
            let set = with_ping(hardening, (&seccomp, &request.cap_drop), userns, &net).capabilities;
            assert_eq!(set.contains(Capability::NET_RAW), given, "{request:?} {userns:?} {net:?}");
        };
        let plain = HardeningRequest::default();
        check(&plain, &range, Namespace::New, true);
        check(&plain, &UserNamespace::Join { path: "/x".into(), base: 1 }, Namespace::Join("/x".into()), true);
        check(&plain, &range, Namespace::Host, false);
        check(&plain, &host, Namespace::New, false);
        let with = |option: &str| HardeningRequest { security_opt: vec![option.to_owned()], ..Default::default() };
        check(&with("seccomp=unconfined"), &range, Namespace::New, false);
        check(&with("strict"), &range, Namespace::New, false);
        check(&with("seccomp=strict"), &range, Namespace::New, true);
        for name in ["NET_RAW", "cap_net_raw", "ALL", "CHOWN,NET_RAW"] {
            let dropped = HardeningRequest { cap_drop: vec![name.to_owned()], ..Default::default() };
            check(&dropped, &range, Namespace::New, false);
        }
        let asked = HardeningRequest { cap_add: vec!["NET_RAW".to_owned()], ..with("seccomp=unconfined") };
        check(&asked, &host, Namespace::Host, true);
        assert!(!CapabilitySet::DEFAULT.contains(Capability::NET_RAW), "the filter is compiled without it");
    }
}

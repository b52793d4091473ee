//! What holds for a container, put together for `inspect`, and what a run may demand of it.

use super::features::HostFeatures;
use super::hardening::{Enforced, Hardening};
use super::landlock::{NO_FILE_RULES, Outcome};

/// What [`enforced`] cannot learn from the [`Hardening`]: what the launch came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launched {
    /// `0x70000000+65536`, or `host: because --net=host`.
    pub userns: String,
    /// Namespaces that are the container's own: `mnt`, `pid`, `net`, `ipc`, `uts`, `cgroup`, `time`.
    pub namespaces: Vec<String>,
    /// Limits in force as `name=value`; a missing controller is named.
    pub limits: Vec<String>,
    /// Whether the root is read-only.
    pub root_readonly: bool,
    /// Number of masked and of read-only paths that exist on this kernel.
    pub masked: usize,
}

/// Tells what is enforced.
pub fn enforced(hardening: &Hardening, landlock: &Outcome, launched: Launched) -> Enforced {
    let seccomp = match &hardening.seccomp {
        Some(filter) => {
            let count = filter.count();
            format!("{} ({} allowed, {} by argument)", filter.profile, count.allowed, count.conditional)
        }
        None => "none: unconfined".to_owned(),
    };
    let landlock = if hardening.landlock { landlock.to_string() } else { "none: switched off".to_owned() };
    Enforced {
        userns: launched.userns,
        namespaces: launched.namespaces,
        seccomp,
        landlock,
        capabilities: hardening.capabilities.names(),
        no_new_privileges: hardening.no_new_privileges,
        limits: launched.limits,
        root_readonly: launched.root_readonly,
        masked: launched.masked,
    }
}

/// Why a run is refused under `--require`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequireError {
    /// Not a requirement.
    #[error("unknown requirement {0:?}; known are {known}", known = KNOWN.join(", "))]
    Unknown(String),
    /// Does not hold.
    #[error("--require {requirement} is not met: {why}")]
    Unmet {
        /// The requirement as given.
        requirement: String,
        /// What there is instead.
        why: String,
    },
}

/// Requirements, for the message.
const KNOWN: [&str; 13] = [
    "userns",
    "seccomp",
    "landlock",
    "landlock>=N",
    "no-new-privileges",
    "read-only",
    "pid, net, ipc, uts, cgroup, time (own namespace)",
    "memory, pids, cpu (limit in force)",
    "cgroup-v2",
    "kernel>=MAJOR.MINOR",
    "idmapped-mounts",
    "masks",
    "no-capabilities",
];

/// Checks every requirement of `--require` against what is enforced; a value may hold several, separated by commas.
///
/// # Errors
/// The first requirement that is unknown or not met: a demand that is not understood is never taken as met.
pub fn require(requirements: &[String], host: &HostFeatures, enforced: &Enforced) -> Result<(), RequireError> {
    for requirement in requirements.iter().flat_map(|list| list.split(',')).map(str::trim) {
        if !requirement.is_empty() {
            check(requirement, host, enforced)?;
        }
    }
    Ok(())
}

fn check(requirement: &str, host: &HostFeatures, enforced: &Enforced) -> Result<(), RequireError> {
    let (name, least) = match requirement.split_once(">=") {
        Some((name, least)) => (name.trim(), Some(least.trim())),
        None => (requirement, None),
    };
    let unknown = || RequireError::Unknown(requirement.chars().take(60).collect());
    let met = |holds: bool, why: String| match holds {
        true => Ok(()),
        false => Err(RequireError::Unmet { requirement: requirement.to_owned(), why }),
    };
    match (name, least) {
        ("landlock", least) => {
            let least = least.map_or(Ok(1), |least| least.parse::<u32>().map_err(|_| unknown()))?;
            let text = &enforced.landlock;
            let laid = (text.starts_with("full") || text.starts_with("partial")) && !text.contains(NO_FILE_RULES);
            met(laid && host.landlock_abi >= least, format!("landlock is {text}"))
        }
        ("kernel", Some(least)) => {
            let (major, minor) = least.split_once('.').unwrap_or((least, "0"));
            let least = (major.parse().map_err(|_| unknown())?, minor.parse().map_err(|_| unknown())?);
            met(host.kernel >= least, format!("the kernel is {}", host.release))
        }
        (_, Some(_)) => Err(unknown()),
        ("userns", None) => {
            let own = !enforced.userns.is_empty() && !enforced.userns.starts_with("host");
            met(own, format!("the user namespace is {:?}", enforced.userns))
        }
        ("seccomp", None) => {
            let filtered = !enforced.seccomp.is_empty() && !enforced.seccomp.starts_with("none");
            met(filtered && host.seccomp, format!("seccomp is {}", enforced.seccomp))
        }
        ("no-new-privileges" | "no-new-privs", None) => {
            met(enforced.no_new_privileges, "programs may gain privileges".to_owned())
        }
        ("read-only", None) => met(enforced.root_readonly, "the root is writable".to_owned()),
        ("masks", None) => met(enforced.masked > 0, "no path is masked".to_owned()),
        ("no-capabilities", None) => {
            met(enforced.capabilities.is_empty(), format!("capabilities are {}", enforced.capabilities.join(" ")))
        }
        ("pid" | "net" | "ipc" | "uts" | "cgroup" | "time", None) => {
            let own = enforced.namespaces.iter().any(|own| own == name);
            met(own, format!("own namespaces are {}", enforced.namespaces.join(" ")))
        }
        ("memory" | "pids" | "cpu", None) => {
            // Limits are named as the kernel's files: `memory.max`, `pids.max`, `cpu.cfs_quota_us`.
            let named = |key: &str| key.split('.').next() == Some(name);
            let limited = enforced.limits.iter().filter_map(|limit| limit.split_once('=')).any(|(key, _)| named(key));
            met(limited, format!("limits are {}", enforced.limits.join(" ")))
        }
        ("cgroup-v2", None) => {
            let version = host.cgroups.version();
            met(version == "v2", format!("control groups are {version}"))
        }
        ("idmapped-mounts", None) => met(host.idmapped_mounts(), format!("the kernel is {}", host.release)),
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::features::CgroupLayout;
    use crate::security::seccomp::{ProfileOptions, ProfileSource, load_profile};
    use crate::security::{CapabilitySet, Level};

    fn host() -> HostFeatures {
        HostFeatures {
            release: "6.12.1".to_owned(),
            kernel: (6, 12),
            landlock_abi: 6,
            seccomp: true,
            user_namespaces: Some(1),
            time_namespace: true,
            cgroup_namespace: true,
            overlay: true,
            detached_layers: true,
            cgroups: CgroupLayout::default(),
        }
    }

    fn hardening() -> Hardening {
        let options = ProfileOptions { capabilities: CapabilitySet::STRICT, kernel: (6, 12), i386: false };
        Hardening {
            level: Level::Strict,
            capabilities: CapabilitySet::STRICT,
            no_new_privileges: true,
            seccomp: Some(load_profile(ProfileSource::Strict, &options).unwrap()),
            landlock: true,
            masked_paths: Vec::new(),
            readonly_paths: Vec::new(),
        }
    }

    fn launched() -> Launched {
        Launched {
            userns: "0x70000000+65536".to_owned(),
            namespaces: ["mnt", "pid", "net"].map(str::to_owned).to_vec(),
            limits: vec!["pids=2048".to_owned(), "memory: no controller".to_owned()],
            root_readonly: false,
            masked: 9,
        }
    }

    fn check_all(enforced: &Enforced, requirement: &str) -> String {
        match require(&[requirement.to_owned()], &host(), enforced) {
            Ok(()) => "met".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_holds_is_told() {
        let told = enforced(&hardening(), &Outcome::Full { abi: 6 }, launched());
        assert!(told.seccomp.starts_with("strict (2"), "{}", told.seccomp);
        assert_eq!(told.landlock, "full (ABI 6)");
        assert_eq!(told.capabilities.len(), 6);
        let bare = Hardening { seccomp: None, landlock: false, ..hardening() };
        let told = enforced(&bare, &Outcome::Full { abi: 6 }, launched());
        assert_eq!((told.seccomp.as_str(), told.landlock.as_str()), ("none: unconfined", "none: switched off"));
    }

    #[test]
    fn requirements_are_met_by_what_holds() {
        let told = enforced(&hardening(), &Outcome::Full { abi: 6 }, launched());
        for requirement in [
            "userns,seccomp",
            "landlock",
            "landlock >= 4",
            "landlock>=6",
            "no-new-privileges",
            "pid",
            "pids",
            "masks",
            "kernel>=6.1",
            "",
        ] {
            assert_eq!(check_all(&told, requirement), "met", "{requirement}");
        }
    }

    #[test]
    fn requirements_fail_closed() {
        let told = enforced(&hardening(), &Outcome::Full { abi: 6 }, launched());
        let check = |requirement: &str, why: &str| {
            let text = check_all(&told, requirement);
            assert!(text.contains(why), "{requirement}: {text}");
        };
        check("landlock>=7", "--require landlock>=7 is not met: landlock is full (ABI 6)");
        check("time", "own namespaces are mnt pid net");
        check("memory", "is not met");
        check("read-only", "the root is writable");
        check("cgroup-v2", "control groups are none");
        check("kernel>=7", "the kernel is 6.12.1");
        for unknown in ["landlok", "landlock>=x", "seccomp>=2", "userns=host", "landlock>=", "kernel>=6.x", "kernel"] {
            check(unknown, "unknown requirement");
        }
        let none = enforced(
            &Hardening { seccomp: None, ..hardening() },
            &Outcome::None { why: "x".to_owned() },
            Launched::default(),
        );
        for requirement in ["userns", "seccomp", "landlock", "pid", "pids", "masks"] {
            assert!(check_all(&none, requirement).contains("is not met"), "{requirement}");
        }
        let why = format!("{NO_FILE_RULES}, because they would deny mounts and SYS_ADMIN is granted");
        let scopes = enforced(&hardening(), &Outcome::Partial { abi: 7, why }, launched());
        assert!(check_all(&scopes, "landlock>=1").contains("is not met"));
        let host_ids = Launched { userns: "host: because --net=host".to_owned(), ..launched() };
        let told = enforced(&hardening(), &Outcome::Full { abi: 6 }, host_ids);
        assert!(check_all(&told, "userns").contains("host: because --net=host"));
    }
}

//! Capability names, numbers and sets.

use super::hardening::{CapabilitySet, Level};
use std::fmt;

/// Names of *capabilities(7)* without `CAP_`; the index is the number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// One capability: its number in *capabilities(7)*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capability(u8);

impl Capability {
    /// Changing owners.
    pub const CHOWN: Self = Self(0);
    /// Passing file permission bits.
    pub const DAC_OVERRIDE: Self = Self(1);
    /// Changing attributes of files one does not own.
    pub const FOWNER: Self = Self(3);
    /// Keeping set-id bits on modification.
    pub const FSETID: Self = Self(4);
    /// Signalling other users' processes.
    pub const KILL: Self = Self(5);
    /// Changing group ids.
    pub const SETGID: Self = Self(6);
    /// Changing user ids.
    pub const SETUID: Self = Self(7);
    /// Dropping from the bounding set.
    pub const SETPCAP: Self = Self(8);
    /// Ports below 1024.
    pub const NET_BIND_SERVICE: Self = Self(10);
    /// Interfaces, routes, firewall.
    pub const NET_ADMIN: Self = Self(12);
    /// Raw and packet sockets.
    pub const NET_RAW: Self = Self(13);
    /// `chroot` and entering mount namespaces.
    pub const SYS_CHROOT: Self = Self(18);
    /// Tracing any process.
    pub const SYS_PTRACE: Self = Self(19);
    /// Mounts, namespaces and much more.
    pub const SYS_ADMIN: Self = Self(21);
    /// Giving files capabilities.
    pub const SETFCAP: Self = Self(31);

    /// Returns the number in *capabilities(7)*, 0 to 40.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Returns the name without `CAP_`, upper case.
    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }

    /// Finds a capability by name in any case, with or without `CAP_`.
    ///
    /// # Errors
    /// When no capability has that name; the error carries the nearest one.
    pub fn parse(text: &str) -> Result<Self, CapabilityError> {
        let upper = text.trim().to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        match NAMES.iter().position(|known| *known == name) {
            Some(index) => Ok(Self(index as u8)),
            None => Err(CapabilityError::Unknown { name: shown(text), nearest: Hint(nearest(name)) }),
        }
    }
}

impl CapabilitySet {
    /// No capability.
    pub const EMPTY: Self = Self(0);
    /// All 41 capabilities; the kernel's own last one may be lower.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);
    /// What root of an ordinary container has.
    ///
    /// Docker's fourteen without three. `MKNOD` makes no device in a user namespace (EPERM whatever the set) and would in
    /// the host's (`--net=host`); pipes and sockets need none. `AUDIT_WRITE` counts in the initial user namespace only;
    /// elsewhere the kernel answers ECONNREFUSED before it looks, which PAM takes for "no audit". `NET_RAW` forges
    /// packets to neighbours of a bridge; a container gets it for `ping` alone ([`ping_by_default`]).
    pub const DEFAULT: Self = Self::EMPTY
        .with(Capability::CHOWN)
        .with(Capability::DAC_OVERRIDE)
        .with(Capability::FOWNER)
        .with(Capability::FSETID)
        .with(Capability::KILL)
        .with(Capability::NET_BIND_SERVICE)
        .with(Capability::SETFCAP)
        .with(Capability::SETGID)
        .with(Capability::SETPCAP)
        .with(Capability::SETUID)
        .with(Capability::SYS_CHROOT);
    /// What a service needs to prepare its data directory and change to its own user: no passing of permission bits, no
    /// `chroot`, no file capabilities.
    pub const STRICT: Self = Self::EMPTY
        .with(Capability::CHOWN)
        .with(Capability::FOWNER)
        .with(Capability::KILL)
        .with(Capability::NET_BIND_SERVICE)
        .with(Capability::SETGID)
        .with(Capability::SETUID);

    /// Returns the set with one more capability.
    pub const fn with(self, capability: Capability) -> Self {
        Self(self.0 | 1 << capability.0)
    }

    /// Returns the set with one capability less.
    pub const fn without(self, capability: Capability) -> Self {
        Self(self.0 & !(1 << capability.0))
    }

    /// Returns whether a capability is in the set.
    pub const fn contains(self, capability: Capability) -> bool {
        self.0 & 1 << capability.0 != 0
    }

    /// Returns the capabilities of the set in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        (0..NAMES.len() as u8).map(Capability).filter(move |capability| self.contains(*capability))
    }

    /// Returns the names without `CAP_`, in the order of their numbers.
    pub fn names(self) -> Vec<String> {
        self.iter().map(|capability| capability.name().to_owned()).collect()
    }
}

/// Why a capability set could not be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// No such name.
    #[error("unknown capability {name:?}{nearest}")]
    Unknown {
        /// The name as given, shortened.
        name: String,
        /// The nearest known name.
        nearest: Hint,
    },
    /// Everything was both added and dropped.
    #[error("capabilities: ALL is both added and dropped")]
    Contradiction,
}

/// `; did you mean NET_ADMIN?`, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint(pub Option<&'static str>);

impl fmt::Display for Hint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(formatter, "; did you mean {name}?"),
            None => Ok(()),
        }
    }
}

/// Returns the capability set of a container.
///
/// As Docker does: `ALL` added means everything but what is dropped; `ALL` dropped means nothing but what is added;
/// otherwise the level's set without the dropped and with the added ones, adding last. Unlike Docker, `--privileged`
/// still honours `cap_drop`.
///
/// # Errors
/// An unknown name in either list, or `ALL` in both.
pub fn resolve(
    level: Level,
    cap_add: &[String],
    cap_drop: &[String],
    privileged: bool,
) -> Result<CapabilitySet, CapabilityError> {
    let added = Tweak::parse(cap_add)?;
    let dropped = Tweak::parse(cap_drop)?;
    if added.all && dropped.all {
        return Err(CapabilityError::Contradiction);
    }
    let base = match level {
        Level::Default => CapabilitySet::DEFAULT,
        Level::Strict => CapabilitySet::STRICT,
        Level::Privileged => CapabilitySet::ALL,
    };
    Ok(if added.all || privileged && !dropped.all {
        CapabilitySet(CapabilitySet::ALL.0 & !dropped.named.0)
    } else if dropped.all {
        added.named
    } else {
        CapabilitySet(base.0 & !dropped.named.0 | added.named.0)
    })
}

/// Returns whether a container of this level is given `NET_RAW` for `ping` where a filter fences it (`socket` of our own
/// profiles, compiled without it): a `--cap-drop` that names it, or everything, keeps it away.
///
/// # Errors
/// An unknown name in the list.
pub fn ping_by_default(level: Level, cap_drop: &[String]) -> Result<bool, CapabilityError> {
    let dropped = Tweak::parse(cap_drop)?;
    Ok(level == Level::Default && !dropped.all && !dropped.named.contains(Capability::NET_RAW))
}

/// A parsed `--cap-add` or `--cap-drop` list.
struct Tweak {
    all: bool,
    named: CapabilitySet,
}

impl Tweak {
    fn parse(names: &[String]) -> Result<Self, CapabilityError> {
        let mut tweak = Self { all: false, named: CapabilitySet::EMPTY };
        // One flag may carry several names, `--cap-add NET_RAW,SYS_PTRACE`.
        for name in names.iter().flat_map(|list| list.split(',')).filter(|name| !name.trim().is_empty()) {
            let plain = name.trim().to_ascii_uppercase();
            if plain == "ALL" || plain == "CAP_ALL" {
                tweak.all = true;
            } else {
                tweak.named = tweak.named.with(Capability::parse(name)?);
            }
        }
        Ok(tweak)
    }
}

/// Shortens outside text for a message.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Returns the known name at the smallest edit distance, if that is small enough to be a slip.
fn nearest(name: &str) -> Option<&'static str> {
    if name.len() > 40 {
        return None;
    }
    NAMES
        .iter()
        .map(|known| (distance(name.as_bytes(), known.as_bytes()), *known))
        .min()
        .filter(|(distance, known)| *distance <= known.len().div_ceil(3))
        .map(|(_, known)| known)
}

/// Returns the number of single-letter edits between two words.
fn distance(left: &[u8], right: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replace = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn check(level: Level, add: &[&str], drop: &[&str], privileged: bool, expected: &str) {
        let text = match resolve(level, &names(add), &names(drop), privileged) {
            Ok(set) => set.names().join(" "),
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(text, expected);
    }

    const DEFAULT: &str =
        "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT SETFCAP";

    #[test]
    fn numbers_are_the_kernels() {
        // Spot checks against linux/capability.h.
        for (name, number) in
            [("CHOWN", 0), ("NET_RAW", 13), ("SYS_ADMIN", 21), ("SETFCAP", 31), ("BPF", 39), ("CHECKPOINT_RESTORE", 40)]
        {
            assert_eq!(Capability::parse(name).map(Capability::number), Ok(number));
        }
        assert_eq!(CapabilitySet::ALL.iter().count(), 41);
    }

    #[test]
    fn constants_carry_their_names() {
        for (capability, name) in [
            (Capability::FOWNER, "FOWNER"),
            (Capability::FSETID, "FSETID"),
            (Capability::SETPCAP, "SETPCAP"),
            (Capability::NET_ADMIN, "NET_ADMIN"),
            (Capability::SYS_CHROOT, "SYS_CHROOT"),
            (Capability::SYS_PTRACE, "SYS_PTRACE"),
            (Capability::SYS_ADMIN, "SYS_ADMIN"),
            (Capability::SETFCAP, "SETFCAP"),
        ] {
            assert_eq!(capability.name(), name);
        }
    }

    #[test]
    fn lists_add_to_and_take_from_the_level() {
        check(Level::Default, &[], &[], false, DEFAULT);
        check(Level::Strict, &[], &[], false, "CHOWN FOWNER KILL SETGID SETUID NET_BIND_SERVICE");
        check(Level::Strict, &["cap_net_raw"], &["Kill"], false, "CHOWN FOWNER SETGID SETUID NET_BIND_SERVICE NET_RAW");
        check(Level::Default, &["NET_RAW,sys_ptrace"], &["ALL"], false, "NET_RAW SYS_PTRACE");
        check(Level::Default, &[], &["all"], false, "");
        // Adding wins over dropping, as in Docker.
        check(Level::Default, &["CHOWN"], &["CHOWN"], false, DEFAULT);
    }

    #[test]
    fn all_added_leaves_out_what_is_dropped() {
        let set = resolve(Level::Default, &names(&["ALL"]), &names(&["SYS_ADMIN", "CAP_BPF"]), false).unwrap();
        assert!(!set.contains(Capability::SYS_ADMIN));
        assert_eq!(set.iter().count(), 39);
    }

    #[test]
    fn privileged_is_everything_but_what_is_dropped() {
        let all = resolve(Level::Default, &[], &[], true);
        assert_eq!(all, Ok(CapabilitySet::ALL));
        let fewer = resolve(Level::Privileged, &[], &names(&["SYS_ADMIN"]), true).unwrap();
        assert_eq!(fewer, CapabilitySet::ALL.without(Capability::SYS_ADMIN));
        check(Level::Privileged, &[], &["ALL"], true, "");
    }

    #[test]
    fn unknown_names_are_refused_with_the_nearest() {
        check(
            Level::Default,
            &["NET_ADMN"],
            &[],
            false,
            "error: unknown capability \"NET_ADMN\"; did you mean NET_ADMIN?",
        );
        check(
            Level::Default,
            &["CAP_SYSADMIN"],
            &[],
            false,
            "error: unknown capability \"CAP_SYSADMIN\"; did you mean SYS_ADMIN?",
        );
        check(Level::Default, &[], &["frobnicate"], false, "error: unknown capability \"frobnicate\"");
        check(Level::Default, &["ALL"], &["ALL"], false, "error: capabilities: ALL is both added and dropped");
        let long = "A".repeat(1_000_000);
        let error = resolve(Level::Default, &[long], &[], false).unwrap_err();
        assert!(error.to_string().len() < 100);
    }
}

//! Landlock rule sets: which files a container's processes may use how, whatever their ids and capabilities say.
//!
//! A right granted on a directory holds in every mount below it and cannot be taken back (*landlock(7)*), so rules are
//! built from the leaves: `/` gets only what every mount may have, and writing below a read-only root, as well as device
//! ioctls, are granted on the very mounts and nodes we made. Making device nodes is granted nowhere.

use landlock::{
    AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, Scope, make_bitflags,
};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Rights on files.
pub type FsRights = BitFlags<AccessFs>;

/// What every mount may have.
const READ: FsRights = make_bitflags!(AccessFs::{Execute | ReadFile | ReadDir});
/// Changing the content of files that exist.
const WRITE: FsRights = make_bitflags!(AccessFs::{WriteFile | Truncate});
/// Making, renaming and removing everything but device nodes.
const CHANGE: FsRights = make_bitflags!(AccessFs::{
    WriteFile | Truncate | MakeReg | MakeDir | MakeSym | MakeSock | MakeFifo | RemoveFile | RemoveDir | Refer
});
/// Device ioctls, and the plain use of the node.
const DEVICE: FsRights = make_bitflags!(AccessFs::{ReadFile | WriteFile | Truncate | IoctlDev});
/// Making device nodes: handled, granted nowhere.
const NODES: FsRights = make_bitflags!(AccessFs::{MakeChar | MakeBlock});
/// Rights that make sense on something that is no directory; the kernel refuses others there.
const ON_FILES: FsRights = make_bitflags!(AccessFs::{Execute | ReadFile | WriteFile | Truncate | IoctlDev});

/// Nodes that every container's `/dev` has and that programs send ioctls to: the terminal ones are needed, the others
/// answer ENOTTY as on any host instead of EACCES.
const OWN_NODES: [&str; 9] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/console",
    "/dev/ptmx",
    "/dev/pts",
];

/// How an [`Outcome`] says that files are not covered at all.
pub(super) const NO_FILE_RULES: &str = "no file rules";

/// What a rule set depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleInput {
    /// The kernel's Landlock ABI version; 0 is none.
    pub abi: u32,
    /// Whether the root is attached read-only.
    pub root_readonly: bool,
    /// Mounts beyond those every container has: volumes, binds, tmpfs, own files.
    pub mounts: Vec<RuleMount>,
    /// Nodes given with `--device`, as paths inside; a directory stands for all nodes in it.
    pub devices: Vec<String>,
    /// Whether processes inside may hold `CAP_SYS_ADMIN`.
    pub sys_admin: bool,
    /// Whether the container lives in the host's process id namespace.
    pub host_pid: bool,
    /// Whether the container lives in the host's network namespace.
    pub host_net: bool,
}

/// One mount, for [`RuleInput`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleMount {
    /// Path inside.
    pub target: String,
    /// Whether it is read-only.
    pub readonly: bool,
}

/// A planned rule set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet {
    /// Rights that are denied wherever no rule grants them; empty lays no file rules.
    pub handled: FsRights,
    /// Rules, in the order they are added.
    pub rules: Vec<Rule>,
    /// Scopes: what processes inside may not reach outside the domain.
    pub scopes: BitFlags<Scope>,
    /// What this kernel enforces of it.
    pub outcome: Outcome,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Absolute path inside the root; symbolic links in it are the image's and resolve inside the root.
    pub path: String,
    /// Rights granted on it and below it.
    pub rights: FsRights,
}

/// What Landlock enforces for a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything that was planned.
    Full {
        /// ABI version of the kernel.
        abi: u32,
    },
    /// A part of it.
    Partial {
        /// ABI version of the kernel.
        abi: u32,
        /// What is missing and why.
        why: String,
    },
    /// Nothing.
    None {
        /// The reason.
        why: String,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { abi } => write!(formatter, "full (ABI {abi})"),
            Self::Partial { abi, why } => write!(formatter, "partial (ABI {abi}): {why}"),
            Self::None { why } => write!(formatter, "none: {why}"),
        }
    }
}

/// Why a rule set could not be made or entered.
#[derive(Debug, thiserror::Error)]
pub enum LandlockError {
    /// A path of a rule could not be opened.
    #[error("open {path} for a landlock rule")]
    Open {
        /// Path inside the root.
        path: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The kernel refused the rule set or a rule.
    #[error("create the landlock rule set")]
    Create(#[source] RulesetError),
    /// The kernel refused the domain.
    #[error("enter the landlock domain")]
    Enter(#[source] RulesetError),
}

/// Plans the rule set of a container.
pub fn rule_set(input: &RuleInput) -> RuleSet {
    let scopes = scopes(input);
    let handled = handled(input);
    let rules = if handled.is_empty() { Vec::new() } else { rules(input, handled) };
    RuleSet { handled, rules, scopes, outcome: outcome(input, handled, scopes) }
}

/// Returns the file rights to handle.
///
/// None with `CAP_SYS_ADMIN` granted, because a domain with file rights denies every mount; none below ABI 2, because
/// there any domain with file rights fails each rename across directories with EXDEV and breaks apt, dpkg and git.
fn handled(input: &RuleInput) -> FsRights {
    if input.sys_admin || input.abi < 2 {
        return FsRights::EMPTY;
    }
    let mut rights = READ | CHANGE | NODES | AccessFs::IoctlDev;
    if input.abi < 3 {
        rights.remove(AccessFs::Truncate);
    }
    if input.abi < 5 {
        rights.remove(AccessFs::IoctlDev);
    }
    rights
}

/// Returns the scopes that are wanted on a kernel that has them: where a namespace is the host's, and where they are all
/// that can be laid. A private process id or network namespace closes the same doors by itself; a namespace shared with
/// another container is shared on purpose.
fn wanted_scopes(input: &RuleInput) -> BitFlags<Scope> {
    let mut scopes = BitFlags::EMPTY;
    if input.host_pid || input.sys_admin {
        scopes.insert(Scope::Signal);
    }
    if input.host_net || input.sys_admin {
        scopes.insert(Scope::AbstractUnixSocket);
    }
    scopes
}

fn scopes(input: &RuleInput) -> BitFlags<Scope> {
    if input.abi >= 6 { wanted_scopes(input) } else { BitFlags::EMPTY }
}

fn rules(input: &RuleInput, handled: FsRights) -> Vec<Rule> {
    let mut rules = Vec::with_capacity(16 + input.mounts.len());
    let mut add = |path: &str, rights: FsRights| rules.push(Rule { path: path.to_owned(), rights: rights & handled });
    if input.root_readonly {
        add("/", READ);
        // Ours and always writable: nodes, shared memory, queues.
        add("/dev", READ | CHANGE);
        // A process's own switches (oom_score_adj, comm of other threads, coredump_filter), where proc is mounted before the
        // rule set is made (a host's, bound). The container's own proc can only be made by a process that is in the domain
        // already, so no rule can name it, and those switches stay closed under a read-only root: granting them on "/" would
        // take away what Landlock is for there (ARCHITECTURE.md, 2026-11-21).
        add("/proc", READ | WRITE);
        for mount in input.mounts.iter().filter(|mount| !mount.readonly) {
            add(&mount.target, READ | CHANGE);
        }
    } else {
        add("/", READ | CHANGE);
    }
    if handled.contains(AccessFs::IoctlDev) {
        for node in OWN_NODES {
            add(node, DEVICE);
        }
        for node in &input.devices {
            add(node, DEVICE);
        }
    }
    rules
}

fn outcome(input: &RuleInput, handled: FsRights, scopes: BitFlags<Scope>) -> Outcome {
    let abi = input.abi;
    if abi == 0 {
        let why = "the kernel has no Landlock (CONFIG_SECURITY_LANDLOCK, 5.13, and `landlock` in lsm=)".to_owned();
        return Outcome::None { why };
    }
    let mut missing = Vec::new();
    if input.sys_admin {
        missing.push("no file rules, because they would deny mounts and SYS_ADMIN is granted");
    } else if abi < 2 {
        missing.push("no file rules, because renames across directories would fail before Linux 5.19");
    } else if abi < 3 {
        missing.push("truncation (Linux 6.2) and device ioctls (Linux 6.10) are not covered");
    } else if abi < 5 {
        missing.push("device ioctls are not covered before Linux 6.10");
    }
    if scopes != wanted_scopes(input) {
        missing.push("no signal and abstract socket scopes before Linux 6.12");
    }
    let why = missing.join("; ");
    if handled.is_empty() && scopes.is_empty() {
        Outcome::None { why }
    } else if missing.is_empty() {
        Outcome::Full { abi }
    } else {
        Outcome::Partial { abi, why }
    }
}

/// A rule set the kernel holds, ready to be entered.
#[derive(Debug)]
pub struct Prepared {
    created: RulesetCreated,
    handled: FsRights,
}

/// Makes the kernel's rule set from a plan; `None` when the plan lays nothing.
///
/// `open` is given each rule's path inside the root and returns a descriptor of it (`O_PATH` will do), resolved inside
/// the root. A path that does not exist is left out: that grants less, never more.
///
/// # Errors
/// When a path exists but cannot be opened, or the kernel refuses the rule set.
pub fn prepare(plan: &RuleSet, open: impl Fn(&str) -> io::Result<OwnedFd>) -> Result<Option<Prepared>, LandlockError> {
    if plan.handled.is_empty() && plan.scopes.is_empty() {
        return Ok(None);
    }
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    if !plan.handled.is_empty() {
        ruleset = ruleset.handle_access(plan.handled).map_err(LandlockError::Create)?;
    }
    if !plan.scopes.is_empty() {
        ruleset = ruleset.scope(plan.scopes).map_err(LandlockError::Create)?;
    }
    let created = ruleset.create().map_err(LandlockError::Create)?.no_new_privs(false);
    let mut prepared = Prepared { created, handled: plan.handled };
    for rule in &plan.rules {
        match open(&rule.path) {
            Ok(fd) => prepared = prepared.allow(fd.as_fd(), rule.rights)?,
            Err(error) if is_missing(&error) => {}
            Err(source) => {
                return Err(LandlockError::Open { path: rule.path.clone(), source });
            }
        }
    }
    Ok(Some(prepared))
}

impl Prepared {
    /// Grants further rights on what a descriptor refers to, as for a standard stream that is a file or a terminal of the
    /// host and that programs reopen as `/dev/stdout`. Rights that are not handled, or make no sense on a file, are left
    /// out.
    ///
    /// # Errors
    /// When the kernel refuses the rule.
    pub fn allow(self, fd: BorrowedFd<'_>, rights: FsRights) -> Result<Self, LandlockError> {
        let Self { created, handled } = self;
        let mut rights = rights & handled;
        let directory =
            rustix::fs::fstat(fd).is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir());
        if !directory {
            rights &= ON_FILES;
        }
        let created = if rights.is_empty() {
            created
        } else {
            created.add_rule(PathBeneath::new(fd, rights)).map_err(LandlockError::Create)?
        };
        Ok(Self { created, handled })
    }

    /// Grants reading, writing and device ioctls on what a descriptor refers to; see [`Prepared::allow`].
    ///
    /// # Errors
    /// When the kernel refuses the rule.
    pub fn allow_stream(self, fd: BorrowedFd<'_>) -> Result<Self, LandlockError> {
        self.allow(fd, DEVICE)
    }

    /// Puts the calling thread and all its future children into the domain, for good.
    ///
    /// Sets no `no_new_privs`: the caller has `CAP_SYS_ADMIN` in its user namespace, or has set it.
    ///
    /// # Errors
    /// When the kernel refuses: neither condition holds, or 16 domains are nested already.
    pub fn enter(self) -> Result<(), LandlockError> {
        self.created.restrict_self().map(drop).map_err(LandlockError::Enter)
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
#[path = "landlock_tests.rs"]
mod tests;

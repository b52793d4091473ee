//! From a bundle to a plan: everything that is decided about a launch, as data.

use super::bundle::*;
use super::cgroup_plan::{CgroupPlan, plan_cgroup};
use crate::security::{HostFeatures, Level};
use std::fmt;
use std::path::PathBuf;

/// What one launch does, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct LaunchPlan {
    /// The user namespace.
    pub user: UserPlan,
    /// Namespaces to make, by name (`mnt` always).
    pub new: Vec<Kind>,
    /// Namespaces to enter, by file.
    pub join: Vec<(Kind, PathBuf)>,
    /// Whether the root and binds are attached in a mount namespace of the host's user namespace first, so that a
    /// container with `CAP_SYS_ADMIN` can neither remount nor unmount them.
    pub locked: bool,
    /// Whether the kernel takes detached mounts as overlay layers and clones from them; otherwise they are attached in a
    /// mount namespace of a helper first.
    pub detached: bool,
    /// Whether the root is made without a writable layer once all places for mounts are there: a read-only root whose
    /// container keeps `CAP_SYS_ADMIN` in the host's user namespace, where no lock on a mount holds.
    pub sealed: bool,
    /// What the shim makes outside, in the order of the descriptors handed to the mounter.
    pub outside: Vec<Outside>,
    /// What the mounter does before the first process exists.
    pub early: Vec<Step>,
    /// What the mounter does with the mounts that process made.
    pub late: Vec<Step>,
    /// Control group.
    pub cgroup: CgroupPlan,
}

/// Where the user namespace comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserPlan {
    /// New, ids 0..65536 at `base`.
    Range {
        /// First host id.
        base: u32,
    },
    /// The host's.
    Host,
    /// Another container's.
    Join {
        /// Its file.
        path: PathBuf,
        /// First host id of its range.
        base: u32,
    },
}

impl UserPlan {
    /// Returns the host id of the container's root.
    pub fn base(&self) -> u32 {
        match self {
            Self::Range { base } | Self::Join { base, .. } => *base,
            Self::Host => 0,
        }
    }
}

/// Kinds of namespaces besides user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Mounts.
    Mount,
    /// Network.
    Net,
    /// Process ids.
    Pid,
    /// System V IPC and POSIX queues.
    Ipc,
    /// Host name.
    Uts,
    /// Control group view.
    Cgroup,
    /// Clocks.
    Time,
}

/// What the shim makes with the host's rights and hands over as a descriptor.
#[derive(Clone, Debug, PartialEq)]
pub enum Outside {
    /// The root file system.
    Root,
    /// A tmpfs with the device nodes every container has.
    Dev,
    /// The POSIX queues of the host's ipc namespace.
    HostQueues,
    /// A device node of its own.
    Node(Device),
    /// A clone of a host path.
    Clone {
        /// The path.
        path: PathBuf,
        /// With what is mounted below.
        recursive: bool,
        /// How ids are mapped.
        ids: CloneIds,
        /// Read-only.
        readonly: bool,
        /// Whether this is a view of the host's kernel, whose mounts keep their own flags.
        view: bool,
    },
}

/// Identity map of a cloned mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloneIds {
    /// Through the container's map: ids inside equal ids on disk.
    Same,
    /// This user and group change places with those the container's process runs as.
    Owner(u32, u32),
    /// As it is (host views such as `/sys`).
    Unmapped,
}

/// One step of the mounter.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Attach the device tmpfs at `/dev`, with a devpts, `/dev/shm` of so many bytes, and links.
    Dev {
        /// Size of `/dev/shm`, bytes.
        shm: u64,
    },
    /// POSIX queues of a new ipc namespace at `/dev/mqueue`.
    Mqueue,
    /// A new sysfs at `/sys`.
    Sys {
        /// Read-only.
        readonly: bool,
    },
    /// A descriptor from outside attached at a path.
    Attach {
        /// Index into [`LaunchPlan::outside`].
        outside: usize,
        /// Path inside.
        target: String,
    },
    /// A fresh tmpfs.
    Tmpfs {
        /// Path inside.
        target: String,
        /// Options for the file system: key and value.
        options: Vec<(String, String)>,
        /// Attributes of the mount (`sys::mount`).
        attributes: u64,
    },
    /// The terminal at `/dev/console`.
    Console,
    /// Make the working directory when missing.
    WorkingDir(String),
    /// Bring the loopback interface up, in a network that takes no router advertisements.
    Loopback,
    /// Set the host name.
    Hostname(String),
    /// Set the NIS domain name.
    Domainname(String),
    /// Write a kernel parameter; dots already turned into slashes.
    Sysctl {
        /// Path below `/proc/sys`.
        path: String,
        /// Value.
        value: String,
    },
    /// The process file system the first process made, at `/proc`.
    Proc,
    /// The control group view the first process made, at `/sys/fs/cgroup`.
    CgroupView,
    /// Cover a path by an empty file or directory.
    Mask(String),
    /// Make a path read-only.
    Readonly(String),
    /// Make the root read-only.
    RootReadonly,
}

/// A bundle that contradicts itself or this host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A namespace of another container needs that container's user namespace.
    #[error("join the {kind} namespace {path}: it belongs to another user namespace; join that one too (same range)")]
    ForeignNamespace {
        /// Kind.
        kind: &'static str,
        /// File.
        path: PathBuf,
    },
    /// A mount target under a kernel file system.
    #[error("mount at {0:?}: nothing may be mounted below /proc or /sys")]
    KernelTarget(String),
    /// A mount target that is not a plain absolute path.
    #[error("mount at {0:?}: the target must be an absolute path other than \"/\" without \"..\"")]
    BadTarget(String),
    /// A tmpfs option that is not known.
    #[error("tmpfs at {target}: unknown option {option:?}")]
    TmpfsOption {
        /// Path inside.
        target: String,
        /// Option.
        option: String,
    },
    /// A kernel parameter with an impossible name.
    #[error("sysctl {0:?}: not a kernel parameter's name")]
    Sysctl(String),
    /// A kernel parameter that no namespace has.
    #[error(
        "sysctl {0:?}: it belongs to the whole host, not to a container; known are net.*, fs.mqueue.* and kernel.{{msg*,sem,shm*}}"
    )]
    HostSysctl(String),
    /// A kernel parameter of a namespace that is the host's.
    #[error("sysctl {key:?}: the container uses the host's {kind} namespace, so it would change the host")]
    SharedSysctl {
        /// Name.
        key: String,
        /// Kind.
        kind: &'static str,
    },
    /// A value that is more than one line.
    #[error("sysctl {0:?}: the value has control characters")]
    SysctlValue(String),
    /// A limit whose controller the kernel does not offer.
    #[error(
        "limit {limit}: the kernel offers no {controller} controller (build option {option}, or it is not mounted)"
    )]
    NoController {
        /// What was asked for.
        limit: &'static str,
        /// The controller.
        controller: &'static str,
        /// Kernel build option.
        option: &'static str,
    },
    /// A limit with a value that cannot be.
    #[error("limit {limit}: {value:?} is not a valid value")]
    BadLimit {
        /// What was asked for.
        limit: &'static str,
        /// The value.
        value: String,
    },
    /// A name that is no group right below the hierarchy's.
    #[error("control group {0:?}: not a plain name")]
    CgroupPath(String),
}

/// The `CAP_SYS_ADMIN` bit.
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// Decides everything about a launch.
///
/// # Errors
/// When the bundle contradicts itself or asks for what this host lacks.
pub fn plan(bundle: &Bundle, host: &HostFeatures) -> Result<LaunchPlan, PlanError> {
    let user = match &bundle.userns {
        UserNamespace::Range { base } => UserPlan::Range { base: *base },
        UserNamespace::Host { .. } => UserPlan::Host,
        UserNamespace::Join { path, base } => UserPlan::Join { path: path.clone(), base: *base },
    };
    let privileged = bundle.hardening.level == Level::Privileged;
    let (new, join) = namespaces(bundle, &user)?;
    let mut outside = vec![Outside::Root, Outside::Dev];
    let mut early = Vec::new();
    if bundle.namespaces.uts == Namespace::New {
        if !bundle.hostname.is_empty() {
            early.push(Step::Hostname(bundle.hostname.clone()));
        }
        if !bundle.domainname.is_empty() {
            early.push(Step::Domainname(bundle.domainname.clone()));
        }
    }
    kernel_views(bundle, &user, privileged, &mut outside, &mut early);
    for device in &bundle.devices {
        check_target(&device.target)?;
        outside.push(Outside::Node(device.clone()));
        early.push(Step::Attach { outside: outside.len() - 1, target: device.target.clone() });
    }
    for mount in &bundle.mounts {
        check_target(&mount.target)?;
        early.push(one_mount(mount, &user, &mut outside)?);
    }
    if bundle.process.tty {
        early.push(Step::Console);
    }
    if !matches!(bundle.process.cwd.as_str(), "" | "/") {
        early.push(Step::WorkingDir(bundle.process.cwd.clone()));
    }
    early.extend(sysctls(bundle)?);
    let sys_admin = bundle.hardening.capabilities.0 & CAP_SYS_ADMIN != 0;
    Ok(LaunchPlan {
        detached: host.detached_layers,
        locked: sys_admin && user != UserPlan::Host,
        sealed: sys_admin
            && user == UserPlan::Host
            && bundle.root_readonly
            && matches!(bundle.root, Root::Overlay { .. }),
        late: late_steps(bundle, privileged),
        cgroup: plan_cgroup(bundle, &host.cgroups)?,
        user,
        new,
        join,
        outside,
        early,
    })
}

/// Namespaces to make, and those to enter with their paths.
type NewAndEntered = (Vec<Kind>, Vec<(Kind, PathBuf)>);

fn namespaces(bundle: &Bundle, user: &UserPlan) -> Result<NewAndEntered, PlanError> {
    let (mut new, mut join) = (vec![Kind::Mount], Vec::new());
    let wanted = &bundle.namespaces;
    let all = [
        (Kind::Net, &wanted.net),
        (Kind::Pid, &wanted.pid),
        (Kind::Ipc, &wanted.ipc),
        (Kind::Uts, &wanted.uts),
        (Kind::Cgroup, &wanted.cgroup),
        (Kind::Time, &wanted.time),
    ];
    for (kind, namespace) in all {
        match namespace {
            Namespace::New => new.push(kind),
            Namespace::Host => {}
            // Entering needs rights over the user namespace that owns it.
            Namespace::Join(path) if matches!(user, UserPlan::Range { .. }) => {
                return Err(PlanError::ForeignNamespace { kind: kind.name(), path: path.clone() });
            }
            Namespace::Join(path) => join.push((kind, path.clone())),
        }
    }
    Ok((new, join))
}

/// `/dev`, `/sys` and, in the host's pid namespace, `/proc`.
fn kernel_views(bundle: &Bundle, user: &UserPlan, privileged: bool, outside: &mut Vec<Outside>, early: &mut Vec<Step>) {
    let mut view = |path: &str, readonly: bool| {
        outside.push(Outside::Clone {
            path: path.into(),
            recursive: true,
            ids: CloneIds::Unmapped,
            readonly,
            view: true,
        });
        Step::Attach { outside: outside.len() - 1, target: path.to_owned() }
    };
    early.push(Step::Dev { shm: bundle.shm_size });
    let own_user = *user != UserPlan::Host;
    // A sysfs shows the network namespace's links and asks for rights over it.
    match bundle.namespaces.net {
        Namespace::Host if own_user => early.push(view("/sys", true)),
        _ => early.push(Step::Sys { readonly: !privileged }),
    }
    if bundle.namespaces.pid == Namespace::Host && own_user {
        early.push(view("/proc", false));
    }
    match bundle.namespaces.ipc {
        Namespace::Host if own_user => {
            outside.push(Outside::HostQueues);
            early.push(Step::Attach { outside: outside.len() - 1, target: "/dev/mqueue".to_owned() });
        }
        _ => early.push(Step::Mqueue),
    }
    if bundle.namespaces.net == Namespace::New {
        early.push(Step::Loopback);
    }
}

fn sysctls(bundle: &Bundle) -> Result<Vec<Step>, PlanError> {
    let mut steps = Vec::new();
    for (key, value) in &bundle.sysctls {
        let path = sysctl_path(key, &bundle.namespaces)?;
        if value.contains(|c: char| c.is_control() && c != '\t') {
            return Err(PlanError::SysctlValue(key.clone()));
        }
        steps.push(Step::Sysctl { path, value: value.clone() });
    }
    Ok(steps)
}

fn late_steps(bundle: &Bundle, privileged: bool) -> Vec<Step> {
    let mut late = Vec::new();
    let foreign_proc = bundle.namespaces.pid == Namespace::Host && !matches!(bundle.userns, UserNamespace::Host { .. });
    if !foreign_proc {
        late.push(Step::Proc);
    }
    if bundle.namespaces.cgroup == Namespace::New {
        late.push(Step::CgroupView);
    }
    if !privileged {
        // The kernel refuses new mounts inside a foreign proc.
        let skip = |path: &String| foreign_proc && path.starts_with("/proc");
        let paths = |list: &[String]| list.iter().filter(|p| !skip(p)).cloned().collect::<Vec<_>>();
        late.extend(paths(&bundle.hardening.readonly_paths).into_iter().map(Step::Readonly));
        late.extend(paths(&bundle.hardening.masked_paths).into_iter().map(Step::Mask));
    }
    if bundle.root_readonly {
        late.push(Step::RootReadonly);
    }
    late
}

fn one_mount(mount: &Mount, user: &UserPlan, outside: &mut Vec<Outside>) -> Result<Step, PlanError> {
    let target = mount.target.clone();
    let ids = |wanted: CloneIds| if *user == UserPlan::Host { CloneIds::Unmapped } else { wanted };
    match &mount.source {
        MountSource::Tmpfs { options } => tmpfs(target, options, mount.readonly),
        MountSource::Bind { path, recursive, ids: wanted } => {
            let wanted = match wanted {
                BindIds::Same => CloneIds::Same,
                BindIds::Owner { uid, gid } => CloneIds::Owner(*uid, *gid),
            };
            outside.push(Outside::Clone {
                path: path.clone(),
                recursive: *recursive,
                ids: ids(wanted),
                readonly: mount.readonly,
                view: false,
            });
            Ok(Step::Attach { outside: outside.len() - 1, target })
        }
        MountSource::OwnFile(path) => {
            outside.push(Outside::Clone {
                path: path.clone(),
                recursive: false,
                ids: ids(CloneIds::Same),
                readonly: mount.readonly,
                view: false,
            });
            Ok(Step::Attach { outside: outside.len() - 1, target })
        }
    }
}

/// Splits tmpfs options into those of the file system and those of the mount; Docker's defaults come first.
fn tmpfs(target: String, texts: &[String], readonly: bool) -> Result<Step, PlanError> {
    use crate::sys::mount::{NODEV, NOEXEC, NOSUID, RDONLY};
    let mut attributes = NOSUID | NODEV | NOEXEC | if readonly { RDONLY } else { 0 };
    let mut options = vec![("mode".to_owned(), "1777".to_owned())];
    for option in texts {
        match option.as_str() {
            "rw" => attributes &= !RDONLY,
            "ro" => attributes |= RDONLY,
            "exec" => attributes &= !NOEXEC,
            "noexec" => attributes |= NOEXEC,
            "suid" => attributes &= !NOSUID,
            "nosuid" | "nodev" | "" => {}
            other => {
                let (key, value) = other.split_once('=').unwrap_or((other, ""));
                if !matches!(key, "size" | "mode" | "uid" | "gid" | "nr_inodes" | "nr_blocks") || value.is_empty() {
                    return Err(PlanError::TmpfsOption { target, option: option.clone() });
                }
                options.retain(|(known, _)| known != key);
                options.push((key.to_owned(), value.to_owned()));
            }
        }
    }
    Ok(Step::Tmpfs { target, options, attributes })
}

/// Refuses targets that are not plain, and those whose spelling alone lies under a kernel file system; links that lead
/// there are refused when the path is walked.
fn check_target(target: &str) -> Result<(), PlanError> {
    let parts: Vec<&str> = target.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if !target.starts_with('/') || parts.is_empty() || parts.contains(&"..") || target.contains('\0') {
        return Err(PlanError::BadTarget(target.to_owned()));
    }
    if matches!(parts[0], "proc" | "sys") {
        return Err(PlanError::KernelTarget(target.to_owned()));
    }
    Ok(())
}

/// Parameters that belong to an ipc namespace (*namespaces(7)*), besides `fs/mqueue`.
const IPC_SYSCTLS: [&str; 9] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/auto_msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// Turns a parameter's name into its path, if it belongs to a namespace the container does not share: everything else is
/// the host's (CVE-2022-0811).
fn sysctl_path(key: &str, namespaces: &Namespaces) -> Result<String, PlanError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '_' | '-');
    let path = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
    if !key.chars().all(plain) || path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(PlanError::Sysctl(key.to_owned()));
    }
    let (namespace, kind) = match path.as_str() {
        path if path.starts_with("net/") => (&namespaces.net, "network"),
        path if path.starts_with("fs/mqueue/") || IPC_SYSCTLS.contains(&path) => (&namespaces.ipc, "ipc"),
        "kernel/hostname" | "kernel/domainname" => (&namespaces.uts, "uts"),
        _ => return Err(PlanError::HostSysctl(key.to_owned())),
    };
    if *namespace == Namespace::Host {
        return Err(PlanError::SharedSysctl { key: key.to_owned(), kind });
    }
    Ok(path)
}

impl Kind {
    /// Returns the name the namespace has below `/proc/PID/ns`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mount => "mnt",
            Self::Net => "net",
            Self::Pid => "pid",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }
}

impl fmt::Display for LaunchPlan {
    /// One line for each thing done, for `--explain` and tests.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            UserPlan::Range { base } => writeln!(f, "user namespace: new, 0..65536 at {base}")?,
            UserPlan::Host => writeln!(f, "user namespace: host")?,
            UserPlan::Join { path, base } => writeln!(f, "user namespace: {}, at {base}", path.display())?,
        }
        let names: Vec<_> = self.new.iter().map(|kind| kind.name()).collect();
        writeln!(f, "new namespaces: {}", names.join(" "))?;
        for (kind, path) in &self.join {
            writeln!(f, "enter {}: {}", kind.name(), path.display())?;
        }
        if self.locked {
            writeln!(f, "attach the root and binds with the host's rights first")?;
        }
        if !self.detached {
            writeln!(f, "make mounts in a namespace of a helper")?;
        }
        if self.sealed {
            writeln!(f, "make the root again without a writable layer")?;
        }
        for (index, item) in self.outside.iter().enumerate() {
            writeln!(f, "outside {index}: {item}")?;
        }
        for step in self.early.iter().chain(&self.late) {
            writeln!(f, "{step}")?;
        }
        write!(f, "{}", self.cgroup)
    }
}

impl fmt::Display for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Dev => f.write_str("dev"),
            Self::HostQueues => f.write_str("the host's message queues"),
            Self::Node(device) => write!(f, "device {}", device.rule()),
            Self::Clone { path, recursive, ids, readonly, view } => {
                write!(f, "clone {}", path.display())?;
                f.write_str(if *recursive { " and below" } else { "" })?;
                match ids {
                    CloneIds::Same => f.write_str(", ids same")?,
                    CloneIds::Owner(uid, gid) => write!(f, ", owner {uid}:{gid}")?,
                    CloneIds::Unmapped => f.write_str(", ids unmapped")?,
                }
                f.write_str(if *readonly { ", read-only" } else { "" })?;
                f.write_str(if *view { ", as it is" } else { "" })
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dev { shm } => write!(f, "/dev, /dev/pts, /dev/shm of {shm}"),
            Self::Mqueue => f.write_str("mqueue at /dev/mqueue"),
            Self::Sys { readonly } => write!(f, "sysfs at /sys{}", if *readonly { ", read-only" } else { "" }),
            Self::Attach { outside, target } => write!(f, "attach {outside} at {target}"),
            Self::Tmpfs { target, options, attributes } => {
                let options: Vec<_> = options.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "tmpfs at {target}: {} attributes {attributes:#x}", options.join(","))
            }
            Self::Console => f.write_str("terminal at /dev/console"),
            Self::WorkingDir(path) => write!(f, "working directory {path}"),
            Self::Loopback => f.write_str("loopback up"),
            Self::Hostname(name) => write!(f, "host name {name}"),
            Self::Domainname(name) => write!(f, "domain name {name}"),
            Self::Sysctl { path, value } => write!(f, "sysctl {path} = {value}"),
            Self::Proc => f.write_str("proc at /proc"),
            Self::CgroupView => f.write_str("control groups at /sys/fs/cgroup"),
            Self::Mask(path) => write!(f, "mask {path}"),
            Self::Readonly(path) => write!(f, "read-only {path}"),
            Self::RootReadonly => f.write_str("root read-only"),
        }
    }
}

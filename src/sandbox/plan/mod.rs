//! From a bundle to a plan: everything that is decided about a launch, as data.
//!
//! Here are the plan's parts and the order of its steps. What the user may mount is decided in `mounts`, which kernel
//! parameters a container may set in `sysctls`.

mod error;
mod mounts;
mod sysctls;
mod text;

pub use self::error::PlanError;
use self::mounts::{check_target, one_mount};
use self::sysctls::sysctls;
use super::bundle::*;
use super::cgroup_plan::{CgroupPlan, plan_cgroup};
use crate::security::{HostFeatures, Level};
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
    /// A copy of a file of ours.
    OwnFile {
        /// The path.
        path: PathBuf,
        /// Read-only.
        readonly: bool,
        /// Whose copy is shown instead, if it has one.
        of: Option<Neighbour>,
    },
    /// A path of a tree of its own.
    Tree {
        /// The tree.
        root: Root,
        /// Absolute path in it.
        path: String,
        /// Read-only.
        readonly: bool,
    },
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

/// Where another container has its copy of one of our files.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbour {
    /// Host pid of its first process.
    pub pid: i32,
    /// Absolute path inside.
    pub target: String,
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
        sealed: sys_admin && user == UserPlan::Host && bundle.root_readonly,
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

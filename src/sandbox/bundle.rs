//! What one launch needs: the engine's whole order to the sandbox, as data.

use crate::base::ContainerId;
use crate::security::Hardening;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Everything one launch needs; serialised into the shim and into `bundle/bundle.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bundle {
    /// The container.
    pub id: ContainerId,
    /// Its root file system.
    pub root: Root,
    /// Whether the root is attached read-only (`--read-only`).
    pub root_readonly: bool,
    /// Its user ids.
    pub userns: UserNamespace,
    /// The other namespaces.
    pub namespaces: Namespaces,
    /// Whether links come into its network namespace once that stands: what is set there waits for them, and the program.
    pub links_follow: bool,
    /// Host name inside; empty leaves the kernel's.
    pub hostname: String,
    /// NIS domain name inside; empty leaves the kernel's.
    pub domainname: String,
    /// The first process.
    pub process: Process,
    /// Mounts beyond the ones every container has (proc, sys, dev, pts, shm, mqueue, cgroup), in the order given.
    pub mounts: Vec<Mount>,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: u64,
    /// Host devices given with `--device`.
    pub devices: Vec<Device>,
    /// Namespaced sysctls, checked against the allow-list.
    pub sysctls: Vec<(String, String)>,
    /// Control group and limits.
    pub cgroup: Cgroup,
    /// Walls besides namespaces.
    pub hardening: Hardening,
    /// Whether our own init reaps and forwards signals as PID 1 (`--init`).
    pub init: bool,
    /// What must be enforced, or nothing starts (`--require landlock>=4`).
    pub require: Vec<String>,
}

/// Where the root file system comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Root {
    /// An overlay over committed snapshots; all directories lie below `store`.
    Overlay {
        /// Directory that holds all snapshots; one idmapped clone of it serves all layers.
        store: PathBuf,
        /// Lower directories relative to `store`, top-most first.
        lowers: Vec<PathBuf>,
        /// Upper directory relative to `store`.
        upper: PathBuf,
        /// Work directory relative to `store`.
        work: PathBuf,
        /// Whether the overlay may skip syncing (containers that are removed on exit).
        volatile: bool,
    },
    /// A directory of the host used as it is (`--rootfs`).
    Directory(PathBuf),
}

/// User ids of a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum UserNamespace {
    /// A private range: ids 0..65536 inside are `base..base+65536` outside.
    Range {
        /// First host id.
        base: u32,
    },
    /// The host's user namespace, and why (`--privileged`, `--net=host`).
    Host {
        /// The flag that asked for it, for `Enforced`.
        because: String,
    },
    /// The user namespace of another container's process (with `container:` networks).
    Join {
        /// Path of the namespace file, `/proc/PID/ns/user`.
        path: PathBuf,
        /// First host id of its range.
        base: u32,
    },
}

/// How one namespace is obtained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Namespace {
    /// A new one.
    New,
    /// The host's.
    Host,
    /// Another container's, by its namespace file.
    Join(PathBuf),
}

/// Namespaces besides user and mount, which are always new (user: see [`UserNamespace`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Network.
    pub net: Namespace,
    /// Process ids.
    pub pid: Namespace,
    /// System V IPC and POSIX queues.
    pub ipc: Namespace,
    /// Host name.
    pub uts: Namespace,
    /// Control group view.
    pub cgroup: Namespace,
    /// Clocks.
    pub time: Namespace,
}

/// A process to start: the first one or an added one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments; the program is looked up in the `PATH` of `env` inside the container.
    pub args: Vec<String>,
    /// `NAME=value` pairs.
    pub env: Vec<String>,
    /// Working directory inside; made when missing.
    pub cwd: String,
    /// User in any form of the image specification: empty, `user`, `uid`, `user:group`, `uid:gid`, `uid:group`, `user:gid`.
    pub user: String,
    /// Further groups (`--group-add`), names or numbers.
    pub groups: Vec<String>,
    /// Whether it gets a terminal of the container's devpts as its controlling terminal.
    pub tty: bool,
    /// Size of the terminal at start, rows and columns.
    pub tty_size: Option<(u16, u16)>,
    /// Resource limits: name as in `ulimit` of Docker (`nofile`), soft, hard.
    pub rlimits: Vec<(String, u64, u64)>,
    /// Adjustment of the kernel's out-of-memory score, -1000 to 1000.
    pub oom_score_adj: i32,
}

/// One more mount.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside; made when missing, walked by descriptor.
    pub target: String,
    /// What is mounted there.
    pub source: MountSource,
    /// Read-only.
    pub readonly: bool,
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MountSource {
    /// A directory or file of the host.
    Bind {
        /// Path on the host, already resolved.
        path: PathBuf,
        /// Whether mounts below it come along (`rbind`).
        recursive: bool,
        /// Which ids it shows.
        ids: BindIds,
    },
    /// One of our own files (hosts, resolv.conf, hostname, secrets of build steps), shown as a copy whose owner inside is its
    /// owner on disk, and that has little room to grow.
    OwnFile {
        /// The original.
        path: PathBuf,
        /// Host pid of the first process of the container whose copy is shown instead, where it has one at the same place: the
        /// one whose network is joined.
        of: Option<i32>,
    },
    /// A path of a tree of its own, links resolved inside that tree (mounts of build steps).
    Tree {
        /// The tree.
        root: Root,
        /// Absolute path in it.
        path: String,
    },
    /// A file or directory of ours whose owner on disk is one of the container's ids on the host already.
    Own(PathBuf),
    /// A fresh tmpfs.
    Tmpfs {
        /// Options such as `size=64m`, `mode=1777`, `noexec`; already validated.
        options: Vec<String>,
    },
}

/// How ids of a bind mount appear inside.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum BindIds {
    /// Ids inside equal ids on disk (Docker's behaviour; volumes, and sources owned by root).
    Same,
    /// The source belongs to an ordinary user: that user and the one the container's process runs as change places, so
    /// that what the process writes belongs to the source's owner; every other id is the same inside and on disk.
    Owner {
        /// The owner's user id on the host.
        uid: u32,
        /// The owner's group id on the host.
        gid: u32,
    },
}

/// A host device shown inside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Path inside.
    pub target: String,
    /// Block device instead of character device.
    pub block: bool,
    /// Major and minor number.
    pub number: (u32, u32),
    /// Permission bits of the host's node.
    pub mode: u32,
    /// Owner and group of the host's node; the same ids inside.
    pub owner: (u32, u32),
    /// `rwm` or a part of it.
    pub access: String,
}

/// A container's control group: its name below our parent group in each hierarchy, and its limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Name of the group in each hierarchy, see [`super::group_name`].
    pub path: String,
    /// Limits.
    pub limits: Limits,
}

/// Resource limits of a container; `None` means no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Memory and swap together in bytes.
    pub memory_swap: Option<u64>,
    /// Soft limit of memory in bytes.
    pub memory_reservation: Option<u64>,
    /// Number of processes and threads.
    pub pids: Option<u64>,
    /// CPU time in billionths of a CPU (`--cpus 1.5` = 1,500,000,000).
    pub nano_cpus: Option<u64>,
    /// Relative weight, Docker's `--cpu-shares` (1024 is the default).
    pub cpu_shares: Option<u64>,
    /// CFS quota in microseconds per period.
    pub cpu_quota: Option<i64>,
    /// CFS period in microseconds.
    pub cpu_period: Option<u64>,
    /// CPUs it may run on, e.g. `0-1`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes it may use.
    pub cpuset_mems: Option<String>,
}

impl Device {
    /// Returns the device as a rule of the devices control group: `c 10:200 rwm`.
    pub fn rule(&self) -> String {
        let (major, minor) = self.number;
        format!("{} {major}:{minor} {}", if self.block { 'b' } else { 'c' }, self.access)
    }
}

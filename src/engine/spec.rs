//! From a container's record to its bundle (pure).

use super::hardening::with_ping;
use super::record::{ContainerRecord, MountKind, MountPoint};
use super::request::NetworkMode;
use crate::sandbox::{BindIds, Bundle, Cgroup, Device, Mount, MountSource, Namespace, Namespaces, Root, UserNamespace};
use crate::security::{Hardening, Level, SeccompFilter};
use std::path::{Path, PathBuf};

/// Size of `/dev/shm` unless `--shm-size` says otherwise, as Docker's.
pub(super) const DEFAULT_SHM: u64 = 64 << 20;

/// What is known only at start.
#[derive(Clone, Debug)]
pub struct Circumstances {
    /// The root file system.
    pub root: Root,
    /// First host id of the container's own range; unused with the host's or another's user namespace.
    pub base: u32,
    /// The compiled filter.
    pub seccomp: Option<SeccompFilter>,
    /// Directory with the container's `hosts`, `hostname` and `resolv.conf`, which belong to its root.
    pub own_files: PathBuf,
    /// Owners of bind sources that are ordinary users', by source path.
    pub owners: Vec<(PathBuf, u32, u32)>,
    /// Device nodes of `--device` as they are on this boot.
    pub devices: Vec<Device>,
    /// The container whose network is joined: host pid and first host id (`None`: host user namespace).
    pub net_of: Option<(i32, Option<u32>)>,
    /// Pids of containers whose pid, ipc namespaces are joined.
    pub pid_of: Option<i32>,
    /// See `pid_of`.
    pub ipc_of: Option<i32>,
}

/// Assembles the bundle of one start.
pub fn assemble(record: &ContainerRecord, now: &Circumstances) -> Bundle {
    let request = &record.request;
    let mut mounts: Vec<Mount> = record.mounts.iter().map(|point| mount(point, now)).collect();
    mounts.extend(own_file_mounts(&now.own_files, &own_files(&record.mounts), now.net_of.map(|(pid, _)| pid)));
    let (userns, namespaces) = (user_namespace(record, now), namespaces(record, now));
    Bundle {
        id: record.id.clone(),
        root: now.root.clone(),
        root_readonly: request.read_only,
        hostname: if request.uts_mode == "host" { String::new() } else { record.hostname.clone() },
        domainname: request.domainname.clone().unwrap_or_default(),
        process: record.process.clone(),
        mounts,
        shm_size: request.shm_size.map_or(DEFAULT_SHM, |size| size.0),
        devices: now.devices.clone(),
        sysctls: sysctls(record, &userns, &namespaces),
        hardening: with_ping(
            Hardening { seccomp: now.seccomp.clone(), ..record.hardening.clone() },
            (&record.seccomp, &request.hardening.cap_drop),
            &userns,
            &namespaces.net,
        ),
        userns,
        namespaces,
        links_follow: true,
        cgroup: Cgroup { path: crate::sandbox::group_name(&record.id), limits: record.limits.clone() },
        init: request.init,
        require: request.require.clone(),
    }
}

/// Returns the kernel parameters: those asked for, and those of its network.
fn sysctls(record: &ContainerRecord, userns: &UserNamespace, namespaces: &Namespaces) -> Vec<(String, String)> {
    let mut all = record.request.sysctls.clone();
    for (key, value) in network_sysctls(userns, &namespaces.net) {
        if !all.iter().any(|(known, _)| known.replace('/', ".") == key) {
            all.push((key, value));
        }
    }
    all
}

/// Returns what Docker sets in a network of its own, so that any user may `ping` and serve ports below 1024 (moby
/// `daemon/oci_linux.go`, `WithSysctls`).
pub(super) fn network_sysctls(userns: &UserNamespace, net: &Namespace) -> Vec<(String, String)> {
    if *net != Namespace::New {
        return Vec::new();
    }
    // The largest group there is: outside a user namespace of its own the kernel takes no more.
    let groups = if matches!(userns, UserNamespace::Host { .. }) { "0 2147483647" } else { "0 65535" };
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", groups)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec()
}

/// Mounts our own files over those of `/etc`: copies of the container's own, or, as Docker has it, those of the container whose
/// network is joined (*docker run reference "--network"*).
fn own_file_mounts(dir: &Path, names: &[&str], of: Option<i32>) -> Vec<Mount> {
    let mount = |name: &&str| Mount {
        target: format!("/etc/{name}"),
        source: MountSource::OwnFile { path: dir.join(name), of },
        readonly: false,
    };
    names.iter().map(mount).collect()
}

/// Names of our own files that are mounted: none over a mount of the user's at the same place.
fn own_files(mounts: &[MountPoint]) -> Vec<&'static str> {
    let taken = |name: &str| mounts.iter().any(|m| m.target == format!("/etc/{name}") || m.target == "/etc");
    ["hosts", "hostname", "resolv.conf"].into_iter().filter(|name| !taken(name)).collect()
}

fn mount(point: &MountPoint, now: &Circumstances) -> Mount {
    let source = match point.kind {
        MountKind::Tmpfs => MountSource::Tmpfs { options: point.options.clone() },
        MountKind::Volume => MountSource::Bind { path: point.source.clone(), recursive: false, ids: BindIds::Same },
        MountKind::Bind => MountSource::Bind {
            path: point.source.clone(),
            recursive: point.recursive,
            ids: owner_of(&point.source, now),
        },
    };
    Mount { target: point.target.clone(), source, readonly: !point.writable }
}

/// Looks at a bind source: whose ids it shows.
pub(super) fn bind_ids(source: &Path) -> BindIds {
    use std::os::unix::fs::MetadataExt;
    match std::fs::metadata(source) {
        Ok(owner) if is_ordinary(owner.uid()) => BindIds::Owner { uid: owner.uid(), gid: owner.gid() },
        _ => BindIds::Same,
    }
}

/// Tells an ordinary user's id from those of the system, of files nobody owns, and of the ranges of containers.
pub(super) fn is_ordinary(uid: u32) -> bool {
    (1000..0x1000_0000).contains(&uid) && uid != 65_534
}

/// A bind source that belongs to an ordinary user shows that user as root (`facts/user-namespaces.md` §4).
fn owner_of(source: &Path, now: &Circumstances) -> BindIds {
    match now.owners.iter().find(|(path, ..)| path == source) {
        Some((_, uid, gid)) => BindIds::Owner { uid: *uid, gid: *gid },
        None => BindIds::Same,
    }
}

/// Which user namespace, and why the host's where it is (`facts/user-namespaces.md` §5).
fn user_namespace(record: &ContainerRecord, now: &Circumstances) -> UserNamespace {
    let request = &record.request;
    let host = |because: &str| UserNamespace::Host { because: because.to_owned() };
    if record.hardening.level == Level::Privileged {
        return host("--privileged");
    }
    if request.userns_mode == "host" {
        return host("--userns=host");
    }
    match (&request.network, now.net_of) {
        (NetworkMode::Container(name), Some((pid, base))) => match base {
            Some(base) => UserNamespace::Join { path: PathBuf::from(format!("/proc/{pid}/ns/user")), base },
            None => host(&format!("--network=container:{name} uses the host's")),
        },
        (NetworkMode::Host, _) if request.userns_mode != "private" => host("--net=host"),
        _ if request.pid_mode == "host" && request.userns_mode != "private" => host("--pid=host"),
        _ => UserNamespace::Range { base: now.base },
    }
}

fn namespaces(record: &ContainerRecord, now: &Circumstances) -> Namespaces {
    let request = &record.request;
    let join = |pid: Option<i32>, kind: &str| match pid {
        Some(pid) => Namespace::Join(PathBuf::from(format!("/proc/{pid}/ns/{kind}"))),
        None => Namespace::New,
    };
    let mode =
        |text: &str, pid: Option<i32>, kind: &str| if text == "host" { Namespace::Host } else { join(pid, kind) };
    Namespaces {
        net: match request.network {
            NetworkMode::Host => Namespace::Host,
            NetworkMode::Container(_) => join(now.net_of.map(|(pid, _)| pid), "net"),
            _ => Namespace::New,
        },
        pid: mode(&request.pid_mode, now.pid_of, "pid"),
        ipc: mode(&request.ipc_mode, now.ipc_of, "ipc"),
        uts: mode(&request.uts_mode, None, "uts"),
        cgroup: if request.cgroupns_mode == "host" { Namespace::Host } else { Namespace::New },
        time: Namespace::New,
    }
}

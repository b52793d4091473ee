//! Creating a container: everything that can be decided before it starts.

use super::hardening::{Walls, walls};
use super::merge::merge;
use super::record::{ContainerRecord, ImageUse, MountKind, MountPoint, SCHEMA};
use super::request::{CreateRequest, LimitRequest, MountRequest, NetworkMode};
use super::undo::Undo;
use super::{Engine, EngineError, names};
use crate::base::{ContainerId, Timestamp};
use crate::image::{Image, Images, Snapshotter};
use crate::oci::{ContainerConfig, Platform};
use crate::sandbox::Limits;
use crate::shim::LogPlan;
use crate::store::{FileLock, Lease, NameError, Names, StoreError, write_bytes};
use crate::sys::fault::{self, Point};
use crate::volume::{Volumes, fill};
use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Fewest bytes of memory a container may have, as with Docker: with less not even a shell starts.
const LEAST_MEMORY: u64 = 6 << 20;
/// Names tried before a container without `--name` is refused.
const NAME_TRIES: u32 = 10;

impl Engine {
    /// Creates a container and returns its record; on an error nothing of it is left.
    ///
    /// While the lease is kept the container counts as being made: a later command undoes it if this process dies.
    /// Whoever only creates drops it at once; `run` keeps it until a shim has taken over.
    ///
    /// # Errors
    /// When the image is missing, the name is taken, options conflict, or the store fails.
    pub fn create(&self, request: CreateRequest) -> Result<(ContainerRecord, Lease), EngineError> {
        check_conflicts(&request)?;
        self.settle_abandoned()?;
        let id = ContainerId::generate();
        let lease = Lease::take(&self.paths, id.as_str())?;
        let images = Images::open(&self.paths)?;
        let image = if request.image.is_empty() { None } else { Some(images.resolve(&request.image)?) };
        if let Some(image) = &image {
            check_platform(&request, image)?;
        }
        let no_config = ContainerConfig::default();
        let config = image.as_ref().map_or(&no_config, |image| &image.config.config);
        let hostname = match (&request.hostname, &request.network) {
            (Some(name), _) => name.clone(),
            (None, NetworkMode::Host) => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            // `hosts` is the other's too, and knows its name.
            (None, NetworkMode::Container(name)) => self.record(&self.find(name)?)?.hostname,
            (None, _) => id.short().to_owned(),
        };
        let merged = merge(&request, config, &hostname)?;
        let walls = walls(&request.hardening)?;
        let limits = limits(&request.limits, &self.settings.limits);
        let mut undo = Undo::new();
        self.make_directory(&id, &walls, &mut undo)?;
        let name = self.take_name(&request, &id, &mut undo)?;
        let mounts = self.mounts(&id, &request, image.as_ref(), config, &mut undo)?;
        if let Some(image) = &image {
            Snapshotter::new(&self.paths).prepare(id.as_str(), image)?;
            let (paths, id) = (&self.paths, id.clone());
            undo.push(move || drop(Snapshotter::new(paths).remove(id.as_str())));
        }
        let record = ContainerRecord {
            schema: SCHEMA,
            former_name: None,
            name,
            created: Timestamp::now(),
            image: image.as_ref().map(|image| ImageUse { name: request.image.clone(), id: image.id.clone() }),
            process: merged.process,
            env: merged.env,
            entrypoint: merged.entrypoint,
            command: merged.command,
            hostname,
            labels: merged.labels,
            exposed: merged.exposed,
            mounts,
            limits,
            hardening: walls.hardening,
            seccomp: walls.seccomp,
            restart: request.restart,
            stop_signal: merged.stop_signal,
            stop_timeout: merged.stop_timeout,
            health: merged.health,
            log: self.log_plan(&request, &id)?,
            network: self.unattached_network(&request),
            request,
            id,
        };
        record.save(&self.paths)?;
        fault::cut(Point::ContainerCreated);
        undo.keep();
        Ok((record, lease))
    }

    fn take_name<'a>(
        &'a self,
        request: &CreateRequest,
        id: &ContainerId,
        undo: &mut Undo<'a>,
    ) -> Result<String, EngineError> {
        let names = Names::new(&self.paths);
        let name = match &request.name {
            Some(name) => {
                let name = name.strip_prefix('/').unwrap_or(name).to_owned();
                self.reserve(&names, &name, id)?;
                name
            }
            None => {
                let mut attempt = 0;
                loop {
                    let name = names::generate(id.as_str(), attempt);
                    match self.reserve(&names, &name, id) {
                        Ok(()) => break name,
                        Err(EngineError::Name(NameError::Taken { .. })) if attempt < NAME_TRIES => attempt += 1,
                        Err(error) => return Err(error),
                    }
                }
            }
        };
        let (owner, taken) = (id.clone(), name.clone());
        undo.push(move || drop(names.release(&taken, &owner)));
        Ok(name)
    }

    /// Reserves a name; one whose owner is gone or died without clean-up is freed first.
    fn reserve(&self, names: &Names, name: &str, id: &ContainerId) -> Result<(), EngineError> {
        match names.reserve(name, id) {
            // Looking at the owner takes it down when its shim was killed and it was to be removed on exit.
            Err(NameError::Taken { owner, .. })
                if self.observe(&owner).is_err() && !self.paths.container(&owner).exists() =>
            {
                names.release(name, &owner)?;
                Ok(names.reserve(name, id)?)
            }
            other => Ok(other?),
        }
    }

    fn make_directory<'a>(&'a self, id: &ContainerId, walls: &Walls, undo: &mut Undo<'a>) -> Result<(), EngineError> {
        let dir = self.paths.container(id);
        DirBuilder::new().mode(0o700).create(&dir).map_err(StoreError::io("create directory", &dir))?;
        let made = dir.clone();
        undo.push(move || drop(std::fs::remove_dir_all(made)));
        fault::fail(Point::ContainerMade).map_err(StoreError::io("create directory", &dir))?;
        if let Some(profile) = &walls.profile {
            write_bytes(&dir.join("seccomp.json"), profile, crate::store::Durability::Atomic)?;
        }
        Ok(())
    }

    fn log_plan(&self, request: &CreateRequest, id: &ContainerId) -> Result<Option<LogPlan>, EngineError> {
        if request.log_driver.as_deref() == Some("none") {
            return Ok(None);
        }
        let mut plan = LogPlan {
            dir: self.paths.container(id).join("log"),
            max_size: self.settings.log.max_size.0,
            max_files: self.settings.log.max_files,
        };
        let bad =
            |key: &str, value: &str| EngineError::Conflict(format!("--log-opt {key}={value} is not a valid value"));
        for (key, value) in &request.log_options {
            match key.as_str() {
                "max-size" => {
                    plan.max_size = value.parse::<crate::base::Bytes>().map_err(|_| bad(key, value))?.0.max(4096);
                }
                "max-file" => plan.max_files = value.parse().ok().filter(|n| *n > 0).ok_or_else(|| bad(key, value))?,
                _ => {
                    let known = "known are max-size and max-file";
                    return Err(EngineError::Conflict(format!("unknown log option {key:?}; {known}")));
                }
            }
        }
        Ok(Some(plan))
    }

    /// Resolves all mounts: volumes are made and filled, bind sources checked.
    fn mounts<'a>(
        &'a self,
        id: &ContainerId,
        request: &CreateRequest,
        image: Option<&Image>,
        config: &ContainerConfig,
        undo: &mut Undo<'a>,
    ) -> Result<Vec<MountPoint>, EngineError> {
        let mut points: Vec<MountPoint> = Vec::new();
        let mut requests = request.mounts.clone();
        for volume in config.volumes.keys() {
            let target = clean_target(volume)?;
            if !requests.iter().any(|r| clean_target(target_of(r)).is_ok_and(|t| t == target)) {
                requests.push(MountRequest::Volume { name: None, target, readonly: false, nocopy: false });
            }
        }
        for mount in &requests {
            let target = clean_target(target_of(mount))?;
            if points.iter().any(|point| point.target == target) {
                return Err(EngineError::Conflict(format!("duplicate mount point: {target}")));
            }
            points.push(match mount {
                MountRequest::Bind { source, readonly, create, recursive, .. } => {
                    let source = bind_source(source, *create)?;
                    point(MountKind::Bind, String::new(), source, target, !readonly, *recursive)
                }
                MountRequest::Volume { name, readonly, nocopy, .. } => {
                    let name = self.volume(id, name.as_deref(), &target, image, *nocopy, undo)?;
                    let source = Volumes::new(&self.paths).data(&name.0);
                    let mut point = point(MountKind::Volume, name.0, source, target, !readonly, false);
                    point.anonymous = name.1;
                    point
                }
                MountRequest::Tmpfs { options, .. } => {
                    let mut point = point(MountKind::Tmpfs, String::new(), Default::default(), target, true, false);
                    point.options = options.clone();
                    point
                }
            });
        }
        Ok(points)
    }

    /// Returns a volume's name and whether it is anonymous; a new or empty one is filled from the image.
    fn volume<'a>(
        &'a self,
        id: &ContainerId,
        name: Option<&str>,
        target: &str,
        image: Option<&Image>,
        nocopy: bool,
        undo: &mut Undo<'a>,
    ) -> Result<(String, bool), EngineError> {
        let volumes = Volumes::new(&self.paths);
        let (volume, new) = volumes.create(name, &BTreeMap::new(), Some(id))?;
        if new {
            let name = volume.name.clone();
            undo.push(move || drop(Volumes::new(&self.paths).remove(&name)));
        }
        if let (Some(image), false) = (image, nocopy) {
            let _filling = FileLock::acquire_dir(&self.paths.volume(&volume.name))?;
            if volumes.is_empty(&volume.name)? {
                let lowers: Vec<_> = image.chain().iter().rev().map(|id| Path::new(id.hex()).join("fs")).collect();
                let root = crate::sandbox::view(&self.paths.snapshots(), &lowers).map_err(EngineError::View)?;
                let data = volumes.data(&volume.name);
                fault::fail(Point::VolumeFill).map_err(StoreError::io("fill volume", &data))?;
                fill(root.as_fd(), target, &volumes.data(&volume.name))?;
            }
        }
        Ok((volume.name, volume.anonymous))
    }
}

fn point(
    kind: MountKind,
    name: String,
    source: std::path::PathBuf,
    target: String,
    writable: bool,
    recursive: bool,
) -> MountPoint {
    MountPoint { kind, name, source, target, writable, anonymous: false, options: Vec::new(), recursive }
}

fn target_of(mount: &MountRequest) -> &str {
    match mount {
        MountRequest::Bind { target, .. }
        | MountRequest::Volume { target, .. }
        | MountRequest::Tmpfs { target, .. } => target,
    }
}

/// Cleans a mount target; images and users may name only absolute paths below the root, outside the kernel's trees.
pub(super) fn clean_target(target: &str) -> Result<String, EngineError> {
    let refuse = |reason: &str| Err(EngineError::Mount { target: target.to_owned(), reason: reason.to_owned() });
    if !target.starts_with('/') {
        return refuse("mount path must be absolute");
    }
    if target.contains('\0') {
        return refuse("it contains a zero byte");
    }
    let parts: Vec<&str> = target.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return refuse("it must not contain '..'");
    }
    match parts.first() {
        None => refuse("destination can't be '/'"),
        Some(&"proc" | &"sys") => refuse("nothing can be mounted in /proc and /sys, which show the kernel's view"),
        Some(_) => Ok(format!("/{}", parts.join("/"))),
    }
}

pub(super) fn bind_source(source: &Path, create: bool) -> Result<std::path::PathBuf, EngineError> {
    if create && !source.exists() {
        DirBuilder::new().recursive(true).create(source).map_err(StoreError::io("create directory", source))?;
    }
    std::fs::canonicalize(source).map_err(|_| EngineError::BindSource { path: source.to_owned() })
}

fn check_conflicts(request: &CreateRequest) -> Result<(), EngineError> {
    let conflict = |text: &str| Err(EngineError::Conflict(text.to_owned()));
    let shares_net = matches!(request.network, NetworkMode::Container(_));
    if request.auto_remove && request.restart != crate::shim::RestartPolicy::No {
        return conflict("cannot specify both --restart and --rm");
    }
    if shares_net && !request.publish.is_empty() {
        return conflict("port publishing and the container type network mode");
    }
    if shares_net && request.hostname.is_some() {
        return conflict("hostname and the container type network mode");
    }
    if request.hardening.privileged && !request.require.is_empty() {
        return conflict("--privileged enforces nothing, so --require cannot hold");
    }
    if let Some(memory) = request.limits.memory.filter(|memory| (1..LEAST_MEMORY).contains(&memory.0)) {
        return Err(EngineError::Memory(memory));
    }
    match &request.rootfs {
        Some(path) if !path.is_dir() => Err(EngineError::RootFs(path.clone())),
        _ => Ok(()),
    }
}

/// Refuses an image that is for another platform than the one asked for, this machine's unless told otherwise.
fn check_platform(request: &CreateRequest, image: &Image) -> Result<(), EngineError> {
    let wanted = match &request.platform {
        None => Platform::host(),
        Some(text) => Platform::parse(text).ok_or_else(|| EngineError::BadPlatform(text.clone()))?,
    };
    let has = image.config.platform();
    if has.runs_on(&wanted) {
        return Ok(());
    }
    Err(EngineError::Platform { image: request.image.clone(), has: has.to_string(), wanted: wanted.to_string() })
}

/// Limits in force: safe defaults where nothing is asked, zero and -1 lift.
pub(super) fn limits(request: &LimitRequest, defaults: &crate::config::DefaultLimits) -> Limits {
    let memory = match request.memory {
        Some(bytes) => Some(bytes.0).filter(|n| *n > 0),
        None => {
            let info = rustix::system::sysinfo();
            let total = info.totalram as u64 * u64::from(info.mem_unit);
            Some(total / 100 * u64::from(defaults.memory_percent)).filter(|n| *n > 0)
        }
    };
    Limits {
        memory,
        memory_swap: request.memory_swap.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0),
        memory_reservation: request.memory_reservation.map(|b| b.0).filter(|n| *n > 0),
        pids: match request.pids {
            Some(n) => u64::try_from(n).ok().filter(|n| *n > 0),
            None => Some(defaults.pids).filter(|n| *n > 0),
        },
        nano_cpus: request.nano_cpus.filter(|n| *n > 0),
        cpu_shares: request.cpu_shares.filter(|n| *n > 0),
        cpu_quota: request.cpu_quota.filter(|n| *n != 0),
        cpu_period: request.cpu_period.filter(|n| *n > 0),
        cpuset_cpus: request.cpuset_cpus.clone().filter(|s| !s.is_empty()),
        cpuset_mems: request.cpuset_mems.clone().filter(|s| !s.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_targets_are_cleaned_and_hostile_ones_refused() {
        for (target, clean) in [("/data/", "/data"), ("//a/./b", "/a/b"), ("/var/lib/mysql", "/var/lib/mysql")] {
            assert_eq!(clean_target(target).unwrap(), clean);
        }
        // CVE-2022-23648, CVE-2019-16884: image volumes that climb out or cover the kernel's trees.
        for bad in ["data", "/", "/../etc", "/a/../../etc", "/proc", "/proc/self", "/sys/fs", "/.", "/a\0b"] {
            assert!(clean_target(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn limits_have_safe_defaults_that_zero_lifts() {
        let defaults = crate::config::DefaultLimits::default();
        let all = limits(&LimitRequest::default(), &defaults);
        assert_eq!(all.pids, Some(2048));
        assert!(all.memory.unwrap() > 0);
        let lifted = LimitRequest { memory: Some(crate::base::Bytes(0)), pids: Some(-1), ..Default::default() };
        let all = limits(&lifted, &defaults);
        assert_eq!((all.pids, all.memory), (None, None));
    }
}

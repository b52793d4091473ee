//! What a start looks up on the host before anything of it exists: devices and owners of binds; and what it says of walls
//! that are down.

use super::EngineError;
use super::record::{ContainerRecord, MountKind};
use crate::sandbox::{Bundle, Device, UserNamespace};
use crate::security::{Capability, Level};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// Returns the bind sources that belong to ordinary users, with their owners.
pub(super) fn owners(record: &ContainerRecord) -> Vec<(std::path::PathBuf, u32, u32)> {
    let binds = record.mounts.iter().filter(|point| point.kind == MountKind::Bind);
    binds
        .filter_map(|point| {
            let owner = std::fs::metadata(&point.source).ok()?;
            super::spec::is_ordinary(owner.uid()).then(|| (point.source.clone(), owner.uid(), owner.gid()))
        })
        .collect()
}

/// Looks up the device nodes of `--device`; a directory stands for those in it. They are granted at every level: who asks
/// for one by its name means it.
pub(super) fn devices(record: &ContainerRecord) -> Result<Vec<Device>, EngineError> {
    let mut devices = Vec::new();
    for (host, target, access) in &record.request.devices {
        let refuse = |reason: String| EngineError::Device { path: host.clone(), reason };
        // A link such as /dev/disk/by-id/... names the node behind it.
        let found = std::fs::metadata(host).map_err(|error| refuse(error.to_string()))?;
        if found.is_dir() {
            for entry in std::fs::read_dir(host).map_err(|error| refuse(error.to_string()))?.flatten() {
                if let (Ok(found), Some(name)) = (entry.metadata(), entry.file_name().to_str()) {
                    devices.extend(device(&found, format!("{target}/{name}"), access));
                }
            }
        } else {
            let node = device(&found, target.clone(), access);
            devices.push(node.ok_or_else(|| refuse("it is not a device node".to_owned()))?);
        }
    }
    Ok(devices)
}

fn device(found: &std::fs::Metadata, target: String, access: &str) -> Option<Device> {
    let kind = found.file_type();
    (kind.is_char_device() || kind.is_block_device()).then(|| Device {
        target,
        block: kind.is_block_device(),
        number: (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev())),
        mode: found.mode() & 0o7777,
        owner: (found.uid(), found.gid()),
        access: access.to_owned(),
    })
}

/// Says in words when a container is not in a user namespace of its own.
pub(super) fn walls_down(bundle: &Bundle) -> Vec<String> {
    match (&bundle.userns, bundle.hardening.level) {
        (_, Level::Privileged) => vec![
            "--privileged: all capabilities and devices in the host's user namespace, no seccomp, no Landlock; a process \
             in this container can take over the host"
                .to_owned(),
        ],
        (UserNamespace::Host { because }, _) if bundle.hardening.capabilities.contains(Capability::SYS_ADMIN) => vec![format!(
            "{because}: root in this container is root of the host's user namespace, and with SYS_ADMIN it can make \
             read-only binds and volumes writable; the other walls stand"
        )],
        (UserNamespace::Host { because }, _) => {
            vec![format!("{because}: root in this container is root of the host's user namespace; the other walls stand")]
        }
        _ => Vec::new(),
    }
}

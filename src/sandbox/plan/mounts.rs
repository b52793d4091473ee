//! Mounts of the user: targets that are refused, what the shim clones outside, tmpfs with Docker's defaults.

use super::super::bundle::{BindIds, Mount, MountSource};
use super::{CloneIds, Neighbour, Outside, PlanError, Step, UserPlan};

/// Plans one mount: a clone made outside and attached, or a fresh tmpfs.
pub(super) fn one_mount(mount: &Mount, user: &UserPlan, outside: &mut Vec<Outside>) -> Result<Step, PlanError> {
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
        MountSource::Own(path) => {
            let (path, ids) = (path.clone(), CloneIds::Unmapped);
            outside.push(Outside::Clone { path, recursive: false, ids, readonly: mount.readonly, view: false });
            Ok(Step::Attach { outside: outside.len() - 1, target })
        }
        MountSource::Tree { root, path } => {
            outside.push(Outside::Tree { root: root.clone(), path: path.clone(), readonly: mount.readonly });
            Ok(Step::Attach { outside: outside.len() - 1, target })
        }
        MountSource::OwnFile { path, of } => {
            let of = of.map(|pid| Neighbour { pid, target: target.clone() });
            outside.push(Outside::OwnFile { path: path.clone(), readonly: mount.readonly, of });
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
pub(super) fn check_target(target: &str) -> Result<(), PlanError> {
    let parts: Vec<&str> = target.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if !target.starts_with('/') || parts.is_empty() || parts.contains(&"..") || target.contains('\0') {
        return Err(PlanError::BadTarget(target.to_owned()));
    }
    if matches!(parts[0], "proc" | "sys") {
        return Err(PlanError::KernelTarget(target.to_owned()));
    }
    Ok(())
}

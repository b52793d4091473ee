//! What follows once the first process exists: its proc and control group views, masks, read-only places.

use super::super::cgroup_plan::CgroupPlan;
use super::super::error::{Context, LaunchError};
use super::super::outside::make_readonly;
use super::super::plan::{LaunchPlan, Step};
use super::{QUIET, Tree, attach, clone_of, is_dir, new_mount, relative};
use crate::sys::mount::RDONLY;
use crate::sys::open::{Kind, ensure, open_no_links};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::*;
use std::os::fd::{AsFd, OwnedFd};

/// Controllers whose files programs read.
const READ_CONTROLLERS: [&str; 5] = ["memory", "cpu", "cpuacct", "cpuset", "pids"];

impl Tree<'_> {
    /// Performs the steps that need the first process's proc, and those that need no more than that.
    pub(in crate::sandbox) fn proc(&mut self, mut made: impl Iterator<Item = OwnedFd>) -> Result<(), LaunchError> {
        let plan = self.plan;
        let mut empty = None;
        for step in &plan.late {
            match step {
                Step::Proc => {
                    let proc = made.next().ok_or_else(|| LaunchError::refused("the first process sent no proc"))?;
                    self.attach_plain(proc.as_fd(), "proc")?;
                }
                Step::Mask(path) => self.mask(path, &mut empty)?,
                Step::Readonly(path) => {
                    if let Some(found) = self.kernel_path(path)? {
                        let mount = clone_of(found.as_fd(), c"", true, RDONLY).at(|| format!("clone {path}"))?;
                        attach(mount.as_fd(), found.as_fd()).at(|| format!("make {path} read-only"))?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Performs the steps that need its views of the control groups, and the last one.
    pub(in crate::sandbox) fn views(&mut self, mut made: impl Iterator<Item = OwnedFd>) -> Result<(), LaunchError> {
        let plan = self.plan;
        for step in &plan.late {
            match step {
                Step::CgroupView => self.cgroup_view(&mut made)?,
                Step::RootReadonly => make_readonly(self.root.as_fd()).at(|| "make the root read-only")?,
                _ => {}
            }
        }
        Ok(())
    }

    fn cgroup_view(&self, made: &mut impl Iterator<Item = OwnedFd>) -> Result<(), LaunchError> {
        let target = match open_no_links(self.root.as_fd(), "sys/fs/cgroup", OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => return Ok(()),
            other => other.at(|| "open /sys/fs/cgroup")?,
        };
        let missing = || LaunchError::refused("the first process sent no control group view");
        if self.plan.cgroup.unified {
            let mount = made.next().ok_or_else(missing)?;
            return attach(mount.as_fd(), target.as_fd()).at(|| "mount /sys/fs/cgroup");
        }
        let top = new_mount("tmpfs", &[("mode", "0755"), ("size", "64k")], QUIET).at(|| "make /sys/fs/cgroup")?;
        attach(top.as_fd(), target.as_fd()).at(|| "mount /sys/fs/cgroup")?;
        for controllers in views(&self.plan.cgroup) {
            let name = controllers.join(",");
            let place = ensure(top.as_fd(), &name, Kind::Directory).at(|| format!("make /sys/fs/cgroup/{name}"))?;
            let mount = made.next().ok_or_else(missing)?;
            attach(mount.as_fd(), place.as_fd()).at(|| format!("mount /sys/fs/cgroup/{name}"))?;
            if controllers.len() > 1 {
                for one in controllers {
                    rustix::fs::symlinkat(name.as_str(), &top, one.as_str()).at(|| format!("link {one}"))?;
                }
            }
        }
        make_readonly(top.as_fd()).at(|| "make /sys/fs/cgroup read-only")
    }

    /// Opens a path of the hardening lists; `None` when this kernel does not have it.
    fn kernel_path(&self, path: &str) -> Result<Option<OwnedFd>, LaunchError> {
        match open_no_links(self.root.as_fd(), relative(path), OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            other => other.map(Some).at(|| format!("open {path} (a link there is refused)")),
        }
    }

    fn mask(&self, path: &str, empty: &mut Option<OwnedFd>) -> Result<(), LaunchError> {
        let Some(found) = self.kernel_path(path)? else { return Ok(()) };
        let cover = if is_dir(found.as_fd()).at(|| format!("look at {path}"))? {
            match empty {
                // A mount is attached once; further places get clones of it.
                Some(source) => clone_of(source.as_fd(), c"", false, RDONLY),
                None => {
                    let attributes = QUIET | MountAttrFlags::MOUNT_ATTR_RDONLY;
                    let options = [("size", "4k"), ("nr_inodes", "2"), ("mode", "0755")];
                    let source =
                        empty.insert(new_mount("tmpfs", &options, attributes).at(|| "make an empty directory")?);
                    return attach(source.as_fd(), found.as_fd()).at(|| format!("mask {path}"));
                }
            }
        } else {
            let dev = self.outside.get(1).ok_or_else(|| LaunchError::refused("the shim sent no /dev"))?;
            clone_of(dev.as_fd(), c"null", false, RDONLY)
        };
        attach(cover.at(|| format!("make a cover for {path}"))?.as_fd(), found.as_fd()).at(|| format!("mask {path}"))
    }
}

/// Returns the controllers of each version 1 hierarchy that is shown inside, in order.
fn views(plan: &CgroupPlan) -> impl Iterator<Item = &Vec<String>> {
    plan.groups
        .iter()
        .filter(|group| group.controllers.iter().any(|name| READ_CONTROLLERS.contains(&name.as_str())))
        .map(|group| &group.controllers)
}

/// Makes the proc that only a process inside the pid namespace can make, detached; none where the host's is shown.
pub(in crate::sandbox) fn proc_mount(plan: &LaunchPlan) -> Result<Vec<OwnedFd>, LaunchError> {
    let wanted = plan.late.iter().filter(|step| **step == Step::Proc);
    wanted.map(|_| new_mount("proc", &[], QUIET).at(|| "make the process file system")).collect()
}

/// Makes the mounts only a process inside the control group namespace can make, detached.
pub(in crate::sandbox) fn cgroup_mounts(plan: &LaunchPlan) -> Result<Vec<OwnedFd>, LaunchError> {
    if !plan.late.contains(&Step::CgroupView) {
        return Ok(Vec::new());
    }
    if plan.cgroup.unified {
        let attributes = QUIET | MountAttrFlags::MOUNT_ATTR_RDONLY;
        return Ok(vec![new_mount("cgroup2", &[], attributes).at(|| "make the control group view")?]);
    }
    let show = |controllers: &Vec<String>| {
        cgroup_v1(controllers).at(|| format!("show control group {}", controllers.join(",")))
    };
    views(&plan.cgroup).map(show).collect()
}

fn cgroup_v1(controllers: &[String]) -> Result<OwnedFd, Errno> {
    let context = fsopen("cgroup", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for name in controllers {
        fsconfig_set_flag(context.as_fd(), name.as_str())?;
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, QUIET | MountAttrFlags::MOUNT_ATTR_RDONLY)
}

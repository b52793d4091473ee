//! The mounter's work: assembling a container's tree from descriptors, before any process of it exists.

use super::cgroup_plan::CgroupPlan;
use super::error::{Context, LaunchError};
use super::outside::make_readonly;
use super::plan::{LaunchPlan, Step};
use crate::sys::mount::{RDONLY, clone_mapped};
use crate::sys::open::{Kind, ensure, open_in_root, open_no_links};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::*;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

pub(super) const QUIET: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV).union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Controllers whose files programs read.
const READ_CONTROLLERS: [&str; 5] = ["memory", "cpu", "cpuacct", "cpuset", "pids"];

/// A tree under construction.
pub(super) struct Tree<'a> {
    plan: &'a LaunchPlan,
    /// Mount of the root, attached at `at`.
    pub(super) root: OwnedFd,
    at: &'a Path,
    outside: &'a [OwnedFd],
    attached: Vec<usize>,
    tty_size: Option<(u16, u16)>,
    /// The devpts; terminals are opened here.
    pub(super) pts: Option<OwnedFd>,
    /// Master and slave of the first process's terminal.
    pub(super) terminal: Option<(OwnedFd, OwnedFd)>,
}

/// Makes a file system of this kind with string options and returns its mount.
pub(super) fn new_mount(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(context.as_fd(), *key, *value)?;
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Attaches a detached mount on what `target` refers to.
pub(super) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", target, c"", flags)
}

/// Attaches a detached mount on a host path of this mount namespace.
pub(super) fn attach_at(mount: BorrowedFd<'_>, path: &Path) -> Result<(), Errno> {
    move_mount(mount, c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn clone_of(dir: BorrowedFd<'_>, path: &CStr, recursive: bool, set: u64) -> Result<OwnedFd, Errno> {
    clone_mapped(dir, path, recursive, set, None)
}

fn relative(path: &str) -> &str {
    let path = path.trim_start_matches('/');
    if path.is_empty() { "." } else { path }
}

fn is_dir(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    rustix::fs::fstat(fd).map(|found| FileType::from_raw_mode(found.st_mode).is_dir())
}

impl<'a> Tree<'a> {
    /// Starts with a root mount that is attached at `at`.
    pub(super) fn new(plan: &'a LaunchPlan, root: OwnedFd, at: &'a Path, outside: &'a [OwnedFd]) -> Self {
        Self { plan, root, at, outside, attached: Vec::new(), tty_size: None, pts: None, terminal: None }
    }

    /// Sets the first size of the terminal, rows and columns.
    pub(super) fn set_tty_size(&mut self, size: Option<(u16, u16)>) {
        self.tty_size = size;
    }

    /// Attaches, with the host's rights, the binds that no later mount of the container itself lies above.
    pub(super) fn attach_locked(&mut self) -> Result<(), LaunchError> {
        let mut covered: Vec<&str> = vec!["/dev", "/proc", "/sys"];
        let readonly = self.plan.late.contains(&Step::RootReadonly);
        for step in &self.plan.early {
            match step {
                Step::Tmpfs { target, .. } => {
                    if readonly && !covered.iter().any(|above| Path::new(target).starts_with(above)) {
                        self.target(target, Kind::Directory)?;
                    }
                    covered.push(target);
                }
                Step::WorkingDir(path)
                    if readonly && !covered.iter().any(|above| Path::new(path).starts_with(above)) =>
                {
                    self.target_inside(path, Kind::Directory)?;
                }
                Step::Attach { outside, target }
                    if !covered.iter().any(|above| Path::new(target).starts_with(above)) =>
                {
                    self.attach_outside(*outside, target)?;
                    self.attached.push(*outside);
                }
                _ => {}
            }
        }
        if readonly {
            // Now, so that it is locked with the rest: made read-only inside, SYS_ADMIN could take it back. What is
            // mounted later must find its place.
            for path in ["dev", "proc", "sys"] {
                self.plain_dir(path)?;
            }
            make_readonly(self.root.as_fd()).at(|| "make the root read-only")?;
        }
        Ok(())
    }

    /// Makes the places of all mounts in the root, while it can be written.
    pub(super) fn places(&self) -> Result<(), LaunchError> {
        for path in ["dev", "proc", "sys"] {
            self.plain_dir(path)?;
        }
        let mut covered: Vec<&str> = vec!["/dev", "/proc", "/sys"];
        for step in &self.plan.early {
            let (target, kind) = match step {
                Step::Tmpfs { target, .. } | Step::WorkingDir(target) => (target, Kind::Directory),
                Step::Attach { outside, target } => match self.outside.get(*outside) {
                    Some(source) if !is_dir(source.as_fd()).at(|| format!("look at the source of {target}"))? => {
                        (target, Kind::File)
                    }
                    _ => (target, Kind::Directory),
                },
                _ => continue,
            };
            if !covered.iter().any(|above| Path::new(target).starts_with(above)) {
                self.target_inside(target, kind)?;
            }
            if !matches!(step, Step::WorkingDir(_)) {
                covered.push(target);
            }
        }
        Ok(())
    }

    /// Names the binds attached already, for the tree that goes on in another namespace.
    pub(super) fn already(&mut self, attached: Vec<usize>) {
        self.attached = attached;
    }

    /// Gives up the list of [`Self::already`].
    pub(super) fn into_attached(self) -> Vec<usize> {
        self.attached
    }

    /// Performs steps that come before the first process.
    pub(super) fn steps(&mut self, steps: &[&Step]) -> Result<(), LaunchError> {
        steps.iter().try_for_each(|step| self.early_step(step))
    }

    fn early_step(&mut self, step: &Step) -> Result<(), LaunchError> {
        match step {
            Step::Dev { shm } => self.dev(*shm),
            Step::Mqueue => {
                let mount = new_mount("mqueue", &[], QUIET).at(|| "make the message queue file system")?;
                self.attach_plain(mount.as_fd(), "dev/mqueue")
            }
            Step::Sys { readonly } => {
                let attributes = if *readonly { QUIET | MountAttrFlags::MOUNT_ATTR_RDONLY } else { QUIET };
                let mount = new_mount("sysfs", &[], attributes).at(|| "make sysfs")?;
                self.attach_plain(mount.as_fd(), "sys")
            }
            Step::Attach { outside, .. } if self.attached.contains(outside) => Ok(()),
            Step::Attach { outside, target } => self.attach_outside(*outside, target),
            Step::Tmpfs { target, options, attributes } => {
                let options: Vec<_> = options.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
                let attributes = MountAttrFlags::from_bits_retain(*attributes as u32);
                let mount = new_mount("tmpfs", &options, attributes).at(|| format!("make a tmpfs for {target}"))?;
                let target_fd = self.target(target, Kind::Directory)?;
                attach(mount.as_fd(), target_fd.as_fd()).at(|| format!("mount a tmpfs at {target}"))
            }
            Step::Console => self.console(),
            Step::WorkingDir(path) => self.target_inside(path, Kind::Directory).map(drop),
            Step::Loopback => {
                refuse_advertisements();
                loopback_up().at(|| "bring the loopback interface up")
            }
            Step::Hostname(name) => rustix::system::sethostname(name.as_bytes()).at(|| format!("set host name {name}")),
            Step::Domainname(name) => {
                rustix::system::setdomainname(name.as_bytes()).at(|| format!("set domain name {name}"))
            }
            Step::Sysctl { path, value } => sysctl(path, value),
            _ => Ok(()),
        }
    }

    /// Performs the steps that need what the first process made: its proc and its views of the control groups.
    pub(super) fn late(&mut self, mut made: impl Iterator<Item = OwnedFd>) -> Result<(), LaunchError> {
        let plan = self.plan;
        let mut empty = None;
        let missing = || LaunchError::refused("the first process sent no mount");
        for step in &plan.late {
            match step {
                Step::Proc => self.attach_plain(made.next().ok_or_else(missing)?.as_fd(), "proc")?,
                Step::CgroupView => self.cgroup_view(&mut made)?,
                Step::Mask(path) => self.mask(path, &mut empty)?,
                Step::Readonly(path) => {
                    if let Some(found) = self.kernel_path(path)? {
                        let mount = clone_of(found.as_fd(), c"", true, RDONLY).at(|| format!("clone {path}"))?;
                        attach(mount.as_fd(), found.as_fd()).at(|| format!("make {path} read-only"))?;
                    }
                }
                Step::RootReadonly => make_readonly(self.root.as_fd()).at(|| "make the root read-only")?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Opens a directory of the root that must be one in truth, making it when missing.
    fn plain_dir(&self, path: &str) -> Result<OwnedFd, LaunchError> {
        let open = || open_no_links(self.root.as_fd(), path, OFlags::PATH | OFlags::DIRECTORY);
        let what = || format!("open /{path} of the image (it must be a directory, not a link)");
        match open() {
            Err(Errno::NOENT) => {
                rustix::fs::mkdirat(&self.root, path, Mode::from_raw_mode(0o755)).at(|| format!("make /{path}"))?;
                open().at(what)
            }
            other => other.at(what),
        }
    }

    fn attach_plain(&self, mount: BorrowedFd<'_>, path: &str) -> Result<(), LaunchError> {
        let target = self.plain_dir(path)?;
        attach(mount, target.as_fd()).at(|| format!("mount at /{path}"))
    }

    /// Opens a mount target, refusing one that links lead under `/proc` or `/sys`.
    fn target(&self, path: &str, kind: Kind) -> Result<OwnedFd, LaunchError> {
        self.refuse_kernel(path, self.target_inside(path, kind)?)
    }

    fn target_inside(&self, path: &str, kind: Kind) -> Result<OwnedFd, LaunchError> {
        ensure(self.root.as_fd(), relative(path), kind).at(|| format!("make {path} inside the container"))
    }

    fn refuse_kernel(&self, path: &str, target: OwnedFd) -> Result<OwnedFd, LaunchError> {
        let link = format!("/proc/self/fd/{}", target.as_raw_fd());
        let place = std::fs::read_link(&link).at(|| format!("find {path} inside the container"))?;
        let inside = place.strip_prefix(self.at).unwrap_or(&place);
        match inside.components().next() {
            Some(std::path::Component::Normal(first)) if first == "proc" || first == "sys" => {
                Err(LaunchError::refused(format!(
                    "mount at {path}: a link of the image leads it to /{}, where nothing may be mounted",
                    inside.display()
                )))
            }
            None => Err(LaunchError::refused(format!("mount at {path}: a link of the image leads it to the root"))),
            _ => Ok(target),
        }
    }

    fn attach_outside(&self, outside: usize, target: &str) -> Result<(), LaunchError> {
        let mount = self.outside.get(outside).ok_or_else(|| LaunchError::refused("the shim sent no mount"))?;
        // Host views of whole kernel file systems; mounts of the user never have these spellings.
        if matches!(target, "/proc" | "/sys" | "/dev/mqueue") {
            return self.attach_plain(mount.as_fd(), relative(target));
        }
        let dir = is_dir(mount.as_fd()).at(|| format!("look at the source of {target}"))?;
        let found = self.target(target, if dir { Kind::Directory } else { Kind::File })?;
        if is_dir(found.as_fd()).at(|| format!("look at {target}"))? != dir {
            let (source, there) = if dir { ("directory", "file") } else { ("file", "directory") };
            return Err(LaunchError::refused(format!("mount a {source} at {target}: the image has a {there} there")));
        }
        attach(mount.as_fd(), found.as_fd()).at(|| format!("mount at {target}"))
    }

    fn dev(&mut self, shm: u64) -> Result<(), LaunchError> {
        let dev = self.outside.get(1).ok_or_else(|| LaunchError::refused("the shim sent no /dev"))?;
        self.attach_plain(dev.as_fd(), "dev")?;
        let place = |name: &str| {
            open_no_links(dev.as_fd(), name, OFlags::PATH | OFlags::DIRECTORY).at(|| format!("open /dev/{name}"))
        };
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let pts = new_mount("devpts", &[("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")], attributes)
            .at(|| "make the container's devpts")?;
        attach(pts.as_fd(), place("pts")?.as_fd()).at(|| "mount /dev/pts")?;
        self.pts = Some(pts);
        let size = shm.to_string();
        let shm = new_mount("tmpfs", &[("mode", "1777"), ("size", &size)], QUIET).at(|| "make /dev/shm")?;
        attach(shm.as_fd(), place("shm")?.as_fd()).at(|| "mount /dev/shm")
    }

    /// Opens the first process's terminal and shows it as `/dev/console`.
    fn console(&mut self) -> Result<(), LaunchError> {
        let pts = self.pts.as_ref().ok_or_else(|| LaunchError::refused("the container has no devpts"))?;
        let (master, slave) = open_terminal(pts.as_fd(), self.tty_size).at(|| "open a terminal")?;
        let dev = self.outside.get(1).ok_or_else(|| LaunchError::refused("the shim sent no /dev"))?;
        let console = ensure(dev.as_fd(), "console", Kind::File).at(|| "make /dev/console")?;
        let mount = clone_of(slave.as_fd(), c"", false, 0).at(|| "clone the terminal")?;
        attach(mount.as_fd(), console.as_fd()).at(|| "mount /dev/console")?;
        self.terminal = Some((master, slave));
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

    /// Makes the tree the root of this mount namespace and lets everything else go.
    pub(super) fn pivot(&self) -> Result<(), LaunchError> {
        rustix::process::fchdir(&self.root).at(|| "enter the new root")?;
        rustix::process::pivot_root(".", ".").at(|| "change the root")?;
        // The old root now lies over the new one, and the new one is the working directory.
        unmount(".", UnmountFlags::DETACH).at(|| "let the host's tree go")?;
        rustix::process::chdir("/").at(|| "enter the new root")
    }
}

/// Returns the controllers of each version 1 hierarchy that is shown inside, in order.
pub(super) fn views(plan: &CgroupPlan) -> impl Iterator<Item = &Vec<String>> {
    plan.groups
        .iter()
        .filter(|group| group.controllers.iter().any(|name| READ_CONTROLLERS.contains(&name.as_str())))
        .map(|group| &group.controllers)
}

/// Makes the mounts only a process inside the pid and control group namespaces can make, detached.
pub(super) fn inner_mounts(plan: &LaunchPlan) -> Result<Vec<OwnedFd>, LaunchError> {
    let mut mounts = Vec::new();
    for step in &plan.late {
        match step {
            Step::Proc => mounts.push(new_mount("proc", &[], QUIET).at(|| "make the process file system")?),
            Step::CgroupView if plan.cgroup.unified => {
                let attributes = QUIET | MountAttrFlags::MOUNT_ATTR_RDONLY;
                mounts.push(new_mount("cgroup2", &[], attributes).at(|| "make the control group view")?);
            }
            Step::CgroupView => {
                for controllers in views(&plan.cgroup) {
                    mounts.push(cgroup_v1(controllers).at(|| format!("show control group {}", controllers.join(",")))?);
                }
            }
            _ => {}
        }
    }
    Ok(mounts)
}

fn cgroup_v1(controllers: &[String]) -> Result<OwnedFd, Errno> {
    let context = fsopen("cgroup", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for name in controllers {
        fsconfig_set_flag(context.as_fd(), name.as_str())?;
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, QUIET | MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// Opens a new terminal of a devpts: master and slave.
pub(super) fn open_terminal(pts: BorrowedFd<'_>, size: Option<(u16, u16)>) -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = open_in_root(pts, "ptmx", flags)?;
    rustix::pty::unlockpt(&master)?;
    let peer = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, peer)?;
    if let Some((rows, columns)) = size {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size)?;
    }
    Ok((master, slave))
}

/// Lets no neighbour become this network namespace's router (CVE-2020-13401); nothing to do without IPv6.
fn refuse_advertisements() {
    const PLACE: &str = "/proc/sys/net/ipv6/conf";
    for entry in std::fs::read_dir(PLACE).into_iter().flatten().flatten() {
        // An interface that vanishes meanwhile has no neighbours either.
        if let Ok(file) =
            rustix::fs::open(entry.path().join("accept_ra"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        {
            let _ = rustix::io::write(&file, b"0");
        }
    }
}

fn loopback_up() -> Result<(), Errno> {
    crate::sys::net::interface_up(c"lo")
}

/// Writes a kernel parameter of this process's namespaces, through the host's proc.
fn sysctl(path: &str, value: &str) -> Result<(), LaunchError> {
    let what = || format!("write {value:?} to sysctl {}", path.replace('/', "."));
    let root =
        rustix::fs::open("/proc/sys", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at(what)?;
    let file = open_no_links(root.as_fd(), path, OFlags::WRONLY).map_err(|errno| match errno {
        // Older kernels do not make net.core and others in network namespaces of user namespaces but the first.
        Errno::NOENT => LaunchError::refused(format!(
            "{}: this kernel has no such parameter in a user namespace of a container's own; it may have it with --userns=host",
            what()
        )),
        errno => LaunchError::failed(what(), errno),
    })?;
    rustix::io::write(&file, value.as_bytes()).at(what).map(drop)
}

//! The mounter's work: assembling a container's tree from descriptors.
//!
//! Here is what is done before any process of the container exists, and the change of root; what needs the mounts the
//! first process made is in `late`, what is set in the kernel in `kernel`.

mod kernel;
mod late;

pub(super) use self::kernel::network_step;
pub(super) use self::late::{cgroup_mounts, proc_mount};
use super::error::{Context, LaunchError};
use super::outside::make_readonly;
use super::plan::{LaunchPlan, Step};
use crate::sys::mount::clone_mapped;
use crate::sys::open::{Kind, ensure, open_in_root, open_no_links};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::*;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

pub(super) const QUIET: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV).union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

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
            Step::Hostname(name) => rustix::system::sethostname(name.as_bytes()).at(|| format!("set host name {name}")),
            Step::Domainname(name) => {
                rustix::system::setdomainname(name.as_bytes()).at(|| format!("set domain name {name}"))
            }
            _ => Ok(()),
        }
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

    /// Makes the tree the root of this mount namespace and lets everything else go.
    pub(super) fn pivot(&self) -> Result<(), LaunchError> {
        rustix::process::fchdir(&self.root).at(|| "enter the new root")?;
        rustix::process::pivot_root(".", ".").at(|| "change the root")?;
        // The old root now lies over the new one, and the new one is the working directory.
        unmount(".", UnmountFlags::DETACH).at(|| "let the host's tree go")?;
        rustix::process::chdir("/").at(|| "enter the new root")
    }
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

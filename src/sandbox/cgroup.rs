//! Control groups of a running container: made, joined, frozen, emptied, removed.

use super::cgroup_plan::{CgroupPlan, Group};
use super::device_rules::{DeviceRule, assemble};
use super::error::{Context, LaunchError, reason};
use crate::sys::bpf::{attach_device_program, load_device_program};
use crate::sys::fault::{self, Point};
use crate::sys::process::pidfd_kill;
use rustix::fs::{AtFlags, Mode, OFlags, unlinkat};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest wait for the kernel to freeze or empty a group.
const PATIENCE: Duration = Duration::from_secs(10);

/// A container's groups, one in each hierarchy.
#[derive(Debug)]
pub struct Cgroups {
    unified: bool,
    path: String,
    groups: Vec<Made>,
    /// Limits asked for that this kernel has no file for.
    pub(super) missing: Vec<String>,
}

#[derive(Debug)]
struct Made {
    mount: PathBuf,
    controllers: Vec<String>,
    dir: PathBuf,
}

/// Name of the group below `<id>` that holds the container's processes (unified hierarchy only; the keeper needs one
/// of its own beside it, and no process may live in their parent).
const PAYLOAD: &str = "payload";
const KEEPER: &str = "keeper";

/// How rules for devices are told of.
pub(super) const DEVICES: &str = "devices";

impl Cgroups {
    /// Makes the groups of a plan and writes the limits; `owner` is the host id that may move processes inside.
    pub(super) fn create(plan: &CgroupPlan, owner: u32) -> Result<Self, LaunchError> {
        let mut made = Self { unified: plan.unified, path: plan.path.clone(), groups: Vec::new(), missing: Vec::new() };
        match made.fill(plan, owner) {
            Ok(()) => Ok(made),
            Err(error) => {
                made.remove();
                Err(error)
            }
        }
    }

    fn fill(&mut self, plan: &CgroupPlan, owner: u32) -> Result<(), LaunchError> {
        for group in &plan.groups {
            let top = group.mount.join(&plan.path);
            fault::fail(Point::GroupsMake).at(|| format!("make control group {}", top.display()))?;
            make_group(&top, &group.controllers, self.unified)?;
            let dir = if self.unified { top.join(PAYLOAD) } else { top.clone() };
            let (mount, controllers) = (group.mount.clone(), group.controllers.clone());
            self.groups.push(Made { mount, controllers, dir: dir.clone() });
            if self.unified {
                delegate(&top, owner, &group.controllers)?;
            }
            if let Some(rules) = &plan.devices {
                self.keep_devices(&top, rules);
            }
            for writes in group.writes.chunk_by(|(one, _), (next, _)| one == next) {
                self.put_all(group, &dir.join(&writes[0].0), writes)?;
            }
        }
        Ok(())
    }

    /// Attaches the program that keeps device rules (version 2); nodes are ours alone and making others is refused by
    /// other walls too, so a kernel without such programs costs the access letters and is told of.
    fn keep_devices(&mut self, top: &Path, rules: &[DeviceRule]) {
        let attach = || {
            let program = load_device_program(&assemble(rules))?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            attach_device_program(rustix::fs::open(top, flags, Mode::empty())?.as_fd(), program.as_fd())
        };
        if let Err(errno) = attach() {
            self.missing.push(format!("{DEVICES} (the kernel takes no program for them: {})", reason(errno)));
        }
    }

    /// Writes values one after the other into one file.
    fn put_all(&mut self, group: &Group, path: &Path, writes: &[(String, String)]) -> Result<(), LaunchError> {
        let file = match rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) if writes[0].0.contains("swap") || writes[0].0.contains("memsw") => {
                self.missing.push(format!("{} (the kernel counts no swap)", writes[0].0));
                return Ok(());
            }
            Err(Errno::NOENT) if self.unified => return Err(not_handed_down(&group.mount, &writes[0].0)),
            opened => opened.at(|| format!("open {}", path.display()))?,
        };
        for (_, value) in writes {
            rustix::io::write(&file, value.as_bytes()).at(|| format!("write {value} to {}", path.display()))?;
        }
        Ok(())
    }

    /// Opens what a process writes `0` to in order to join (version 1).
    pub(super) fn join_files(&self) -> Result<Vec<OwnedFd>, LaunchError> {
        if self.unified {
            return Ok(Vec::new());
        }
        let open = |group: &Made| {
            let file = group.dir.join("tasks");
            rustix::fs::open(&file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                .at(|| format!("open {}", file.display()))
        };
        self.groups.iter().map(open).collect()
    }

    /// Opens the directories the keeper and the container's processes are born in (version 2).
    pub(super) fn birth_dirs(&self) -> Result<(OwnedFd, OwnedFd), LaunchError> {
        let none = || LaunchError::refused("find the control group to be born in: there is none");
        let group = self.groups.first().ok_or_else(none)?;
        let open = |dir: PathBuf| {
            rustix::fs::open(&dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .at(|| format!("open {}", dir.display()))
        };
        Ok((open(group.dir.with_file_name(KEEPER))?, open(group.dir.clone())?))
    }

    /// Returns the directory of the group that has this controller.
    pub fn directory(&self, controller: &str) -> Option<&Path> {
        self.groups.iter().find(|g| g.controllers.iter().any(|c| c == controller)).map(|g| g.dir.as_path())
    }

    /// Returns the first group's directory that any process list can be read from.
    fn any(&self) -> Option<&Path> {
        self.directory("freezer").or_else(|| self.groups.first().map(|group| group.dir.as_path()))
    }

    /// Stops all processes until [`Self::thaw`].
    ///
    /// # Errors
    /// When there is no freezer, or the kernel did not freeze all within ten seconds.
    pub fn freeze(&self) -> Result<(), LaunchError> {
        self.set_frozen(true)
    }

    /// Lets all processes go on.
    ///
    /// # Errors
    /// As [`Self::freeze`].
    pub fn thaw(&self) -> Result<(), LaunchError> {
        self.set_frozen(false)
    }

    fn set_frozen(&self, frozen: bool) -> Result<(), LaunchError> {
        let no_freezer = || LaunchError::refused("freeze the container: the kernel offers no freezer controller");
        let (dir, file, wish, look, done) = if self.unified {
            let wish = if frozen { "1" } else { "0" };
            (self.any().ok_or_else(no_freezer)?, "cgroup.freeze", wish, "cgroup.events", format!("frozen {wish}"))
        } else {
            let wish = if frozen { "FROZEN" } else { "THAWED" };
            (self.directory("freezer").ok_or_else(no_freezer)?, "freezer.state", wish, "freezer.state", wish.to_owned())
        };
        let began = Instant::now();
        loop {
            // Version 1 wants the wish repeated while processes fork under it.
            put(&dir.join(file), wish).at(|| format!("write {wish} to {}", dir.join(file).display()))?;
            let state = std::fs::read_to_string(dir.join(look)).at(|| format!("read {}", dir.join(look).display()))?;
            if state.lines().any(|line| line == done) {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return Err(LaunchError::refused(format!("write {wish} to {}: not done in 10 s", dir.display())));
            }
            pause();
        }
    }

    /// Kills every process in the groups and waits until none is left; no number of a process can be taken over
    /// meanwhile: they are frozen, or the kernel does it.
    ///
    /// # Errors
    /// When processes are left after ten seconds.
    pub fn kill_all(&self) -> Result<(), LaunchError> {
        let Some(dir) = self.any() else { return Ok(()) };
        let began = Instant::now();
        loop {
            let pids = processes(dir);
            if pids.is_empty() {
                return Ok(());
            }
            if !(self.unified && put(&dir.join("cgroup.kill"), "1").is_ok()) {
                let frozen = self.freeze().is_ok();
                for pid in processes(dir) {
                    kill_member(dir, pid);
                }
                if frozen {
                    self.thaw()?;
                }
            }
            if began.elapsed() > PATIENCE {
                return Err(LaunchError::refused(format!("kill the processes of {}: some are left", dir.display())));
            }
            pause();
        }
    }

    /// Returns whether the kernel killed a process of the group for want of memory.
    pub fn oom_killed(&self) -> bool {
        let Some(dir) = self.directory("memory") else { return false };
        let file = if self.unified { "memory.events" } else { "memory.oom_control" };
        let text = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
        text.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
    }

    /// Returns whether the keeper has a group of its own among them.
    pub(super) fn hold_the_keeper(&self) -> bool {
        self.unified
    }

    /// Kills whoever is in the groups, a keeper that nobody else knows of included, and removes them.
    pub(super) fn clear(&mut self) {
        self.kill_keepers();
        let _ = self.kill_all();
        self.remove();
    }

    /// Kills a keeper that has a group of its own. It may be waiting for a socket whose other end is ours.
    fn kill_keepers(&self) {
        for group in self.groups.iter().filter(|_| self.unified) {
            // A group that is not there, or is empty, needs no killing.
            let _ = put(&group.dir.with_file_name(KEEPER).join("cgroup.kill"), "1");
        }
    }

    /// Removes the groups, waiting a little for processes on their way out.
    pub(super) fn remove(&mut self) {
        for group in self.groups.drain(..) {
            let top = group.mount.join(&self.path);
            if self.unified {
                remove_patiently(&top.join(PAYLOAD));
                remove_patiently(&top.join(KEEPER));
            }
            remove_patiently(&top);
        }
    }
}

/// Kills what a dead shim left in the groups of a plan and removes them.
///
/// # Errors
/// When processes are left after ten seconds.
pub fn sweep(plan: &CgroupPlan) -> Result<(), LaunchError> {
    let made = |group: &Group| {
        let top = group.mount.join(&plan.path);
        let dir = if plan.unified { top.join(PAYLOAD) } else { top };
        Made { mount: group.mount.clone(), controllers: group.controllers.clone(), dir }
    };
    let mut groups = Cgroups {
        unified: plan.unified,
        path: plan.path.clone(),
        // Of a removal that was cut off the topmost may be all there is.
        groups: plan.groups.iter().filter(|group| group.mount.join(&plan.path).exists()).map(made).collect(),
        missing: Vec::new(),
    };
    groups.kill_keepers();
    groups.kill_all()?;
    groups.remove();
    Ok(())
}

/// Says why a limit has no file although its controller exists: no group above may have processes when it hands
/// controllers down, unless it is the machine's topmost (*cgroup-v2* "No Internal Process Constraint").
fn not_handed_down(mount: &Path, file: &str) -> LaunchError {
    let controller = file.split('.').next().unwrap_or(file);
    LaunchError::refused(format!(
        "limit {file}: the control groups below {place} have no {controller} controller, because {place} has processes of its \
         own; move those into a group below it, for instance `mkdir {place}/leaf; for p in $(cat {place}/cgroup.procs); do echo $p > {place}/leaf/cgroup.procs; done`",
        place = mount.display()
    ))
}

fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}

fn put(file: &Path, value: &str) -> Result<(), Errno> {
    let file = rustix::fs::open(file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes()).map(drop)
}

fn processes(dir: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
}

/// Kills a process unless its number has gone to one outside the group.
fn kill_member(dir: &Path, pid: i32) {
    let Some(number) = rustix::process::Pid::from_raw(pid) else { return };
    let Ok(pidfd) = rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty()) else { return };
    if processes(dir).contains(&pid) {
        let _ = pidfd_kill(pidfd.as_fd(), libc::SIGKILL);
    }
}

fn remove_patiently(dir: &Path) {
    let began = Instant::now();
    while let Err(Errno::BUSY) = unlinkat(rustix::fs::CWD, dir, AtFlags::REMOVEDIR) {
        if began.elapsed() > PATIENCE {
            return;
        }
        pause();
    }
}

fn mkdir(dir: &Path) -> Result<(), Errno> {
    rustix::fs::mkdir(dir, Mode::from_raw_mode(0o755))
}

/// Makes a group; a leftover of a dead shim is removed first.
fn make_group(top: &Path, controllers: &[String], unified: bool) -> Result<(), LaunchError> {
    let mut made = mkdir(top);
    if made == Err(Errno::EXIST) {
        for below in [PAYLOAD, KEEPER] {
            let _ = std::fs::remove_dir(top.join(below));
        }
        unlinkat(rustix::fs::CWD, top, AtFlags::REMOVEDIR).at(|| {
            format!("remove the old control group {} (processes of an earlier run may be in it)", top.display())
        })?;
        made = mkdir(top);
    }
    made.at(|| format!("make control group {}", top.display()))?;
    if !unified {
        return take_over_cpuset(top, controllers);
    }
    if let Some(above) = top.parent() {
        enable(above, controllers);
    }
    Ok(())
}

/// Gives a new group the processors and memory nodes of the one above: on version 1 it has none, and takes no process.
fn take_over_cpuset(dir: &Path, controllers: &[String]) -> Result<(), LaunchError> {
    let Some(above) = dir.parent().filter(|_| controllers.iter().any(|name| name == "cpuset")) else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let value = std::fs::read_to_string(above.join(file)).unwrap_or_default();
        put(&dir.join(file), value.trim()).at(|| format!("write {}", dir.join(file).display()))?;
    }
    Ok(())
}

/// Makes controllers available below a group; one that cannot be shows later as a limit that cannot be written.
fn enable(dir: &Path, controllers: &[String]) {
    let file = dir.join("cgroup.subtree_control");
    let present = std::fs::read_to_string(&file).unwrap_or_default();
    for name in controllers {
        if !present.split_whitespace().any(|on| on == name) {
            let _ = put(&file, &format!("+{name}"));
        }
    }
}

/// Makes the two groups below `top` and lets the container's root move processes between them: the keeper, which has
/// no other rights, starts processes straight into one.
fn delegate(top: &Path, owner: u32, controllers: &[String]) -> Result<(), LaunchError> {
    enable(top, controllers);
    for name in [PAYLOAD, KEEPER] {
        mkdir(&top.join(name)).at(|| format!("make control group {}", top.join(name).display()))?;
    }
    for file in [top.join("cgroup.procs"), top.join(PAYLOAD).join("cgroup.procs")] {
        std::os::unix::fs::chown(&file, Some(owner), Some(owner)).at(|| format!("chown {}", file.display()))?;
    }
    Ok(())
}

/// Moves the calling process, which has one thread, into the groups of these files.
pub(super) fn join(files: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    // Written by the process itself, which is single-threaded, the kernel needs no grace period (5 ms otherwise).
    files.iter().try_for_each(|file| rustix::io::write(file, b"0").map(drop))
}

//! The mounter: the first process in a container's namespaces. It assembles the tree, leaves the keeper and the first
//! process behind as the shim's children, and ends.

use super::bundle::Bundle;
use super::error::{Context, LaunchError};
use super::init::{Start, Stdio, start};
use super::keeper::{Keeper, MADE};
use super::plan::{Kind, LaunchPlan, Step, UserPlan};
use super::tree::{Tree, attach_at, cgroup_mounts, network_step, proc_mount};
use crate::base::with_causes;
use crate::security::landlock::{Prepared, RuleInput, RuleMount, prepare, rule_set};
use crate::sys::credentials::{set_groups, set_ids};
use crate::sys::fault::{self, Point};
use crate::sys::mount::{clone_mapped, make_private};
use crate::sys::open::open_in_root;
use crate::sys::process::*;
use crate::sys::socket::{pair, recv_frame, send_frame};
use rustix::fs::{CWD, Mode, OFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What the mounter is born with.
pub(super) struct Mounter<'a> {
    pub(super) bundle: &'a Bundle,
    pub(super) plan: &'a LaunchPlan,
    pub(super) landlock_abi: u32,
    /// Socket to the shim: tree and permission to proceed come, terminals and the keeper's descriptor go; every failure
    /// of a process on the way to the program is told here, and its end means that the program runs.
    pub(super) report: OwnedFd,
    /// The keeper's end of its socket to the shim.
    pub(super) keeper: OwnedFd,
    /// Process in whose namespaces it is to live; `None` when it was born in its own.
    pub(super) nest: Option<BorrowedFd<'a>>,
    /// User namespace to enter; `None` when the process was born in its own or stays in the host's.
    pub(super) userns: Option<BorrowedFd<'a>>,
    /// Namespaces to enter.
    pub(super) joins: Vec<(Kind, BorrowedFd<'a>)>,
    /// Group the first process is born in (version 2).
    pub(super) birth: Option<BorrowedFd<'a>>,
    /// Standard streams of the first process, unless it has a terminal.
    pub(super) stdio: Option<[BorrowedFd<'a>; 3]>,
}

/// Frames from the mounter: the network namespace, the keeper's descriptor, an error.
pub(super) const NETWORK: u8 = b'N';
pub(super) const KEEPER: u8 = b'K';
pub(super) const TERMINAL: u8 = b'T';
pub(super) const ERROR: u8 = b'E';

/// Host directory the root is attached over until it becomes the root. The container's root must reach it with no right
/// over the host (the store is closed to it), and nothing below it may be needed on the way; `/proc` and `/sys` would make
/// the kernel refuse new mounts of theirs.
const PLACE: &str = "/etc";

/// Largest frame among these processes.
pub(super) const FRAME: usize = 1 << 16;

pub(super) fn flag(kind: Kind) -> CloneFlags {
    match kind {
        Kind::Mount => CloneFlags::NEWNS,
        Kind::Net => CloneFlags::NEWNET,
        Kind::Pid => CloneFlags::NEWPID,
        Kind::Ipc => CloneFlags::NEWIPC,
        Kind::Uts => CloneFlags::NEWUTS,
        Kind::Cgroup => CloneFlags::NEWCGROUP,
        Kind::Time => CloneFlags::NEWTIME,
    }
}

/// Returns the flags of the namespaces the mounter itself is in; pid and cgroup come later.
pub(super) fn outer_flags(plan: &LaunchPlan) -> CloneFlags {
    let later = |kind: &&Kind| !matches!(kind, Kind::Pid | Kind::Cgroup);
    plan.new.iter().filter(later).fold(CloneFlags::default(), |flags, kind| flags.with(flag(*kind)))
}

impl Mounter<'_> {
    /// Runs to the end; returns the exit status.
    pub(super) fn run(&self) -> i32 {
        match self.work() {
            Ok(()) => 0,
            Err(error) => {
                tell(self.report.as_fd(), &error);
                1
            }
        }
    }

    fn work(&self) -> Result<(), LaunchError> {
        let plan = self.plan;
        let at = Path::new(PLACE);
        let (network, rest): (Vec<&Step>, Vec<&Step>) =
            plan.early.iter().partition(|step| matches!(step, Step::Sysctl { .. } | Step::Loopback));
        if let Some(nest) = self.nest {
            setns(nest, super::nest::Nest::FLAGS).at(|| "enter the container's namespaces")?;
        }
        // Ids are mapped there, and the tree is not made yet.
        let ahead = self.nest.is_some() && !self.bundle.links_follow;
        if ahead {
            become_root()?;
            network.iter().try_for_each(|step| network_step(step))?;
        }
        let (_, outside) = self.frame()?;
        fault::fail(Point::MounterTree).at(|| "hear from the shim")?;
        let staged = self.userns.is_some() || !self.joins.is_empty();
        let mut attached = Vec::new();
        if plan.locked && self.userns.is_some() {
            attached = self.attach_locked(at, &outside)?;
        }
        if staged {
            self.enter()?;
        }
        if plan.user != UserPlan::Host && !ahead {
            become_root()?;
        }
        let slash = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .at(|| "open the host's root")?;
        make_private(slash.as_fd()).at(|| "cut mounts off from the host's")?;
        drop(slash);
        let root = self.attach_root(at, &outside, !attached.is_empty())?;
        fault::fail(Point::MounterRoot).at(|| "attach the root")?;
        let mut tree = Tree::new(plan, root, at, &outside);
        tree.set_tty_size(self.bundle.process.tty_size);
        tree.already(attached);
        tree.steps(&rest)?;
        let domain = self.domain(&tree)?;
        // With permission to proceed come the files to join the control groups of version 1, which the first process needs.
        let join = if ahead { None } else { Some(self.frame()?.1) };
        if !ahead {
            network.iter().try_for_each(|step| network_step(step))?;
        }
        self.populate(&mut tree, domain, join)
    }

    /// Receives one frame of the shim.
    fn frame(&self) -> Result<(Vec<u8>, Vec<OwnedFd>), LaunchError> {
        recv_frame(self.report.as_fd(), FRAME)
            .at(|| "hear from the shim")?
            .ok_or_else(|| LaunchError::refused("the shim gave up"))
    }

    /// Attaches the root and what lies on it with the host's rights, where a container with `CAP_SYS_ADMIN` cannot
    /// undo it; index 0, the root, is always among the result.
    fn attach_locked(&self, at: &Path, outside: &[OwnedFd]) -> Result<Vec<usize>, LaunchError> {
        let slash = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .at(|| "open the host's root")?;
        make_private(slash.as_fd()).at(|| "cut mounts off from the host's")?;
        let root = outside.first().ok_or_else(|| LaunchError::refused("the shim sent no root"))?;
        attach_at(root.as_fd(), at).at(|| "attach the root")?;
        let root = root.try_clone().at(|| "attach the root")?;
        let mut tree = Tree::new(self.plan, root, at, outside);
        let base = self.plan.user.base();
        // Mount points are made in the overlay, where the host's ids have no image.
        crate::sys::credentials::with_file_ids(base, base, || Ok(tree.attach_locked()))
            .at(|| "take the container's ids")??;
        let mut attached = tree.into_attached();
        attached.push(0);
        Ok(attached)
    }

    /// Enters the user namespace and those of others, makes the new ones.
    fn enter(&self) -> Result<(), LaunchError> {
        if let Some(userns) = self.userns {
            setns(userns, CloneFlags::NEWUSER).at(|| "enter the user namespace")?;
        }
        for (kind, namespace) in &self.joins {
            if *kind != Kind::Pid && *kind != Kind::Cgroup {
                setns(*namespace, flag(*kind)).at(|| format!("enter the {} namespace", kind.name()))?;
            }
        }
        if self.userns.is_some() {
            let joined = |kind: &Kind| self.joins.iter().any(|(other, _)| other == kind);
            let new = self.plan.new.iter().filter(|kind| !joined(kind) && !matches!(kind, Kind::Pid | Kind::Cgroup));
            let flags = new.fold(CloneFlags::default(), |flags, kind| flags.with(flag(*kind)));
            unshare(flags).at(|| "make namespaces")?;
            if flags.has(CloneFlags::NEWNET) {
                let own = rustix::fs::open("/proc/self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .at(|| "open the network namespace")?;
                send_frame(self.report.as_fd(), &[NETWORK], &[own.as_fd()]).at(|| "report to the shim")?;
            }
        }
        Ok(())
    }

    fn attach_root(&self, at: &Path, outside: &[OwnedFd], locked: bool) -> Result<OwnedFd, LaunchError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if !locked {
            let root = outside.first().ok_or_else(|| LaunchError::refused("the shim sent no root"))?;
            attach_at(root.as_fd(), at).at(|| format!("attach the root at {}", at.display()))?;
            return root.try_clone().at(|| "keep the root");
        }
        // A tree that came from another namespace is locked in place; a clone of it can become the root, and what lies
        // in it stays locked.
        let place = rustix::fs::open(at, flags, Mode::empty()).at(|| "open the root")?;
        let clone = clone_mapped(place.as_fd(), c"", true, 0, None).at(|| "clone the root")?;
        attach_at(clone.as_fd(), at).at(|| "attach the root")?;
        Ok(clone)
    }

    /// Leaves the keeper and the first process behind and finishes the tree with what the latter made. The first process
    /// goes no further than its namespaces before the shim has given permission.
    fn populate(
        &self,
        tree: &mut Tree<'_>,
        domain: Option<Prepared>,
        join: Option<Vec<OwnedFd>>,
    ) -> Result<(), LaunchError> {
        let (ours, theirs) = pair().at(|| "make a socket")?;
        let keeper = clone_process(CloneFlags::PARENT, None, || {
            // So that the mounter's death is seen as an end of file.
            close_inherited(ours.as_fd());
            let Err(error) = self.keep(tree, domain, theirs.as_fd());
            tell(self.report.as_fd(), &error);
            1
        })
        .at(|| "start the keeper")?;
        fault::cut(Point::MounterKeeper);
        drop(theirs);
        let mut frame = vec![KEEPER];
        frame.extend_from_slice(&keeper.pid.to_le_bytes());
        send_frame(self.report.as_fd(), &frame, &[keeper.pidfd.as_fd()]).at(|| "report to the shim")?;
        if let Some((master, _)) = &tree.terminal {
            send_frame(self.report.as_fd(), &[TERMINAL], &[master.as_fd()]).at(|| "hand the terminal over")?;
        }
        let join = join.map_or_else(|| self.frame().map(|(_, join)| join), Ok)?;
        let join: Vec<_> = join.iter().map(AsFd::as_fd).collect();
        // When the first process fails it has told the shim itself.
        let _ = send_frame(ours.as_fd(), b"join", &join);
        let made = || match recv_frame(ours.as_fd(), FRAME).at(|| "hear from the first process")? {
            Some((_, made)) => Ok(made.into_iter()),
            None => exit(1),
        };
        tree.proc(made()?)?;
        tree.views(made()?)?;
        fault::fail(Point::MounterPivot).at(|| "make the tree the root")?;
        tree.pivot()?;
        send_frame(ours.as_fd(), b"go", &[]).at(|| "release the first process")
    }

    /// Prepares the Landlock domain from the finished tree.
    fn domain(&self, tree: &Tree<'_>) -> Result<Option<Prepared>, LaunchError> {
        let bundle = self.bundle;
        if !bundle.hardening.landlock {
            return Ok(None);
        }
        let rules = landlock_rules(bundle, self.plan, self.landlock_abi);
        let open = |path: &str| {
            let path = path.trim_start_matches('/');
            let path = if path.is_empty() { "." } else { path };
            open_in_root(tree.root.as_fd(), path, OFlags::PATH).map_err(std::io::Error::from)
        };
        let refused = |error: crate::security::landlock::LandlockError| LaunchError::refused(with_causes(&error));
        let Some(mut prepared) = prepare(&rules, open).map_err(refused)? else { return Ok(None) };
        for stream in self.stdio.iter().flatten().filter(|stream| reopens(**stream)) {
            prepared = prepared.allow_stream(*stream).map_err(refused)?;
        }
        Ok(Some(prepared))
    }

    /// The keeper's life.
    fn keep(
        &self,
        tree: &Tree<'_>,
        domain: Option<Prepared>,
        mounter: BorrowedFd<'_>,
    ) -> Result<std::convert::Infallible, LaunchError> {
        let _ = set_name(c"bulkhead-keeper");
        // Received descriptors must never be numbered as standard streams.
        let null =
            rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).at(|| "open /dev/null")?;
        if let Some(domain) = domain {
            domain.enter().map_err(|error| LaunchError::refused(with_causes(&error)))?;
        }
        fault::fail(Point::KeeperDomain).at(|| "enter the Landlock domain")?;
        if let Some((_, pids)) = self.joins.iter().find(|(kind, _)| *kind == Kind::Pid) {
            setns(*pids, CloneFlags::NEWPID).at(|| "enter the pid namespace")?;
        } else if self.plan.new.contains(&Kind::Pid) {
            unshare(CloneFlags::NEWPID).at(|| "make a pid namespace")?;
        }
        let init = clone_process(CloneFlags::PARENT, self.birth, || self.first(tree, mounter))
            .at(|| "start the first process")?;
        fault::cut(Point::KeeperMade);
        let mut frame = vec![MADE];
        frame.extend_from_slice(&init.pid.to_le_bytes());
        send_frame(self.keeper.as_fd(), &frame, &[init.pidfd.as_fd()]).at(|| "report to the shim")?;
        let pts = tree.pts.as_ref().map(AsFd::as_fd);
        let mut keep = vec![self.keeper.as_fd(), init.pidfd.as_fd()];
        keep.extend(pts);
        keep.extend(self.birth);
        (0..3).try_for_each(|number| dup_onto(null.as_fd(), number)).at(|| "let the streams go")?;
        drop(null);
        close_all_from(3, &keep).at(|| "close our descriptors")?;
        let (birth, hardening) = (self.birth, &self.bundle.hardening);
        let socket = self.keeper.as_fd();
        // Not returned from: owners of what was just closed lie in the frames above.
        exit(Keeper { socket, pts, join: Vec::new(), birth, init: &init, hardening, view: None }.serve())
    }

    /// The first process's life before its program.
    fn first(&self, tree: &Tree<'_>, mounter: BorrowedFd<'_>) -> i32 {
        let report = match self.report.try_clone() {
            Ok(report) => report,
            Err(_) => return 125,
        };
        let (report, error) = match self.inner(mounter) {
            Err(error) => (report, error),
            Ok(()) => {
                let stdio = match (&tree.terminal, self.stdio) {
                    (Some((_, slave)), _) => Stdio::Terminal(slave.as_fd()),
                    (None, Some(streams)) => Stdio::Streams(streams),
                    (None, None) => return 125,
                };
                let (process, hardening) = (&self.bundle.process, &self.bundle.hardening);
                let order = Start { process, hardening, privileged: false, reaper: self.bundle.init, stdio };
                start(&order, report, || hear(mounter).map(drop))
            }
        };
        tell(report.as_fd(), &error);
        1
    }

    /// Joins the control groups and makes the mounts that need this process, which the mounter attaches meanwhile.
    fn inner(&self, mounter: BorrowedFd<'_>) -> Result<(), LaunchError> {
        let give = |mounts: Vec<OwnedFd>| {
            let mounts: Vec<_> = mounts.iter().map(AsFd::as_fd).collect();
            send_frame(mounter, b"mounts", &mounts).at(|| "hand mounts over")
        };
        give(proc_mount(self.plan)?)?;
        let join = hear(mounter)?;
        fault::fail(Point::InitJoin).at(|| "join the control groups")?;
        let join: Vec<_> = join.iter().map(AsFd::as_fd).collect();
        super::cgroup::join(&join).at(|| "join the control groups")?;
        if let Some((_, view)) = self.joins.iter().find(|(kind, _)| *kind == Kind::Cgroup) {
            setns(*view, CloneFlags::NEWCGROUP).at(|| "enter the control group namespace")?;
        } else if self.plan.new.contains(&Kind::Cgroup) {
            unshare(CloneFlags::NEWCGROUP).at(|| "make a control group namespace")?;
        }
        give(cgroup_mounts(self.plan)?)
    }
}

/// Hears from the mounter in the first process.
fn hear(mounter: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, LaunchError> {
    match recv_frame(mounter, FRAME).at(|| "hear from the mounter")? {
        Some((_, descriptors)) => Ok(descriptors),
        // It has told why; this process goes quietly.
        None => exit(1),
    }
}

/// Takes the ids of the container's root. Before this ours have no image inside, and nothing could be made.
fn become_root() -> Result<(), LaunchError> {
    set_groups(&[]).at(|| "give up the host's groups")?;
    set_ids(0, 0).at(|| "become the container's root")
}

/// Plans the Landlock rules of a launch.
pub(super) fn landlock_rules(bundle: &Bundle, plan: &LaunchPlan, abi: u32) -> crate::security::landlock::RuleSet {
    use super::bundle::Namespace;
    let mount = |m: &super::bundle::Mount| RuleMount { target: m.target.clone(), readonly: m.readonly };
    rule_set(&RuleInput {
        abi,
        root_readonly: bundle.root_readonly,
        mounts: bundle.mounts.iter().map(mount).collect(),
        devices: bundle.devices.iter().map(|device| device.target.clone()).collect(),
        sys_admin: plan.locked || bundle.hardening.capabilities.0 & (1 << 21) != 0,
        host_pid: bundle.namespaces.pid == Namespace::Host,
        host_net: bundle.namespaces.net == Namespace::Host,
    })
}

/// Returns whether opening `/dev/stdout` asks Landlock about this stream: pipes and sockets have no place in a tree.
fn reopens(stream: BorrowedFd<'_>) -> bool {
    use rustix::fs::FileType;
    rustix::fs::fstat(stream).is_ok_and(|found| {
        matches!(FileType::from_raw_mode(found.st_mode), FileType::RegularFile | FileType::CharacterDevice)
    })
}

fn tell(report: BorrowedFd<'_>, error: &LaunchError) {
    let _ = send_frame(report, &[[ERROR].as_slice(), &error.encode()].concat(), &[]);
}

/// Opens a namespace file given by path.
pub(super) fn open_file(path: &Path) -> Result<OwnedFd, LaunchError> {
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .at(|| format!("open namespace {}", path.display()))
}

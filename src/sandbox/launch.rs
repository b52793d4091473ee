//! The shim's part of a launch: control groups, the mounter, id maps, mounts made outside, and the wait for the program.

use super::bundle::{Bundle, UserNamespace};
use super::cgroup::Cgroups;
use super::error::{Context, LaunchError};
use super::init::limit_number;
use super::keeper::MADE;
use super::mounter::{ERROR, FRAME, KEEPER, Mounter, NETWORK, TERMINAL, landlock_rules, open_file, outer_flags};
use super::outside::{end, give_pipes, make, namespace_with_map, open_namespace, write_maps};
use super::plan::{Kind, LaunchPlan, Step, UserPlan, plan};
use super::running::Running;
use super::user::IDS;
use crate::security::enforced::{Launched, require};
use crate::security::{self, Enforced, HostFeatures};
use crate::sys::fault::{self, Point};
use crate::sys::process::*;
use crate::sys::socket::{pair, recv_frame, send_frame};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Namespaces kept over a restart by policy, so that addresses and ports stay.
#[derive(Debug)]
pub struct Kept {
    /// The user namespace; `None` for the host's.
    pub userns: Option<OwnedFd>,
    /// The network namespace; `None` when it is not the container's own.
    pub netns: Option<OwnedFd>,
}

/// The start of a launch.
#[derive(Debug)]
pub struct Launch;

/// A launch whose namespaces exist and whose tree is being assembled; dropping it takes everything down.
#[derive(Debug)]
pub struct Pending {
    mounter: Option<Child>,
    report: OwnedFd,
    keeper: OwnedFd,
    kept: Kept,
    cgroups: Option<Cgroups>,
    enforced: Enforced,
    base: u32,
    shows_view: bool,
}

impl Launch {
    /// Makes control groups, namespaces and the file systems, and starts assembling the tree. The caller has one thread,
    /// its descriptors 0, 1 and 2 are open, and it is host root.
    ///
    /// `stdio` are the first process's streams, needed unless it has a terminal. `reuse` are the namespaces of the run
    /// before, on a restart.
    ///
    /// # Errors
    /// When the plan is refused or a step on this side fails; nothing is left behind.
    pub fn begin(
        bundle: &Bundle,
        stdio: Option<[BorrowedFd<'_>; 3]>,
        reuse: Option<&Kept>,
    ) -> Result<Pending, LaunchError> {
        Self::begin_on(bundle, stdio, reuse, Self::look())
    }

    /// Looks at the host, once in the life of this process.
    pub fn look() -> &'static HostFeatures {
        static HOST: std::sync::OnceLock<HostFeatures> = std::sync::OnceLock::new();
        HOST.get_or_init(HostFeatures::probe)
    }

    /// Does what [`Launch::begin`] does on a host already looked at.
    ///
    /// # Errors
    /// As [`Launch::begin`].
    pub fn begin_on(
        bundle: &Bundle,
        stdio: Option<[BorrowedFd<'_>; 3]>,
        reuse: Option<&Kept>,
        host: &HostFeatures,
    ) -> Result<Pending, LaunchError> {
        let plan = plan(bundle, host).map_err(|error| LaunchError::refused(error.to_string()))?;
        if stdio.is_none() && !bundle.process.tty {
            return Err(LaunchError::refused("a process without a terminal needs three streams"));
        }
        crate::sys::require_single_thread().at(|| "start a container (the process has threads)")?;
        // No process of ours on the way to its program shows its memory or program to those inside.
        set_undumpable().at(|| "hide our memory")?;
        give_pipes(stdio, plan.user.base());
        let mut cgroups = Cgroups::create(&plan.cgroup, plan.user.base())?;
        let made = fault::fail(Point::GroupsMade).at(|| "make control groups");
        let (mounter, report, keeper, kept) =
            made.and_then(|()| start(bundle, &plan, host, stdio, reuse, &cgroups)).inspect_err(|_| cgroups.remove())?;
        // While the mounter works. The program does not start before `finish`, so a refusal still comes first.
        let enforced = enforced(bundle, &plan, host, &cgroups.missing);
        let required = require(&bundle.require, host, &enforced);
        let pending = Pending {
            mounter: Some(mounter),
            report,
            keeper,
            kept,
            enforced,
            cgroups: Some(cgroups),
            base: plan.user.base(),
            shows_view: plan.new.contains(&Kind::Cgroup),
        };
        required.map_err(|error| LaunchError::refused(error.to_string()))?;
        Ok(pending)
    }
}

type Started = (Child, OwnedFd, OwnedFd, Kept);

fn start(
    bundle: &Bundle,
    plan: &LaunchPlan,
    host: &HostFeatures,
    stdio: Option<[BorrowedFd<'_>; 3]>,
    reuse: Option<&Kept>,
    cgroups: &Cgroups,
) -> Result<Started, LaunchError> {
    let present = present_user_namespace(plan, reuse)?;
    let mut files: Vec<(Kind, OwnedFd)> =
        plan.join.iter().map(|(kind, path)| Ok((*kind, open_file(path)?))).collect::<Result<_, LaunchError>>()?;
    let reused_net = reuse.and_then(|kept| kept.netns.as_ref()).filter(|_| plan.new.contains(&Kind::Net));
    if let Some(netns) = reused_net {
        files.push((Kind::Net, netns.try_clone().at(|| "keep the network namespace")?));
    }
    let (join, birth) = (cgroups.join_files()?, cgroups.birth_dirs()?);
    let (report, their_report) = pair().at(|| "make a socket")?;
    let (keeper, their_keeper) = pair().at(|| "make a socket")?;
    let flags = birth_flags(plan, present.is_some(), reused_net.is_some());
    let mounter = {
        let mounter = Mounter {
            bundle,
            plan,
            landlock_abi: host.landlock_abi,
            report: their_report,
            keeper: their_keeper,
            userns: present.as_ref().map(AsFd::as_fd),
            joins: files.iter().map(|(kind, file)| (*kind, file.as_fd())).collect(),
            join: join.iter().map(AsFd::as_fd).collect(),
            birth: birth.as_ref().map(|(_, payload)| payload.as_fd()),
            stdio,
        };
        let group = birth.as_ref().map(|(keeper, _)| keeper.as_fd());
        let (report, keeper) = (report.as_fd(), keeper.as_fd());
        clone_process(flags, group, move || {
            // The shim's ends, so that its death is seen as an end of file.
            close_inherited(report);
            close_inherited(keeper);
            mounter.run()
        })
        .at(|| "make the container's namespaces")?
    };
    let made = fault::fail(Point::MounterMade).at(|| "make the container's namespaces");
    match made.and_then(|()| furnish(bundle, plan, &mounter, &report, present)) {
        Ok(mut kept) => {
            if let Some(netns) = reused_net {
                kept.netns = Some(netns.try_clone().at(|| "keep the network namespace")?);
            }
            Ok((mounter, report, keeper, kept))
        }
        Err(error) => {
            end(&mounter);
            Err(error)
        }
    }
}

/// Returns the user namespace when it exists before the mounter does.
fn present_user_namespace(plan: &LaunchPlan, reuse: Option<&Kept>) -> Result<Option<OwnedFd>, LaunchError> {
    if let Some(kept) = reuse.and_then(|kept| kept.userns.as_ref()) {
        return kept.try_clone().map(Some).at(|| "keep the user namespace");
    }
    match &plan.user {
        UserPlan::Join { path, .. } => open_file(path).map(Some),
        UserPlan::Range { base } if plan.locked => {
            let map = format!("0 {base} {IDS}");
            namespace_with_map(&map, &map).map(Some)
        }
        _ => Ok(None),
    }
}

fn birth_flags(plan: &LaunchPlan, present: bool, reused_net: bool) -> CloneFlags {
    match &plan.user {
        UserPlan::Host => {
            let flags = outer_flags(plan);
            if reused_net { CloneFlags(flags.0 & !CloneFlags::NEWNET.0) } else { flags }
        }
        _ if !present => outer_flags(plan).with(CloneFlags::NEWUSER),
        _ if plan.locked => CloneFlags::NEWNS,
        _ => CloneFlags::default(),
    }
}

/// Gives the mounter what only the host's rights can make.
fn furnish(
    bundle: &Bundle,
    plan: &LaunchPlan,
    mounter: &Child,
    report: &OwnedFd,
    present: Option<OwnedFd>,
) -> Result<Kept, LaunchError> {
    let staged = present.is_some();
    let userns = match (present, &plan.user) {
        (Some(userns), _) => Some(userns),
        (None, UserPlan::Host) => None,
        (None, UserPlan::Range { base } | UserPlan::Join { base, .. }) => {
            let map = format!("0 {base} {IDS}");
            write_maps(mounter.pid, &map, &map)?;
            Some(open_namespace(mounter.pid, "user")?)
        }
    };
    inherit(bundle, mounter.pid)?;
    let outside = make(bundle, plan, userns.as_ref().map(AsFd::as_fd))?;
    // Before the mounter gets to work: it may end, and tell why, at any time from then on.
    let netns = match plan.new.contains(&Kind::Net) {
        false => None,
        true if !staged => Some(open_namespace(mounter.pid, "net")?),
        // A reused one has no frame: the caller puts it in.
        true => None,
    };
    let descriptors: Vec<_> = outside.iter().map(AsFd::as_fd).collect();
    send_frame(report.as_fd(), b"tree", &descriptors).at(|| "hand mounts to the mounter")?;
    Ok(Kept { userns, netns })
}

/// Sets what the container's processes inherit and could not set themselves.
fn inherit(bundle: &Bundle, pid: i32) -> Result<(), LaunchError> {
    let score = bundle.process.oom_score_adj;
    if score != 0 {
        let path = format!("/proc/{pid}/oom_score_adj");
        let file = rustix::fs::open(
            &path,
            rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .at(|| format!("open {path}"))?;
        rustix::io::write(&file, score.to_string().as_bytes()).at(|| format!("set oom_score_adj {score}"))?;
    }
    for (name, soft, hard) in &bundle.process.rlimits {
        let resource = limit_number(name)?;
        let now = set_limit(pid, resource, None).at(|| format!("read ulimit {name}"))?;
        if *hard > now.hard {
            let raised = Limit { soft: now.soft, hard: *hard };
            set_limit(pid, resource, Some(raised)).at(|| {
                format!("set ulimit {name}={soft}:{hard}: the host's hard limit is {}, and raising it", now.hard)
            })?;
        }
    }
    Ok(())
}

/// What came from the processes on the way to the program.
#[derive(Debug, Default)]
struct Heard {
    keeper: Option<Child>,
    terminal: Option<OwnedFd>,
}

impl Pending {
    /// Returns the container's own network namespace.
    pub fn net_namespace(&self) -> Option<BorrowedFd<'_>> {
        self.kept.netns.as_ref().map(AsFd::as_fd)
    }

    /// Returns the pid of a process in the namespaces, for `/proc/PID/ns`.
    pub fn mounter_pid(&self) -> i32 {
        self.mounter.as_ref().map_or(0, |mounter| mounter.pid)
    }

    /// Lets the launch go on and waits until the program runs.
    ///
    /// # Errors
    /// Why it could not be started; nothing is left behind then.
    pub fn finish(mut self) -> Result<Running, LaunchError> {
        let mut heard = Heard::default();
        match self.run(&mut heard) {
            Ok(init) => self.running(heard, init),
            Err(error) => {
                self.tear_down(heard.keeper.take());
                Err(error)
            }
        }
    }

    fn run(&mut self, heard: &mut Heard) -> Result<Child, LaunchError> {
        // When it is gone already, what it said is read below.
        let _ = send_frame(self.report.as_fd(), b"proceed", &[]);
        self.listen(heard)?;
        let lost = || LaunchError::refused("start the container: a process on the way to the program died");
        if heard.keeper.is_none() {
            return Err(lost());
        }
        receive_child(self.keeper.as_fd())?.ok_or_else(lost)
    }

    /// Reads the report socket until its end, which means that the program runs. After a failure it goes on until the
    /// keeper is known or cannot come any more: who failed may have been quicker than the mounter that tells of it.
    fn listen(&mut self, heard: &mut Heard) -> Result<(), LaunchError> {
        let mut failed = None;
        while let Some((frame, descriptors)) =
            recv_frame(self.report.as_fd(), FRAME).at(|| "hear from the container's first processes")?
        {
            let first = descriptors.into_iter().next();
            match (frame.first().copied(), first) {
                (Some(ERROR), _) => failed = failed.or_else(|| Some(LaunchError::decode(&frame[1..]))),
                (Some(KEEPER), Some(pidfd)) => heard.keeper = Some(Child { pid: pid(&frame), pidfd }),
                (Some(TERMINAL), terminal) => heard.terminal = terminal,
                (Some(NETWORK), netns) => self.kept.netns = netns,
                _ => {}
            }
            if failed.is_some() && heard.keeper.is_some() {
                break;
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn running(mut self, heard: Heard, init: Child) -> Result<Running, LaunchError> {
        if let Some(mounter) = self.mounter.take() {
            let _ = wait_exit(mounter.pid);
        }
        let (Some(keeper), Some(cgroups)) = (heard.keeper, self.cgroups.take()) else {
            return Err(LaunchError::refused("start the container: the keeper is missing"));
        };
        let socket = self.keeper.try_clone().at(|| "keep the keeper's socket")?;
        let kept = std::mem::replace(&mut self.kept, Kept { userns: None, netns: None });
        let enforced = self.enforced.clone();
        Ok(Running::new(init, keeper, socket, heard.terminal, kept, cgroups, enforced, self.base, self.shows_view))
    }

    /// Ends every process of a launch that failed and removes its control groups.
    fn tear_down(&mut self, keeper: Option<Child>) {
        if let Some(mounter) = self.mounter.take() {
            end(&mounter);
        }
        if let Some(keeper) = keeper {
            // The keeper says so at once after it made the first process, which may have failed before that: ended earlier,
            // it would leave a process nobody knows.
            let init = receive_child(self.keeper.as_fd());
            end(&keeper);
            if let Ok(Some(init)) = init {
                end(&init);
            }
        }
        if let Some(mut cgroups) = self.cgroups.take() {
            let _ = cgroups.kill_all();
            cgroups.remove();
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.mounter.is_some() {
            self.tear_down(None);
        }
    }
}

/// Reads the pid behind a frame's tag.
pub(super) fn pid(frame: &[u8]) -> i32 {
    frame.get(1..5).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_le_bytes)
}

/// Receives a process the keeper made.
pub(super) fn receive_child(keeper: BorrowedFd<'_>) -> Result<Option<Child>, LaunchError> {
    let Some((frame, descriptors)) = recv_frame(keeper, FRAME).at(|| "hear from the keeper")? else { return Ok(None) };
    match (frame.first(), descriptors.into_iter().next()) {
        (Some(&MADE), Some(pidfd)) => Ok(Some(Child { pid: pid(&frame), pidfd })),
        (Some(_), _) => Err(LaunchError::decode(&frame[1..])),
        (None, _) => Ok(None),
    }
}

/// States what holds, from the plan and from what the kernel offered; `missing` are limits without a file of the kernel's.
fn enforced(bundle: &Bundle, plan: &LaunchPlan, host: &HostFeatures, missing: &[String]) -> Enforced {
    let userns = match (&bundle.userns, &plan.user) {
        (UserNamespace::Host { because }, _) => format!("host: {because}"),
        (_, user) => format!("{:#x}+{IDS}", user.base()),
    };
    let mut namespaces: Vec<String> = plan.new.iter().map(|kind| kind.name().to_owned()).collect();
    if matches!(plan.user, UserPlan::Range { .. }) {
        namespaces.push("user".to_owned());
    }
    namespaces.sort();
    let groups = plan.cgroup.groups.iter().flat_map(|group| &group.writes);
    let limits = groups.filter(|(file, _)| !file.starts_with("devices.")).map(|(file, value)| {
        let absent = missing.iter().find(|text| text.starts_with(file.as_str()));
        absent.map_or_else(|| format!("{file}={value}"), |text| format!("missing: {text}"))
    });
    let unkept = missing.iter().filter(|text| text.starts_with(super::cgroup::DEVICES));
    let limits = limits.chain(unkept.map(|text| format!("missing: {text}")));
    // The views inside have what the host's have.
    let covered = |step: &&Step| matches!(step, Step::Mask(path) | Step::Readonly(path) if Path::new(path).exists());
    let launched = Launched {
        userns,
        namespaces,
        limits: limits.collect(),
        root_readonly: bundle.root_readonly,
        masked: plan.late.iter().filter(covered).count(),
    };
    security::enforced::enforced(&bundle.hardening, &landlock_rules(bundle, plan, host.landlock_abi).outcome, launched)
}

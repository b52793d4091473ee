//! The shim's part of a launch: control groups, the mounter, id maps, mounts made outside, and the wait for the program.

use super::bundle::{Bundle, UserNamespace};
use super::cgroup::Cgroups;
use super::error::{Context, LaunchError};
use super::init::limit_number;
use super::mounter::{ERROR, FRAME, Mounter, landlock_rules, open_file, outer_flags};
use super::nest::Nest;
use super::outside::{end, give_pipes, make, namespace_with_map, open_namespace, write_maps};
use super::pending::Pending;
use super::plan::{Kind, LaunchPlan, Step, UserPlan, plan};
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

impl Launch {
    /// Looks at the host, once in the life of this process.
    pub fn look() -> &'static HostFeatures {
        static HOST: std::sync::OnceLock<HostFeatures> = std::sync::OnceLock::new();
        HOST.get_or_init(HostFeatures::probe)
    }

    /// Makes control groups, namespaces and the file systems, and starts assembling the tree. The caller has one thread,
    /// its descriptors 0, 1 and 2 are open, and it is host root. The program may run before [`Pending::finish`] where no
    /// links are awaited and nothing is required.
    ///
    /// `host` is what the host was found to be ([`Launch::look`]).
    /// `stdio` are the first process's streams, needed unless it has a terminal. `reuse` are the namespaces of the run
    /// before, on a restart. `nest` are namespaces made beforehand, used where the plan wants just these.
    ///
    /// # Errors
    /// When the plan is refused or a step on this side fails; nothing is left behind.
    pub fn begin(
        bundle: &Bundle,
        host: &HostFeatures,
        stdio: Option<[BorrowedFd<'_>; 3]>,
        reuse: Option<&Kept>,
        nest: Option<Nest>,
    ) -> Result<Pending, LaunchError> {
        let plan = plan(bundle, host).map_err(|error| LaunchError::refused(error.to_string()))?;
        if stdio.is_none() && !bundle.process.tty {
            return Err(LaunchError::refused("a process without a terminal needs three streams"));
        }
        crate::sys::require_single_thread().at(|| "start a container (the process has threads)")?;
        // No process of ours on the way to its program shows its memory or program to those inside.
        set_undumpable().at(|| "hide our memory")?;
        give_pipes(stdio, plan.user.base());
        // Processes are born in groups of version 2, and join those of version 1 later: these are made while the mounter works.
        let mut born_in = if plan.cgroup.unified { Some(groups(&plan)?) } else { None };
        let started = start(bundle, &plan, host, stdio, reuse, nest, born_in.as_ref());
        let mut pending = started.inspect_err(|_| born_in.iter_mut().for_each(Cgroups::clear))?;
        let cgroups = pending.cgroups.insert(match born_in {
            Some(cgroups) => cgroups,
            None => groups(&plan)?,
        });
        pending.join = Some(cgroups.join_files()?);
        let missing = cgroups.missing.clone();
        // Where nobody has anything to do before the program, and nothing will refuse it, it is on its way from here.
        if !bundle.links_follow && bundle.require.is_empty() {
            pending.release();
        }
        let enforced = pending.enforced.insert(enforced(bundle, &plan, host, &missing));
        require(&bundle.require, host, enforced).map_err(|error| LaunchError::refused(error.to_string()))?;
        Ok(pending)
    }
}

/// Makes the control groups of a plan.
fn groups(plan: &LaunchPlan) -> Result<Cgroups, LaunchError> {
    let mut groups = Cgroups::create(&plan.cgroup, plan.user.base())?;
    let made = fault::fail(Point::GroupsMade).at(|| "make control groups");
    made.inspect_err(|_| groups.remove())?;
    Ok(groups)
}

/// Makes namespaces and the file systems of the host's making; the mounter is at work when this returns.
fn start(
    bundle: &Bundle,
    plan: &LaunchPlan,
    host: &HostFeatures,
    stdio: Option<[BorrowedFd<'_>; 3]>,
    reuse: Option<&Kept>,
    nest: Option<Nest>,
    born_in: Option<&Cgroups>,
) -> Result<Pending, LaunchError> {
    let present = present_user_namespace(plan, reuse)?;
    let mut files: Vec<(Kind, OwnedFd)> =
        plan.join.iter().map(|(kind, path)| Ok((*kind, open_file(path)?))).collect::<Result<_, LaunchError>>()?;
    let reused_net = reuse.and_then(|kept| kept.netns.as_ref()).filter(|_| plan.new.contains(&Kind::Net));
    if let Some(netns) = reused_net {
        files.push((Kind::Net, netns.try_clone().at(|| "keep the network namespace")?));
    }
    let birth = born_in.map(Cgroups::birth_dirs).transpose()?;
    let (report, their_report) = pair().at(|| "make a socket")?;
    let (keeper, their_keeper) = pair().at(|| "make a socket")?;
    let flags = birth_flags(plan, present.is_some(), reused_net.is_some());
    let nest = nest.filter(|_| flags == Nest::FLAGS);
    let flags = if nest.is_some() { CloneFlags::default() } else { flags };
    // Before the mounter is there, which then waits for nothing until it needs the tree.
    let mapped = nest.as_ref().map(|nest| map(&plan.user, nest.pid())).transpose()?.flatten();
    let mounter = {
        let mounter = Mounter {
            bundle,
            plan,
            landlock_abi: host.landlock_abi,
            report: their_report,
            keeper: their_keeper,
            nest: nest.as_ref().map(Nest::door),
            userns: present.as_ref().map(AsFd::as_fd),
            joins: files.iter().map(|(kind, file)| (*kind, file.as_fd())).collect(),
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
    spread(mounter.pid);
    let made = fault::fail(Point::MounterMade).at(|| "make the container's namespaces");
    match made.and_then(|()| furnish(bundle, plan, &mounter, nest.as_ref(), &report, (present, mapped))) {
        Ok(mut kept) => {
            if let Some(netns) = reused_net {
                kept.netns = Some(netns.try_clone().at(|| "keep the network namespace")?);
            }
            Ok(Pending {
                mounter: Some(mounter),
                nest,
                report,
                keeper,
                kept,
                cgroups: None,
                join: None,
                enforced: None,
                base: plan.user.base(),
                shows_view: plan.new.contains(&Kind::Cgroup),
            })
        }
        Err(error) => {
            end(&mounter);
            // It may have failed first, and ours is what followed from that.
            Err(told(report.as_fd()).unwrap_or(error))
        }
    }
}

/// Reads what the mounter, which has ended, said of its failure.
fn told(report: BorrowedFd<'_>) -> Option<LaunchError> {
    while let Ok(Some((frame, _))) = recv_frame(report, FRAME) {
        if frame.first() == Some(&ERROR) {
            return Some(LaunchError::decode(&frame[1..]));
        }
    }
    None
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
    nest: Option<&Nest>,
    report: &OwnedFd,
    (present, mapped): (Option<OwnedFd>, Option<OwnedFd>),
) -> Result<Kept, LaunchError> {
    let staged = present.is_some();
    let inside = nest.map_or(mounter.pid, Nest::pid);
    let userns = match present.or(mapped) {
        Some(userns) => Some(userns),
        None => map(&plan.user, inside)?,
    };
    inherit(bundle, mounter.pid)?;
    let outside = make(bundle, plan, userns.as_ref().map(AsFd::as_fd))?;
    // Before the mounter gets to work: it may end, and tell why, at any time from then on.
    let netns = match plan.new.contains(&Kind::Net) {
        false => None,
        true if !staged => Some(open_namespace(inside, "net")?),
        // A reused one has no frame: the caller puts it in.
        true => None,
    };
    let descriptors: Vec<_> = outside.iter().map(AsFd::as_fd).collect();
    send_frame(report.as_fd(), b"tree", &descriptors).at(|| "hand mounts to the mounter")?;
    // A message wakes its reader on our processor, as if we were about to wait; there is much to do yet.
    spread(mounter.pid);
    Ok(Kept { userns, netns })
}

/// Maps the ids of the user namespace a process was born in, and opens it; `None` where that is the host's.
fn map(user: &UserPlan, pid: i32) -> Result<Option<OwnedFd>, LaunchError> {
    let (UserPlan::Range { base } | UserPlan::Join { base, .. }) = user else { return Ok(None) };
    let map = format!("0 {base} {IDS}");
    write_maps(pid, &map, &map)?;
    open_namespace(pid, "user").map(Some)
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

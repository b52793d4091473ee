//! Which control groups are made and what is written into them.

use super::bundle::{Bundle, Limits};
use super::device_rules::{DeviceRule, rules};
use super::plan::PlanError;
use crate::base::ContainerId;
use crate::security::Level;
use crate::security::features::{CgroupLayout, CgroupMount};
use std::fmt;
use std::path::PathBuf;

/// The control groups of one launch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupPlan {
    /// Whether this is the unified hierarchy (version 2).
    pub unified: bool,
    /// Path below each mount point, `bulkhead-<id>`.
    pub path: String,
    /// One group in each hierarchy used.
    pub groups: Vec<Group>,
    /// Devices allowed where a program keeps them (unified hierarchy); `None` allows all. Version 1 has them in its writes.
    pub devices: Option<Vec<DeviceRule>>,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Mount point of its hierarchy.
    pub mount: PathBuf,
    /// The controllers there.
    pub controllers: Vec<String>,
    /// File and value, in order, before a process joins.
    pub writes: Vec<(String, String)>,
}

/// Controllers joined wherever they are mounted; cpuset costs more and is joined when asked for.
const JOINED: [&str; 7] = ["pids", "memory", "cpu", "cpuacct", "devices", "freezer", "blkio"];

/// Returns the path of a container's groups. There is no group above all containers': it would be made and removed again
/// with every container that runs alone, in each hierarchy.
pub fn group_name(id: &ContainerId) -> String {
    format!("bulkhead-{id}")
}

pub(super) fn plan_cgroup(bundle: &Bundle, layout: &CgroupLayout) -> Result<CgroupPlan, PlanError> {
    let path = &bundle.cgroup.path;
    if path.is_empty() || path.starts_with('.') || path.contains(['/', '\0']) {
        return Err(PlanError::CgroupPath(path.clone()));
    }
    let limits = &bundle.cgroup.limits;
    let unified = is_unified(layout);
    require(limits, layout)?;
    let mut plan = CgroupPlan { unified, path: path.clone(), ..CgroupPlan::default() };
    if unified {
        if let Some(CgroupMount { path, controllers }) = &layout.v2 {
            let writes = writes_v2(limits)?;
            plan.groups.push(Group { mount: path.clone(), controllers: controllers.clone(), writes });
            plan.devices = (bundle.hardening.level != Level::Privileged).then(|| rules(&bundle.devices));
        }
        return Ok(plan);
    }
    let wants_cpuset = limits.cpuset_cpus.is_some() || limits.cpuset_mems.is_some();
    for CgroupMount { path: mount, controllers } in &layout.v1 {
        let joined = |name: &String| JOINED.contains(&name.as_str()) || (name == "cpuset" && wants_cpuset);
        if !controllers.iter().any(joined) {
            continue;
        }
        let mut writes = Vec::new();
        for controller in controllers {
            writes.extend(writes_v1(controller, limits, bundle)?);
        }
        plan.groups.push(Group { mount: mount.clone(), controllers: controllers.clone(), writes });
    }
    Ok(plan)
}

/// Returns whether limits and freezing go through the unified hierarchy: no version 1 controller is mounted.
fn is_unified(layout: &CgroupLayout) -> bool {
    layout.v1.is_empty() && layout.v2.is_some()
}

/// Refuses limits whose controller is missing.
fn require(limits: &Limits, layout: &CgroupLayout) -> Result<(), PlanError> {
    let has = |mount: &CgroupMount, controller: &str| mount.controllers.iter().any(|name| name == controller);
    let offered = |controller: &str| match &layout.v2 {
        Some(mount) if is_unified(layout) => has(mount, controller),
        _ => layout.v1.iter().any(|mount| has(mount, controller)),
    };
    let cpu = limits.nano_cpus.is_some() || limits.cpu_shares.is_some() || limits.cpu_quota.is_some();
    let wanted = [
        ("memory", limits.memory.is_some() || limits.memory_reservation.is_some(), "memory", "CONFIG_MEMCG"),
        ("pids-limit", limits.pids.is_some(), "pids", "CONFIG_CGROUP_PIDS"),
        ("cpus", cpu, "cpu", "CONFIG_CFS_BANDWIDTH"),
        ("cpuset", limits.cpuset_cpus.is_some() || limits.cpuset_mems.is_some(), "cpuset", "CONFIG_CPUSETS"),
    ];
    for (limit, asked, controller, option) in wanted {
        if asked && !offered(controller) {
            let missing = match is_unified(layout) {
                true => "the control group above hands it not down (its cgroup.subtree_control)",
                false => "it is not mounted",
            };
            return Err(PlanError::NoController { limit, controller, option, missing });
        }
    }
    Ok(())
}

fn write(file: &str, value: impl fmt::Display) -> (String, String) {
    (file.to_owned(), value.to_string())
}

/// Quota and period in microseconds.
fn quota(limits: &Limits) -> Result<Option<(i64, u64)>, PlanError> {
    let period = limits.cpu_period.unwrap_or(100_000);
    if let Some(nano) = limits.nano_cpus {
        let micro = u128::from(nano) * u128::from(period) / 1_000_000_000;
        let micro = i64::try_from(micro).map_err(|_| PlanError::BadLimit { limit: "cpus", value: nano.to_string() })?;
        return Ok(Some((micro.max(1000), period)));
    }
    Ok(limits.cpu_quota.map(|quota| (quota, period)))
}

/// Checks a list such as `0-2,5`.
fn list<'a>(limit: &'static str, text: &'a str) -> Result<&'a str, PlanError> {
    let ok = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'-' || b == b',');
    if ok { Ok(text) } else { Err(PlanError::BadLimit { limit, value: text.to_owned() }) }
}

fn writes_v1(controller: &str, limits: &Limits, bundle: &Bundle) -> Result<Vec<(String, String)>, PlanError> {
    let mut writes = Vec::new();
    match controller {
        "memory" => {
            writes.extend(limits.memory.map(|n| write("memory.limit_in_bytes", n)));
            writes.extend(limits.memory_swap.map(|n| write("memory.memsw.limit_in_bytes", n)));
            writes.extend(limits.memory_reservation.map(|n| write("memory.soft_limit_in_bytes", n)));
        }
        "pids" => writes.extend(limits.pids.map(|n| write("pids.max", n))),
        "cpu" => {
            writes.extend(limits.cpu_shares.map(|n| write("cpu.shares", n)));
            if let Some((quota, period)) = quota(limits)? {
                writes.push(write("cpu.cfs_period_us", period));
                writes.push(write("cpu.cfs_quota_us", quota));
            }
        }
        "cpuset" => {
            if let Some(cpus) = &limits.cpuset_cpus {
                writes.push(write("cpuset.cpus", list("cpuset-cpus", cpus)?));
            }
            if let Some(mems) = &limits.cpuset_mems {
                writes.push(write("cpuset.mems", list("cpuset-mems", mems)?));
            }
        }
        "devices" if bundle.hardening.level != Level::Privileged => {
            writes.push(write("devices.deny", "a"));
            writes.extend(rules(&bundle.devices).iter().map(|rule| write("devices.allow", rule)));
        }
        _ => {}
    }
    Ok(writes)
}

fn writes_v2(limits: &Limits) -> Result<Vec<(String, String)>, PlanError> {
    let mut writes = Vec::new();
    writes.extend(limits.memory.map(|n| write("memory.max", n)));
    if let Some(both) = limits.memory_swap {
        writes.push(write("memory.swap.max", both.saturating_sub(limits.memory.unwrap_or(0))));
    }
    writes.extend(limits.memory_reservation.map(|n| write("memory.low", n)));
    writes.extend(limits.pids.map(|n| write("pids.max", n)));
    if let Some(shares) = limits.cpu_shares {
        // The kernel documentation's mapping of 2..262144 onto 1..10000.
        let shares = shares.clamp(2, 262_144);
        writes.push(write("cpu.weight", 1 + (shares - 2) * 9999 / 262_142));
    }
    if let Some((quota, period)) = quota(limits)? {
        let quota = if quota < 0 { "max".to_owned() } else { quota.to_string() };
        writes.push(write("cpu.max", format!("{quota} {period}")));
    }
    if let Some(cpus) = &limits.cpuset_cpus {
        writes.push(write("cpuset.cpus", list("cpuset-cpus", cpus)?));
    }
    if let Some(mems) = &limits.cpuset_mems {
        writes.push(write("cpuset.mems", list("cpuset-mems", mems)?));
    }
    Ok(writes)
}

impl fmt::Display for CgroupPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for group in &self.groups {
            writeln!(f, "group {}/{}", group.mount.display(), self.path)?;
            for (file, value) in &group.writes {
                writeln!(f, "  {file} = {value}")?;
            }
            for rule in self.devices.iter().flatten() {
                writeln!(f, "  device program: {rule}")?;
            }
        }
        Ok(())
    }
}

//! The sandbox: from a [`Bundle`] (what one launch needs, all names resolved) to a running process.
//!
//! [`plan`] is pure: bundle and host features in, a [`LaunchPlan`] out. [`Launch`] performs it from a process with one
//! thread, through the mounter (assembles the tree), the keeper (forks every process of the container) and `init` (the
//! code between clone and execve). Nothing else changes a container's namespaces or mounts. The process tree of one
//! container is described in `ARCHITECTURE.md` "One container, four processes".

mod bundle;
mod cgroup;
mod cgroup_plan;
mod device_rules;
mod devices;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod init;
mod keeper;
mod launch;
mod mounter;
mod nest;
mod outside;
mod overlay;
mod pending;
mod plan;
mod reaper;
mod running;
mod tree;
mod user;
mod view;
mod wire;

pub use bundle::*;
pub use cgroup::{Cgroups, sweep};
pub use cgroup_plan::{CgroupPlan, Group, group_name};
pub use device_rules::DeviceRule;
pub use error::{LaunchError, LaunchErrorKind};
pub use launch::{Kept, Launch};
pub use nest::Nest;
pub use pending::Pending;
pub use plan::{CloneIds, Kind, LaunchPlan, Outside, PlanError, Step, UserPlan, plan};
pub use running::{Added, EmptyGroups, Mounted, Running};
pub use user::{Account, IDS};
pub use view::{view, writable_view};

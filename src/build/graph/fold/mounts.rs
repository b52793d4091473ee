//! `RUN --mount`: what each mount shows and where (*Dockerfile reference "RUN --mount"*).

use super::super::{CopyFrom, MountFrom, PlanError, PlanProblem, PlannedMount};
use super::{Fold, absolute, non_empty};
use crate::build::dockerfile::{LineRange, MountKind, Run, RunMount};
use crate::step::{Access, AgentWish, SecretWish};

/// Where secrets and agents are shown without a `target`; the latter as in BuildKit.
const SECRETS: &str = "/run/secrets";
const AGENT: &str = "/run/buildkit/ssh_agent";

/// Largest id inside a step.
const MAX_ID: u32 = 65_535;

/// The mounts of one `RUN`.
#[derive(Default)]
pub(super) struct Mounts {
    pub(super) mounts: Vec<PlannedMount>,
    pub(super) secrets: Vec<SecretWish>,
    pub(super) agents: Vec<AgentWish>,
}

impl Fold<'_> {
    /// Plans the mounts of a `RUN`, variables replaced.
    pub(super) fn mounts(&self, run: &Run, lines: LineRange) -> Result<Mounts, PlanError> {
        let mut all = Mounts::default();
        for text in &run.mounts {
            let mount = text.resolve(|value| self.expand(value, lines).map_err(|error| error.problem));
            self.mount(mount.map_err(|problem| problem.at(lines))?, &mut all, lines)?;
        }
        Ok(all)
    }

    fn mount(&self, mount: RunMount, all: &mut Mounts, lines: LineRange) -> Result<(), PlanError> {
        let readonly = mount.readonly;
        if let Some(id) = [mount.uid, mount.gid].into_iter().flatten().find(|id| *id > MAX_ID) {
            let expected = "ids of a step go up to 65535";
            return Err(
                PlanProblem::Value { instruction: "--mount uid, gid", value: id.to_string(), expected }.at(lines)
            );
        }
        match mount.kind {
            MountKind::Bind => {
                let from = match &mount.from {
                    Some(name) => self.tree(name, lines)?,
                    None => CopyFrom::Context,
                };
                let source = MountFrom::Bind { from, path: rooted(mount.source.as_deref()) };
                all.mounts.push(PlannedMount { target: self.target(&mount, lines)?, readonly, source });
            }
            MountKind::Cache => {
                let target = self.target(&mount, lines)?;
                let from = mount.from.as_deref().map(|name| self.tree(name, lines)).transpose()?;
                let source = rooted(mount.source.as_deref());
                // A path in nothing is a part of its own.
                let part = if from.is_none() && source != "/" { format!("#{source}") } else { String::new() };
                let id = mount.id.clone().filter(|id| !id.is_empty()).unwrap_or_else(|| target.clone());
                let source = MountFrom::Cache {
                    id: format!("{id}{part}"),
                    sharing: mount.sharing,
                    access: access(&mount, 0o755),
                    seed: from.map(|from| (from, source)),
                };
                all.mounts.push(PlannedMount { target, readonly, source });
            }
            MountKind::Tmpfs => {
                let source = MountFrom::Tmpfs(mount.size.map(|size| size.0));
                all.mounts.push(PlannedMount { target: self.target(&mount, lines)?, readonly, source });
            }
            MountKind::Secret => {
                let named = mount.source.as_deref().or(mount.id.as_deref()).filter(|id| !id.is_empty());
                let written = mount.target.as_deref().filter(|target| !target.is_empty());
                let id = named.or(written.map(last_name)).unwrap_or_default().to_owned();
                let target = match (written, &mount.env) {
                    (Some(_), _) => Some(self.target(&mount, lines)?),
                    (None, Some(_)) => None,
                    (None, None) => Some(format!("{SECRETS}/{}", last_name(&id))),
                };
                let (required, env, access) = (mount.required, mount.env.clone(), access(&mount, 0o400));
                all.secrets.push(SecretWish { id, required, target, env, access });
            }
            MountKind::Ssh => {
                let target = match mount.target.as_deref().filter(|target| !target.is_empty()) {
                    Some(_) => self.target(&mount, lines)?,
                    None => format!("{AGENT}.{}", all.agents.len()),
                };
                let id = mount.id.clone().filter(|id| !id.is_empty()).unwrap_or_else(|| "default".to_owned());
                all.agents.push(AgentWish { id, required: mount.required, target, access: access(&mount, 0o600) });
            }
        }
        Ok(())
    }

    /// The target, relative to the working directory.
    fn target(&self, mount: &RunMount, lines: LineRange) -> Result<String, PlanError> {
        let written = mount.target.clone().unwrap_or_default();
        let target = absolute(&non_empty(&self.config.config.working_dir, "/"), &written);
        let first = target.split('/').nth(1).unwrap_or_default();
        match first {
            "" => Err("the root itself cannot be mounted over"),
            "proc" | "sys" => Err("nothing may be mounted below /proc and /sys"),
            _ => Ok(()),
        }
        .map_err(|expected| PlanProblem::Value { instruction: "--mount target", value: written, expected }.at(lines))?;
        Ok(target)
    }
}

fn access(mount: &RunMount, mode: u32) -> Access {
    Access { uid: mount.uid.unwrap_or(0), gid: mount.gid.unwrap_or(0), mode: mount.mode.unwrap_or(mode) }
}

fn last_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// A path below the root of a tree: `..` stays inside.
fn rooted(source: Option<&str>) -> String {
    absolute("/", source.unwrap_or_default())
}

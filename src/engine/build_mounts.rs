//! What a build step is given besides its tree: mounts, files of its own, secrets, agents.

use super::EngineError;
use super::build::{Builder, Secret};
use super::build_agent::Agents;
use super::build_run::HOSTNAME;
use super::network::HOST_RESOLVER;
use super::redact::Redactor;
use super::request::MountRequest;
use super::spec::bind_ids;
use super::start::write_own_file;
use crate::network::{self, Resolver};
use crate::sandbox::{BindIds, Mount, MountSource, Root};
use crate::step::{AgentWish, RunOrder, SecretWish, StepMount, StepSource};
use crate::store::StoreError;
use std::net::IpAddr;
use std::path::Path;

/// Variable that tells programs where their agent is.
const AGENT: &str = "SSH_AUTH_SOCK";

/// What a step is given.
pub(super) struct Given {
    /// Mounts, those above others first.
    pub(super) mounts: Vec<Mount>,
    /// Its environment with its secrets.
    pub(super) env: Vec<String>,
    /// Its agents.
    pub(super) agents: Agents,
}

impl Builder<'_> {
    /// Writes the step's own files into its directory in `$RUN`, opens its agents, and lists all mounts. `base` is the host's id
    /// of the step's root.
    pub(super) fn given(
        &self,
        order: &RunOrder,
        asked: &[StepMount<'_, Self>],
        (address, gateway): (Option<IpAddr>, Option<IpAddr>),
        run_dir: &Path,
        base: u32,
    ) -> Result<Given, EngineError> {
        let (mut mounts, mut env) = (Vec::new(), order.env.clone());
        for request in &self.options.mounts {
            let MountRequest::Bind { source, target, readonly, recursive, .. } = request else { continue };
            let source = MountSource::Bind { path: source.clone(), recursive: *recursive, ids: bind_ids(source) };
            mounts.push(Mount { target: target.clone(), source, readonly: *readonly });
        }
        for mount in asked {
            // One of the command line is there instead of one of the Dockerfile.
            if !mounts.iter().any(|known| known.target == mount.target) {
                mounts.push(Mount { target: mount.target.clone(), source: source(mount), readonly: mount.readonly });
            }
        }
        for (number, wish) in order.secrets.iter().enumerate() {
            let Some(secret) = self.secret(wish)? else { continue };
            if let Some(name) = &wish.env {
                let text = String::from_utf8(secret.0.clone()).ok().filter(|text| !text.contains('\0'));
                let text = text.ok_or_else(|| EngineError::SecretText { id: wish.id.clone(), name: name.clone() })?;
                env.retain(|entry| entry.split_once('=').is_none_or(|(known, _)| known != name));
                env.push(format!("{name}={text}"));
            }
            if let Some(target) = &wish.target {
                let path = run_dir.join(format!("secret-{number}"));
                write_own_file(&path, &secret.0, wish.access.mode)?;
                std::os::unix::fs::chown(&path, Some(wish.access.uid), Some(wish.access.gid))
                    .map_err(StoreError::io("set owner of", &path))?;
                mounts.push(Mount {
                    target: target.clone(),
                    source: MountSource::OwnFile { path, of: None },
                    readonly: true,
                });
            }
        }
        let mut agents = Agents::default();
        for (number, wish) in order.agents.iter().enumerate() {
            let Some(agent) = self.agent(wish)? else { continue };
            let path = run_dir.join(format!("agent-{number}"));
            agents.open(&path, agent, wish.access, base)?;
            mounts.push(Mount { target: wish.target.clone(), source: MountSource::Own(path), readonly: false });
            if !env.iter().any(|entry| entry.split_once('=').is_some_and(|(name, _)| name == AGENT)) {
                env.push(format!("{AGENT}={}", wish.target));
            }
        }
        let extra = network::extra_hosts(&self.options.extra_hosts, gateway)?;
        let hosts = network::hosts_text(address, HOSTNAME, "", &extra);
        let resolv = host_resolver().text(address.is_some());
        let own = [("/etc/hosts", hosts.into_bytes(), 0o644), ("/etc/resolv.conf", resolv.into_bytes(), 0o644)];
        let files = order.files.iter().map(|file| (file.path.as_str(), file.content.clone(), file.mode));
        for (number, (target, content, mode)) in own.into_iter().chain(files).enumerate() {
            let covered = |mount: &Mount| mount.target == target || target.starts_with(&format!("{}/", mount.target));
            if mounts.iter().any(covered) {
                continue;
            }
            let path = run_dir.join(format!("file-{number}"));
            write_own_file(&path, &content, mode)?;
            mounts.push(Mount {
                target: target.to_owned(),
                source: MountSource::OwnFile { path, of: None },
                readonly: false,
            });
        }
        // What lies in another mount comes after it.
        mounts.sort_by_key(|mount| Path::new(&mount.target).components().count());
        Ok(Given { mounts, env, agents })
    }

    /// Finds a secret; one that need not be there may be missing.
    fn secret(&self, wish: &SecretWish) -> Result<Option<&Secret>, EngineError> {
        match self.options.secrets.iter().rev().find(|(id, _)| *id == wish.id) {
            Some((_, secret)) => Ok(Some(secret)),
            None if wish.required => Err(EngineError::NoSecret(wish.id.clone())),
            None => Ok(None),
        }
    }

    fn agent(&self, wish: &AgentWish) -> Result<Option<&Path>, EngineError> {
        match self.options.agents.iter().rev().find(|(id, _)| *id == wish.id) {
            Some((_, agent)) => Ok(Some(agent)),
            None if wish.required => Err(EngineError::NoAgent(wish.id.clone())),
            None => Ok(None),
        }
    }

    /// Takes the secrets that a step asks for out of what it prints.
    pub(super) fn redactor(&self, order: &RunOrder) -> Redactor {
        let asked = |id: &String| order.secrets.iter().any(|wish| wish.id == *id);
        Redactor::new(self.options.secrets.iter().filter(|(id, _)| asked(id)).map(|(_, secret)| &secret.0[..]))
    }
}

fn source(mount: &StepMount<'_, Builder<'_>>) -> MountSource {
    match &mount.source {
        StepSource::Tree(tree, path) => {
            let at = &tree.active;
            let root = if at.lowers.is_empty() {
                Root::Directory(at.store.join(&at.upper))
            } else {
                Root::Overlay {
                    store: at.store.clone(),
                    lowers: at.lowers.clone(),
                    upper: at.upper.clone(),
                    work: at.work.clone(),
                    volatile: true,
                }
            };
            MountSource::Tree { root, path: path.clone() }
        }
        StepSource::Cache(cache) => MountSource::Bind { path: cache.data(), recursive: false, ids: BindIds::Same },
        // As in BuildKit, programs may be run from it.
        StepSource::Tmpfs(size) => {
            let size = size.map(|size| format!("size={size}"));
            MountSource::Tmpfs { options: size.into_iter().chain(["exec".to_owned()]).collect() }
        }
    }
}

pub(super) fn host_resolver() -> Resolver {
    Resolver::parse(&std::fs::read_to_string(HOST_RESOLVER).unwrap_or_default())
}

//! An image made of a container as it is (`commit`).

use super::record::{Container, ContainerRecord};
use super::{Engine, EngineError};
use crate::base::{ContainerId, Timestamp};
use crate::image::{Image, Images, diff};
use crate::oci::{ContainerConfig, Empty, HealthConfig, History, ImageConfig, Reference};
use crate::shim::Status;

/// How a container becomes an image.
#[derive(Clone, Debug, Default)]
pub struct CommitRequest {
    /// Its name.
    pub reference: Option<Reference>,
    /// `--author`.
    pub author: String,
    /// `--message`.
    pub message: String,
    /// What containers of it run with: [`Engine::commit_config`], changed by `--change`.
    pub config: ContainerConfig,
    /// Freeze a running container meanwhile.
    pub pause: bool,
}

impl Engine {
    /// Returns the configuration an image of a container has before any `--change`.
    ///
    /// # Errors
    /// When there is no such container or its image is gone.
    pub fn commit_config(&self, id: &ContainerId) -> Result<ContainerConfig, EngineError> {
        let record = self.record(id)?;
        let base = self.base_of(&record)?;
        Ok(merged(&record, base.config.config))
    }

    /// Makes an image of a container's files and configuration.
    ///
    /// # Errors
    /// When the container has no image below it (`--rootfs`), or the store cannot be written.
    pub fn commit(&self, id: &ContainerId, request: CommitRequest) -> Result<Image, EngineError> {
        let Container { record, state } = self.observe(id)?;
        let base = self.base_of(&record)?;
        let images = Images::open(&self.paths)?;
        let _hold = images.hold()?;
        let frozen = request.pause && state.status == Status::Running;
        if frozen {
            self.pause(id)?;
        }
        let layer = images.copy_layer(id.as_str(), &diff::Options::default());
        if frozen {
            self.unpause(id)?;
        }
        let mut layers = base.layers.clone();
        layers.push(layer?);
        let created = Some(Timestamp::now());
        let mut config = ImageConfig { author: request.author.clone(), created, ..base.config };
        config.comment.clone_from(&request.message);
        config.config = request.config;
        config.history.push(History {
            created,
            author: request.author,
            created_by: record.process.args.join(" "),
            comment: request.message,
            ..History::default()
        });
        let references: Vec<Reference> = request.reference.into_iter().collect();
        Ok(images.create_image(config, &layers, &references)?)
    }

    fn base_of(&self, record: &ContainerRecord) -> Result<Image, EngineError> {
        match &record.image {
            Some(image) => Ok(Images::open(&self.paths)?.resolve(&image.id.to_string())?),
            None => {
                let text = format!("container {} was made with --rootfs: there is no image below it", record.name);
                Err(EngineError::Conflict(text))
            }
        }
    }
}

/// Puts what a container was told over what its image says. What only this container's start added stays out.
fn merged(record: &ContainerRecord, image: ContainerConfig) -> ContainerConfig {
    let health = record.health.as_ref().map(|plan| HealthConfig {
        test: std::iter::once("CMD".to_owned()).chain(plan.command.iter().cloned()).collect(),
        interval: plan.interval,
        timeout: plan.timeout,
        start_period: plan.start_period,
        start_interval: plan.start_interval,
        retries: plan.retries,
    });
    let asked = record.request.health != Default::default();
    ContainerConfig {
        user: record.process.user.clone(),
        exposed_ports: record.exposed.iter().map(|port| (port.clone(), Empty {})).collect(),
        env: record.env.clone(),
        entrypoint: Some(record.entrypoint.clone()).filter(|words| !words.is_empty()),
        cmd: Some(record.command.clone()).filter(|words| !words.is_empty()),
        working_dir: if record.process.cwd == "/" { image.working_dir.clone() } else { record.process.cwd.clone() },
        labels: record.labels.iter().cloned().collect(),
        healthcheck: if asked { health } else { image.healthcheck.clone() },
        ..image
    }
}

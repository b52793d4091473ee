//! Images as the engine sees them: who uses them, removing them, taking out what nobody needs.

use super::remove::TREE;
use super::{Engine, EngineError};
use crate::base::Digest;
use crate::image::{Collected, Images, LayerUse, Removed, Roots};
use crate::store::{Lease, StoreError, sweep_records};

impl Engine {
    /// Returns the names of containers made from an image.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn image_users(&self, id: &Digest) -> Result<Vec<String>, EngineError> {
        let uses = |record: &super::record::ContainerRecord| record.image.as_ref().is_some_and(|image| image.id == *id);
        Ok(self.list()?.into_iter().filter(|c| uses(&c.record)).map(|c| c.record.name).collect())
    }

    /// Untags an image and deletes it with its last name; refused while a container was made from it. `roots` tells what
    /// to keep: the build cache has references of its own.
    ///
    /// # Errors
    /// When there is no such image or a container uses it.
    pub fn remove_image(&self, name: &str, force: bool, roots: Roots<'_>) -> Result<Vec<Removed>, EngineError> {
        self.making_room(|| self.remove_image_now(name, force, roots))
    }

    fn remove_image_now(&self, name: &str, force: bool, roots: Roots<'_>) -> Result<Vec<Removed>, EngineError> {
        self.settle_abandoned()?;
        let containers = self.list()?;
        let users = |id: &Digest| -> Vec<String> {
            let made_from = |image: &super::record::ImageUse| image.id == *id;
            let of = containers.iter().filter(|c| c.record.image.as_ref().is_some_and(made_from));
            of.map(|c| c.record.id.short().to_owned()).collect()
        };
        let _lease = Lease::take(&self.paths, "image")?;
        Ok(Images::open(&self.paths)?.remove(name, force, &users, roots)?)
    }

    /// Takes out layers, writable snapshots and documents that nobody needs; `roots` tells what to keep.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn collect_images(&self, roots: Roots<'_>) -> Result<Collected, EngineError> {
        self.making_room(|| {
            self.settle_abandoned()?;
            // A build that was killed over a record of its cache may have held no lease.
            sweep_records(&self.paths.root.join("build/cache"));
            let held = Lease::survey(&self.paths).held;
            Ok(Images::open(&self.paths)?.collect(&|key| self.needs_snapshot(key, &held), roots)?)
        })
    }

    /// Lists all layers, and whether images or containers need them.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn layers(&self) -> Result<Vec<LayerUse>, EngineError> {
        let held = Lease::survey(&self.paths).held;
        Ok(Images::open(&self.paths)?.layers(&|key| self.needs_snapshot(key, &held))?)
    }

    /// Tells whether a writable snapshot is that of a container, of one that is being made, or the tree of a build step.
    fn needs_snapshot(&self, key: &str, held: &[String]) -> bool {
        self.paths.root.join("containers").join(key).exists()
            || held.iter().any(|subject| subject.strip_prefix(TREE).unwrap_or(subject) == key)
    }

    /// Returns how many bytes the build cache may hold: the setting, or a tenth of the file system.
    ///
    /// # Errors
    /// When the system does not tell its size.
    pub fn build_cache_limit(&self) -> Result<u64, EngineError> {
        if let Some(limit) = self.settings.build.cache_max_size {
            return Ok(limit.0);
        }
        let root = &self.paths.root;
        let disk = rustix::fs::statvfs(root)
            .map_err(|errno| StoreError::io("look at the file system of", root)(errno.into()))?;
        Ok(disk.f_blocks.saturating_mul(disk.f_frsize) / 10)
    }
}

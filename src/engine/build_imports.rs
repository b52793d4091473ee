//! Caches of others, as a build reads and writes them: their documents when the first step is not in its own cache, their layers
//! when a step asks for one.

use super::build::Builder;
use super::registry::{Attention, of_images};
use super::{Engine, EngineError, Logins};
use crate::base::{Digest, with_causes};
use crate::image::registry::{Client, Format, LayerEvent, RegistryError};
use crate::image::{CacheImage, ImageError, Images, KnownStep, Layer, Layout, StepTable, next_chain_id};
use crate::oci::{Descriptor, Reference};
use crate::step::{CommittedLayer, ImportEvent, Imported};
use std::fmt;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Where a build looks for what others did (`--cache-from`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheSource {
    /// An image of the store that carries steps, else what its registry has under the name.
    Image(Reference),
    /// What a registry has under a name.
    Registry(Reference),
    /// A directory.
    Local(PathBuf),
}

impl fmt::Display for CacheSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(name) | Self::Registry(name) => f.write_str(&name.familiar()),
            Self::Local(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The caches of a build, as far as they were read.
#[derive(Default)]
pub(super) struct Imports {
    sources: Vec<CacheSource>,
    read: Mutex<Option<Arc<Vec<Cache>>>>,
}

impl Imports {
    pub(super) fn of(sources: Vec<CacheSource>) -> Self {
        Self { sources, read: Mutex::default() }
    }
}

/// A cache that was read.
struct Cache {
    name: String,
    steps: StepTable,
    place: Place,
    /// It does not answer any more, and is not asked again.
    lost: AtomicBool,
}

/// Where the layers of a cache are.
enum Place {
    Store,
    Registry(Reference),
    Layout(Layout),
}

type Tell<'t> = &'t (dyn Fn(ImportEvent<'_>) + Sync);

impl Builder<'_> {
    /// Looks for steps in caches of others, too, in this order.
    pub fn importing(mut self, sources: Vec<CacheSource>) -> Self {
        self.imports = Imports::of(sources);
        self
    }

    /// Finds what a step led to; see [`crate::step::BuildHost::import`].
    pub(super) fn import_step(
        &self,
        key: &Digest,
        parent: Option<&Digest>,
        only: Option<&CommittedLayer>,
        tell: Tell<'_>,
    ) -> Result<Option<Imported>, EngineError> {
        for cache in self.caches(tell)?.iter() {
            for step in cache.steps.find(key, parent) {
                let fits = match (only, &step.layer) {
                    (Some(only), Some((diff_id, _))) => only.diff_id == *diff_id,
                    (Some(_), None) => false,
                    (None, _) => true,
                };
                if !fits || cache.lost.load(Ordering::Relaxed) {
                    continue;
                }
                match self.take(cache, step, parent, tell) {
                    Ok(layer) => {
                        let committed = |layer: Layer| CommittedLayer {
                            diff_id: layer.diff_id,
                            chain_id: layer.chain_id,
                            size: layer.size,
                        };
                        let from = cache.name.clone();
                        return Ok(Some(Imported { layer: layer.map(committed), created: step.created, from }));
                    }
                    Err(EngineError::Interrupted) => return Err(EngineError::Interrupted),
                    Err(error) => {
                        if does_not_answer(&error) {
                            cache.lost.store(true, Ordering::Relaxed);
                        }
                        let text = format!(
                            "a step of the build cache {} cannot be used, and is performed: {}",
                            cache.name,
                            with_causes(&error)
                        );
                        tell(ImportEvent::Warning(&text));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Returns the caches; reads their documents when nobody has.
    fn caches(&self, tell: Tell<'_>) -> Result<Arc<Vec<Cache>>, EngineError> {
        let mut read = self.imports.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(caches) = &*read {
            return Ok(Arc::clone(caches));
        }
        let mut caches = Vec::new();
        for source in &self.imports.sources {
            match self.read_cache(source) {
                Ok((steps, place)) => {
                    caches.push(Cache { name: source.to_string(), steps, place, lost: AtomicBool::new(false) });
                }
                Err(EngineError::Interrupted) => return Err(EngineError::Interrupted),
                Err(error) => {
                    let text = format!("--cache-from {source} is of no use: {}", with_causes(&error));
                    tell(ImportEvent::Warning(&text));
                }
            }
        }
        let caches = Arc::new(caches);
        *read = Some(Arc::clone(&caches));
        Ok(caches)
    }

    fn read_cache(&self, source: &CacheSource) -> Result<(StepTable, Place), EngineError> {
        let from_registry = |name: &Reference| {
            let steps = self.with_client(&|_| {}, |client| client.cached_steps(name))?;
            Ok((steps, Place::Registry(name.clone())))
        };
        match source {
            CacheSource::Local(path) => {
                let layout = Layout::open(path)?;
                Ok((layout.steps()?, Place::Layout(layout)))
            }
            CacheSource::Registry(name) => from_registry(name),
            CacheSource::Image(name) => match self.images.carried_steps(name) {
                Ok(steps) => Ok((steps, Place::Store)),
                Err(_) => from_registry(name),
            },
        }
    }

    /// Takes the layer of a step in.
    fn take(
        &self,
        cache: &Cache,
        step: &KnownStep,
        parent: Option<&Digest>,
        tell: Tell<'_>,
    ) -> Result<Option<Layer>, EngineError> {
        let Some((diff_id, blob)) = &step.layer else { return Ok(None) };
        let layer = match (&cache.place, blob) {
            (Place::Registry(name), Some(blob)) => self.pull_step_layer(name, (diff_id, blob), parent, tell)?,
            (Place::Layout(layout), Some(blob)) => layout.take_layer(&self.images, diff_id, blob, parent)?,
            _ => {
                let chain_id = next_chain_id(parent, diff_id);
                let found = self.images.snapshots().layer(&chain_id)?;
                let meta = found.ok_or(EngineError::MissingLayer(chain_id))?;
                Layer { diff_id: meta.diff_id, chain_id: meta.chain_id, size: meta.size, tar_size: meta.tar_size }
            }
        };
        Ok(Some(layer))
    }

    fn pull_step_layer(
        &self,
        name: &Reference,
        (diff_id, blob): (&Digest, &Descriptor),
        parent: Option<&Digest>,
        tell: Tell<'_>,
    ) -> Result<Layer, EngineError> {
        let here = AtomicU64::new(0);
        let progress = |event: LayerEvent<'_>| match event {
            LayerEvent::Bytes(_, count) => {
                let bytes = here.fetch_add(count, Ordering::Relaxed).saturating_add(count);
                tell(ImportEvent::Moved(bytes, blob.size));
            }
            LayerEvent::Again(_) => here.store(0, Ordering::Relaxed),
            _ => {}
        };
        let pull =
            |client: &Client<'_>| self.images.pull_cached_layer(client, name, (diff_id, blob), parent, &progress);
        self.with_client(&progress, pull)
    }

    /// Asks registries with the credentials of the user, until the build is to end.
    fn with_client<T>(
        &self,
        progress: &(dyn Fn(LayerEvent<'_>) + Sync),
        ask: impl FnOnce(&Client<'_>) -> Result<T, ImageError>,
    ) -> Result<T, EngineError> {
        let logins = Logins::of_user();
        let ends = self.any_end()?;
        let attention = Attention { interrupt: Some(ends.as_fd()), tell: progress, notice: &|_| {} };
        let client = self.engine.registry_client(&logins, attention)?;
        ask(&client).map_err(of_images)
    }
}

/// Tells whether a cache need not be asked for anything else.
fn does_not_answer(error: &EngineError) -> bool {
    use RegistryError::{Connect, Denied, Resolve, TimedOut, Tls};
    matches!(
        error,
        EngineError::Image(ImageError::Registry(
            Connect { .. } | Denied { .. } | Resolve { .. } | TimedOut { .. } | Tls { .. }
        ))
    )
}

impl Engine {
    /// Pushes a cache to what a name stands for on its registry; with `flat` as the manifest of its only image, else as an index.
    ///
    /// # Errors
    /// When a layer is gone, or the registry cannot be asked or refuses; what the name stood for is whole then.
    pub fn push_cache(
        &self,
        name: &Reference,
        images: &[CacheImage],
        how: (Format, bool),
        attention: Attention<'_>,
    ) -> Result<Digest, EngineError> {
        let logins = Logins::of_user();
        let client = self.registry_client(&logins, attention)?;
        let store = Images::open(&self.paths)?;
        store.push_cache(&client, name, images, how, attention.tell).map_err(of_images)
    }

    /// Writes a cache to a directory, in the place of the one that is there; `go_on` is asked now and then.
    ///
    /// # Errors
    /// When the directory holds something else, a layer is gone, or the system refuses; the cache that was there is whole then.
    pub fn write_cache(
        &self,
        directory: &Path,
        images: &[CacheImage],
        format: Format,
        go_on: &(dyn Fn(u64) -> bool + Sync),
    ) -> Result<(), EngineError> {
        let store = Images::open(&self.paths)?;
        store.write_cache(directory, images, format, go_on).map_err(of_images)
    }
}

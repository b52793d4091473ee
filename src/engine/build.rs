//! What the engine does for the builder: trees on layers, commands run behind a container's walls, layers and images.

use super::build_cache::StepCache;
use super::build_imports::Imports;
use super::registry::Fetch;
use super::remove::TREE;
use super::request::{MountRequest, NetworkMode};
use super::start::Launcher;
use super::{Engine, EngineError};
use crate::base::{ContainerId, Digest};
use crate::image::{
    Active, Extracted, Hold, Image, ImageError, Images, Layer, Layout, LayoutImage, LayoutLayers, Snapshotter, diff,
    image_url,
};
use crate::oci::{ImageConfig, Platform, Reference, package_url};
use crate::sandbox::{view, writable_view};
use crate::step::{
    BaseImage, BuildHost, CacheWish, CommittedLayer, ImportEvent, Imported, Material, Moved, Remote, RemoteWish,
    RunOrder, StepMount, Tree,
};
use crate::store::{Lease, StoreError};
use crate::sys::fault::{self, Point};
use rustix::event::EventfdFlags;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How build steps run.
#[derive(Clone, Debug, Default)]
pub struct StepOptions {
    /// `--network`.
    pub network: NetworkMode,
    /// `--add-host`.
    pub extra_hosts: Vec<(String, String)>,
    /// `-v`: bound into every step; in no layer, history or cache key.
    pub mounts: Vec<MountRequest>,
    /// `--secret`: what steps may ask for by name.
    pub secrets: Vec<(String, Secret)>,
    /// `--ssh`: sockets of agents that steps may ask for by name.
    pub agents: Vec<(String, PathBuf)>,
    /// Modification times after this one become this one: seconds since 1970.
    pub source_date_epoch: Option<i64>,
}

/// An image in a layout (`--build-context NAME=oci-layout://...`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedLayout {
    /// What the build calls it.
    pub name: String,
    /// The layout's directory.
    pub path: PathBuf,
    /// Which of its images.
    pub image: LayoutImage,
}

/// A secret; it does not print itself.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret of {} bytes", self.0.len())
    }
}

/// The engine as the builder sees it, for the length of one build.
pub struct Builder<'a> {
    pub(super) engine: &'a Engine,
    pub(super) images: Images,
    pub(super) launcher: Mutex<Launcher<'a>>,
    pub(super) options: StepOptions,
    pub(super) interrupt: Option<BorrowedFd<'a>>,
    /// Readable once the build is to end because a step failed.
    pub(super) halted: OwnedFd,
    fetch: Option<(Fetch<'a>, bool)>,
    layouts: &'a [NamedLayout],
    materials: Mutex<BTreeSet<Material>>,
    pub(super) imports: Imports,
    _hold: Hold,
}

/// A writable tree of a build step; gone when dropped uncommitted, or with the process.
pub struct StepTree<'a> {
    engine: &'a Engine,
    /// Key of the snapshot, and the id of the sandbox that runs on it.
    pub(super) id: ContainerId,
    pub(super) active: Active,
    pub(super) root: OnceCell<OwnedFd>,
    pub(super) lease: Lease,
}

/// A read-only tree: layers, or an archive that was unpacked.
pub enum LayerView {
    /// Layers.
    Layers(OwnedFd),
    /// An archive, or a file that was fetched.
    Archive(Extracted),
    /// A directory of something that was fetched.
    Fetched(OwnedFd, Extracted),
}

impl Engine {
    /// Begins a build: what it makes is kept from collection until the builder is dropped. When `interrupt` becomes
    /// readable, the step that runs is killed and the build fails with [`EngineError::Interrupted`].
    ///
    /// # Errors
    /// When the store cannot be opened, or a mount names a source that is not there.
    pub fn builder<'a>(
        &'a self,
        launcher: Launcher<'a>,
        mut options: StepOptions,
        interrupt: Option<BorrowedFd<'a>>,
    ) -> Result<Builder<'a>, EngineError> {
        if matches!(options.network, NetworkMode::Container(_)) {
            let text = "a build cannot share the network of a container; use default, none or host".to_owned();
            return Err(EngineError::Conflict(text));
        }
        for mount in &mut options.mounts {
            match mount {
                MountRequest::Bind { source, target, .. } => {
                    *target = super::create::clean_target(target)?;
                    *source = super::create::bind_source(source, false)?;
                }
                _ => return Err(EngineError::Conflict("a build can only bind files of the host: -v /SRC:/DST".into())),
            }
        }
        self.settle_abandoned()?;
        let images = Images::open(&self.paths)?;
        let hold = images.hold()?;
        let halted = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| EngineError::Output(errno.into()))?;
        Ok(Builder {
            engine: self,
            images,
            launcher: Mutex::new(launcher),
            options,
            interrupt,
            halted,
            fetch: None,
            layouts: &[],
            materials: Mutex::default(),
            imports: Imports::default(),
            _hold: hold,
        })
    }
}

impl<'a> Builder<'a> {
    /// Has images that are not here pulled, or with `always` all that a registry may have.
    pub fn pulling(mut self, fetch: Fetch<'a>, always: bool) -> Self {
        self.fetch = Some((fetch, always));
        self
    }

    /// Has images of layouts stand for names, which nothing else can be called.
    pub fn with_layouts(mut self, layouts: &'a [NamedLayout]) -> Self {
        self.layouts = layouts;
        self
    }

    /// Returns what the build has had from elsewhere so far: images, files, commits.
    pub fn materials(&self) -> Vec<Material> {
        self.materials.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(super) fn note(&self, material: Material) {
        self.materials.lock().unwrap_or_else(PoisonError::into_inner).insert(material);
    }

    /// Finds an image, pulling it where that is wanted.
    fn image(&self, name: &str, platform: &Platform) -> Result<Image, EngineError> {
        let found = self.images.resolve(name);
        // What is no name of a registry's image (an id, or its beginning) can only be here.
        let reference: Option<Reference> = name.parse().ok();
        let by_id = || found.as_ref().is_ok_and(|image| image.id.hex().starts_with(name));
        match (self.fetch, reference) {
            (Some((fetch, always)), Some(reference)) if (always && !by_id()) || is_missing(&found) => {
                fetch(&reference, platform)?;
                Ok(self.images.resolve(name)?)
            }
            _ => Ok(found?),
        }
    }
}

/// An image that a build stands on: as its registry knows it, or by its manifest here.
fn material(name: &str, image: &Image) -> Material {
    let by_name: Option<Reference> = name.parse().ok().filter(|_| !image.id.hex().starts_with(name));
    let reference = by_name.as_ref().or(image.references.first());
    let same = |known: &&Reference| reference.is_some_and(|reference| reference.name() == known.name());
    let known = image.digests.iter().find(same).and_then(|known| known.digest.clone());
    let digest = known.unwrap_or_else(|| image.manifest.clone());
    let uri = match reference {
        Some(reference) => image_url(reference, &image.config.platform()),
        None => package_url("oci", "image", digest.as_str(), &[]),
    };
    Material::content(uri, &digest)
}

fn is_missing(found: &Result<Image, ImageError>) -> bool {
    matches!(found, Err(ImageError::NotFound(_)))
}

impl Tree for StepTree<'_> {
    /// Opens the tree when it is first asked for; a step that only runs a command never does.
    fn root(&self) -> Result<BorrowedFd<'_>, std::io::Error> {
        if let Some(fd) = self.root.get() {
            return Ok(fd.as_fd());
        }
        let at = &self.active;
        let fd = writable_view(&at.store, &at.lowers, &at.upper, &at.work)?;
        Ok(self.root.get_or_init(|| fd).as_fd())
    }
}

impl Drop for StepTree<'_> {
    fn drop(&mut self) {
        self.root.take();
        // Committed: there is nothing under this key any more, which is no error.
        if Snapshotter::new(&self.engine.paths).remove(self.id.as_str()).is_err() {
            self.lease.leave();
        }
    }
}

impl Tree for LayerView {
    fn root(&self) -> Result<BorrowedFd<'_>, std::io::Error> {
        Ok(match self {
            Self::Layers(root) | Self::Fetched(root, _) => root.as_fd(),
            Self::Archive(archive) => archive.root(),
        })
    }
}

fn directories(chain: &[Digest]) -> Vec<PathBuf> {
    chain.iter().rev().map(|id| Path::new(id.hex()).join("fs")).collect()
}

impl<'a> BuildHost for Builder<'a> {
    type Error = EngineError;
    type Active = StepTree<'a>;
    type View = LayerView;
    type Cache = StepCache;

    fn resolve_image(&self, reference: &str, platform: &Platform) -> Result<BaseImage, EngineError> {
        if let Some(NamedLayout { path, image, .. }) = self.layouts.iter().find(|layout| layout.name == reference) {
            let LayoutLayers { id, manifest, chain, config } =
                self.images.take_from_layout(&Layout::open(path)?, image, platform)?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            self.note(Material::content(package_url("oci", &name, manifest.as_str(), &[]), &manifest));
            return Ok(BaseImage { id, chain, config });
        }
        let image = self.image(reference, platform)?;
        let has = image.config.platform();
        if !has.runs_on(platform) {
            return Err(EngineError::Platform {
                image: reference.to_owned(),
                has: has.to_string(),
                wanted: platform.to_string(),
            });
        }
        self.note(material(reference, &image));
        Ok(BaseImage { id: image.id.clone(), chain: image.chain().to_vec(), config: image.config })
    }

    fn has_layer(&self, chain_id: &Digest) -> Result<bool, EngineError> {
        Ok(self.images.snapshots().layer(chain_id)?.is_some())
    }

    fn prepare(&self, chain: &[Digest]) -> Result<StepTree<'a>, EngineError> {
        self.check_interrupt()?;
        let id = ContainerId::generate();
        let lease = Lease::take(&self.engine.paths, &format!("{TREE}{id}"))?;
        let active = self.images.snapshots().prepare(id.as_str(), chain)?;
        fault::cut(Point::StepPrepared);
        Ok(StepTree { engine: self.engine, id, active, root: OnceCell::new(), lease })
    }

    fn view(&self, chain: &[Digest]) -> Result<LayerView, EngineError> {
        if chain.is_empty() {
            let empty = self.engine.empty_directory()?;
            return Ok(LayerView::Layers(File::open(&empty).map_err(StoreError::io("open", &empty))?.into()));
        }
        let root = view(&self.engine.paths.snapshots(), &directories(chain)).map_err(EngineError::View)?;
        Ok(LayerView::Layers(root))
    }

    fn run(
        &self,
        active: &StepTree<'a>,
        order: &RunOrder,
        mounts: &[StepMount<'_, Self>],
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<i32, EngineError> {
        self.run_step(active, order, mounts, output)
    }

    fn cache(&self, wish: &CacheWish) -> Result<StepCache, EngineError> {
        self.open_cache(wish)
    }

    fn filled(&self, cache: &StepCache) -> Result<(), EngineError> {
        cache.filled()
    }

    fn unpack(&self, file: File) -> Result<Option<LayerView>, EngineError> {
        match self.images.is_archive(&file)? {
            true => Ok(Some(LayerView::Archive(self.images.extract(&file)?))),
            false => Ok(None),
        }
    }

    fn look(&self, wish: &RemoteWish, moved: Moved<'_>) -> Result<Remote<LayerView>, EngineError> {
        self.look_at(wish, moved)
    }

    fn fetch(&self, wish: &RemoteWish, found: &Remote<LayerView>, moved: Moved<'_>) -> Result<LayerView, EngineError> {
        self.fetch_remote(wish, found, moved)
    }

    fn commit(&self, mut active: StepTree<'a>) -> Result<CommittedLayer, EngineError> {
        active.root.take();
        let options = diff::Options { clamp: self.options.source_date_epoch };
        let layer = self.images.commit_layer(active.id.as_str(), &options)?;
        fault::cut(Point::StepCommitted);
        Ok(CommittedLayer { diff_id: layer.diff_id, chain_id: layer.chain_id, size: layer.size })
    }

    fn rebase(&self, layer: &CommittedLayer, chain: &[Digest]) -> Result<CommittedLayer, EngineError> {
        let Some(parent) = chain.last() else { return Ok(layer.clone()) };
        let layer = self.images.rebase_layer(&layer.chain_id, parent)?;
        Ok(CommittedLayer { diff_id: layer.diff_id, chain_id: layer.chain_id, size: layer.size })
    }

    fn import(
        &self,
        key: &Digest,
        parent: Option<&Digest>,
        only: Option<&CommittedLayer>,
        tell: &(dyn Fn(ImportEvent<'_>) + Sync),
    ) -> Result<Option<Imported>, EngineError> {
        self.import_step(key, parent, only, tell)
    }

    fn rest(&self, time: Duration) -> Result<(), EngineError> {
        self.wait_for_end(time)
    }

    fn halt(&self) {
        // A counter that is full already says the same.
        let _ = rustix::io::write(&self.halted, &1u64.to_ne_bytes());
    }

    fn create_image(
        &self,
        config: &ImageConfig,
        chain: &[Digest],
        tags: &[String],
        annotations: &BTreeMap<String, String>,
    ) -> Result<Digest, EngineError> {
        let references = tags.iter().map(|tag| tag.parse()).collect::<Result<Vec<Reference>, _>>()?;
        let mut layers = Vec::with_capacity(chain.len());
        for chain_id in chain {
            let Some(meta) = self.images.snapshots().layer(chain_id)? else {
                return Err(EngineError::MissingLayer(chain_id.clone()));
            };
            let (diff_id, chain_id) = (meta.diff_id, meta.chain_id);
            layers.push(Layer { diff_id, chain_id, size: meta.size, tar_size: meta.tar_size });
        }
        Ok(self.images.create_annotated(config.clone(), &layers, &references, annotations)?.id)
    }
}

impl Engine {
    /// Returns a directory that is and stays empty.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn empty_directory(&self) -> Result<PathBuf, EngineError> {
        let empty = self.paths.run.join("empty");
        DirBuilder::new().recursive(true).mode(0o755).create(&empty).map_err(StoreError::io("create", &empty))?;
        Ok(empty)
    }
}

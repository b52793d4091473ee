//! The image store: names, ids, documents.

use super::error::{ImageError, Result};
use super::index::{ImageRecord, Index, Layer};
use super::snapshot::{MAX_LAYERS, Snapshotter, make_directory};
use crate::base::{Digest, Timestamp};
use crate::oci::{Descriptor, ImageConfig, Manifest, Reference, media, to_go_json};
use crate::store::{Durability, Paths, write_bytes};
use std::collections::BTreeMap;
use std::io::Read;

/// Largest config or manifest, in bytes.
pub(super) const MAX_DOCUMENT: u64 = 8 << 20;

/// Member of a manifest.
const ANNOTATIONS: &str = "annotations";

/// An image of the store.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of the config document.
    pub id: Digest,
    /// Digest of the manifest: the one it came with, or the one we made.
    pub manifest: Digest,
    /// Its names, in order.
    pub references: Vec<Reference>,
    /// What it says about itself.
    pub config: ImageConfig,
    /// Its layers, bottom first.
    pub layers: Vec<Layer>,
    /// Bytes of all its layers' files.
    pub size: u64,
    /// When it was taken into this store.
    pub added: Timestamp,
    /// Chain ids, bottom first.
    chain: Vec<Digest>,
    /// What registries call it: names with digests.
    pub digests: Vec<Reference>,
}

impl Image {
    /// Returns the chain ids of its layers, bottom first: what snapshots are prepared on.
    pub fn chain(&self) -> &[Digest] {
        &self.chain
    }
}

impl AsRef<[Digest]> for Image {
    fn as_ref(&self) -> &[Digest] {
        &self.chain
    }
}

/// The image store.
#[derive(Clone, Debug)]
pub struct Images {
    pub(super) paths: Paths,
    pub(super) snapshots: Snapshotter,
}

impl Images {
    /// Opens the store; nothing is written until something is taken in.
    ///
    /// # Errors
    /// Never at present; a store that cannot be read is noticed by the first operation.
    pub fn open(paths: &Paths) -> Result<Self> {
        Ok(Self { paths: paths.clone(), snapshots: Snapshotter::new(paths) })
    }

    /// Returns the snapshotter of the same store.
    pub fn snapshots(&self) -> &Snapshotter {
        &self.snapshots
    }

    /// Finds an image by reference, short reference, id or a unique beginning of its id.
    ///
    /// # Errors
    /// When there is none, when several ids begin so, or when its config is damaged.
    pub fn resolve(&self, name: &str) -> Result<Image> {
        let index = Index::read(&self.paths)?;
        let id = find(&index, name)?;
        self.image(&index, &id)
    }

    /// Lists all images, the newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<Image>> {
        let index = Index::read(&self.paths)?;
        let mut images = index.images.keys().map(|id| self.image(&index, id)).collect::<Result<Vec<_>>>()?;
        images.sort_by_key(|image| std::cmp::Reverse(image.config.created.unwrap_or(Timestamp::NEVER)));
        Ok(images)
    }

    pub(super) fn image(&self, index: &Index, id: &Digest) -> Result<Image> {
        let record = index.images.get(id).ok_or_else(|| ImageError::NotFound(id.to_string()))?;
        let bytes = self.blob(id)?;
        let config =
            serde_json::from_slice(&bytes).map_err(ImageError::document(&format!("config of image {}", id.short())))?;
        Ok(Image {
            id: id.clone(),
            manifest: record.manifest.clone(),
            references: index.names(id).iter().filter_map(|name| name.parse().ok()).collect(),
            config,
            chain: record.layers.iter().map(|layer| layer.chain_id.clone()).collect(),
            layers: record.layers.clone(),
            size: record.size,
            added: record.added,
            digests: record.digests.iter().filter_map(|name| name.parse().ok()).collect(),
        })
    }

    /// Gives an image a further name; the name is taken from the image that has it.
    ///
    /// # Errors
    /// When the image is gone or the store cannot be written.
    pub fn tag(&self, image: &Image, reference: &Reference) -> Result<()> {
        Index::update(&self.paths, |index| {
            if !index.images.contains_key(&image.id) {
                return Err(ImageError::NotFound(image.id.to_string()));
            }
            index.references.insert(reference.to_string(), image.id.clone());
            Ok(())
        })
    }

    /// Notes what a registry calls an image: the digest that a name stands for there. The one before of the same repository
    /// is forgotten.
    ///
    /// # Errors
    /// When the image is gone or the store cannot be written.
    pub(super) fn note_digest(&self, id: &Digest, name: &Reference, digest: &Digest) -> Result<()> {
        let name = Reference { tag: None, digest: Some(digest.clone()), ..name.clone() };
        let of_repository = |known: &str| known.parse::<Reference>().is_ok_and(|known| known.name() == name.name());
        let text = name.to_string();
        let known = |index: &Index| index.images.get(id).is_some_and(|record| record.digests.contains(&text));
        if known(&Index::read(&self.paths)?) {
            return Ok(());
        }
        Index::update(&self.paths, |index| {
            let record = index.images.get_mut(id).ok_or_else(|| ImageError::NotFound(id.to_string()))?;
            record.digests.retain(|known| !of_repository(known));
            record.digests.push(text.clone());
            Ok(())
        })
    }

    /// Reads a document of the store and checks its digest.
    ///
    /// # Errors
    /// When it is missing, longer than 8 MiB or damaged.
    pub fn blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        let path = self.paths.blob(digest);
        let mut bytes = Vec::new();
        let file = std::fs::File::open(&path).map_err(ImageError::io("open blob", &path))?;
        file.take(MAX_DOCUMENT).read_to_end(&mut bytes).map_err(ImageError::io("read blob", &path))?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(ImageError::Digest {
                what: format!("blob {}", path.display()),
                expected: digest.clone(),
                found,
            });
        }
        Ok(bytes)
    }

    /// Writes a document. One that is there is written again: it may be what a power cut left of it.
    fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        let path = self.paths.blob(digest);
        if let Some(parent) = path.parent() {
            make_directory(parent, 0o700, true)?;
        }
        Ok(write_bytes(&path, bytes, Durability::Synced)?)
    }

    /// Makes an image of a config and layers that are in the store; the config's `diff_ids` are set from the layers.
    ///
    /// # Errors
    /// When a layer is missing, there are too many, or the store cannot be written.
    pub fn create_image(&self, mut config: ImageConfig, layers: &[Layer], references: &[Reference]) -> Result<Image> {
        config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let bytes = to_go_json(&config).map_err(ImageError::document("new image config"))?;
        self.record_image(&bytes, None, layers, references)
    }

    /// Makes an image as [`Images::create_image`] does, with annotations in its manifest (*OCI image-spec "Annotations"*).
    ///
    /// # Errors
    /// As [`Images::create_image`].
    pub fn create_annotated(
        &self,
        mut config: ImageConfig,
        layers: &[Layer],
        references: &[Reference],
        annotations: &BTreeMap<String, String>,
    ) -> Result<Image> {
        config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let bytes = to_go_json(&config).map_err(ImageError::document("new image config"))?;
        let mut manifest = manifest_of(&Digest::of(&bytes), bytes.len() as u64, layers);
        if !annotations.is_empty() {
            manifest.extra.insert(ANNOTATIONS.to_owned(), serde_json::json!(annotations));
        }
        let manifest = to_go_json(&manifest).map_err(ImageError::document("new manifest"))?;
        self.record_image(&bytes, Some(&manifest), layers, references)
    }

    /// Returns the entry of an image's manifest that holds its annotations, if it has one that can be read.
    pub(super) fn annotations(&self, image: &Image) -> Option<(String, serde_json::Value)> {
        let manifest: Manifest = serde_json::from_slice(&self.blob(&image.manifest).ok()?).ok()?;
        Some((ANNOTATIONS.to_owned(), manifest.extra.get(ANNOTATIONS)?.clone()))
    }

    /// Enters an image with its config as it came, byte for byte.
    pub(super) fn record_image(
        &self,
        config: &[u8],
        manifest: Option<&[u8]>,
        layers: &[Layer],
        references: &[Reference],
    ) -> Result<Image> {
        if layers.len() > MAX_LAYERS {
            return Err(ImageError::Invalid {
                document: "image".to_owned(),
                what: "has more than 499 layers, which overlayfs cannot stack",
            });
        }
        let id = Digest::of(config);
        let made;
        let document = match manifest {
            Some(manifest) => manifest,
            None => {
                made = to_go_json(&manifest_of(&id, config.len() as u64, layers))
                    .map_err(ImageError::document("new manifest"))?;
                &made
            }
        };
        let manifest = Digest::of(document);
        // First what the record names, then the record: after a power cut it is whole or not there.
        let until = self.snapshots.sync(layers)?;
        // What is recorded in full already, as after a build whose steps were all cached, costs no flush.
        let index = Index::read(&self.paths)?;
        let named = references.iter().all(|name| index.references.get(&name.to_string()) == Some(&id));
        let known = index.images.get(&id).is_some_and(|old| old.manifest == manifest && old.layers == layers);
        if known && named && until.is_none() {
            return self.image(&index, &id);
        }
        self.put_blob(&id, config)?;
        self.put_blob(&manifest, document)?;
        let record = ImageRecord {
            manifest,
            layers: layers.to_vec(),
            size: layers.iter().map(|layer| layer.size).sum(),
            added: Timestamp::now(),
            digests: index.images.get(&id).map(|old| old.digests.clone()).unwrap_or_default(),
        };
        Index::update(&self.paths, |index| {
            if let Some(until) = &until {
                index.synced.note(until);
            }
            index.images.insert(id.clone(), record);
            for reference in references {
                index.references.insert(reference.to_string(), id.clone());
            }
            self.image(index, &id)
        })
    }

    /// Returns the steps an image was made by, newest first, each with the bytes its layer added.
    pub fn history(&self, image: &Image) -> Vec<(crate::oci::History, u64)> {
        let mut layers = image.layers.iter();
        let sized = |step: &crate::oci::History| {
            let size = if step.empty_layer { 0 } else { layers.next().map_or(0, |layer| layer.size) };
            (step.clone(), size)
        };
        let mut steps: Vec<_> = image.config.history.iter().map(sized).collect();
        // Layers that no step accounts for.
        steps.extend(layers.map(|layer| (crate::oci::History::default(), layer.size)));
        steps.reverse();
        steps
    }
}

/// Makes the manifest of an image whose layers are uncompressed tars.
pub(super) fn manifest_of(id: &Digest, config_size: u64, layers: &[Layer]) -> Manifest {
    Manifest {
        schema_version: 2,
        media_type: media::MANIFEST.to_owned(),
        config: Descriptor::new(media::CONFIG, id.clone(), config_size),
        layers: layers
            .iter()
            .map(|layer| Descriptor::new(media::LAYER, layer.diff_id.clone(), layer.tar_size))
            .collect(),
        extra: serde_json::Map::new(),
    }
}

/// Finds an image's id: names first, then ids, as Docker does.
pub(super) fn find(index: &Index, name: &str) -> Result<Digest> {
    if let Ok(reference) = name.parse::<Reference>() {
        if let Some(id) = index.references.get(&reference.to_string()) {
            return Ok(id.clone());
        }
        if let Some(digest) = &reference.digest {
            let of_name = |id: &Digest| {
                index.names(id).iter().any(|n| n.parse::<Reference>().is_ok_and(|r| r.name() == reference.name()))
            };
            let whole = Reference { tag: None, ..reference.clone() }.to_string();
            let found = index
                .images
                .iter()
                .find(|(id, record)| record.digests.contains(&whole) || (record.manifest == *digest && of_name(id)));
            return found.map(|(id, _)| id.clone()).ok_or_else(|| ImageError::NotFound(name.to_owned()));
        }
    }
    match index.by_prefix(name) {
        // A text that is neither an id nor a name is said to be so.
        Err(ImageError::NotFound(_)) if name.len() != 64 && !name.starts_with("sha256:") => {
            let reference: Reference = name.parse()?;
            Err(ImageError::NotFound(reference.familiar()))
        }
        other => other,
    }
}

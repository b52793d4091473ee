//! Build caches on a registry: read like an image's documents, their layers pulled one by one as steps ask for them.

use super::client::{Access, Client, Notice, Repository};
use super::compress::Format;
use super::endpoint::{for_pull, for_push};
use super::error::RegistryError;
use super::pull::{LayerEvent, Wanted, Work, is_interruption};
use super::push;
use crate::base::Digest;
use crate::image::cached::{CacheImage, StepTable, documents, read_steps};
use crate::image::documents::{Document, Shelf};
use crate::image::error::{ImageError, Result};
use crate::image::index::{Layer, next_chain_id};
use crate::image::ingest::Ingest;
use crate::image::store::Images;
use crate::oci::{Descriptor, Reference, media};
use std::collections::BTreeMap;
use std::sync::Mutex;

type Tell<'t> = &'t (dyn Fn(LayerEvent<'_>) + Sync);

fn nobody(name: &Reference) -> ImageError {
    RegistryError::Resolve { host: name.registry.clone(), reason: "it is no host".to_owned() }.into()
}

impl<'a> Client<'a> {
    fn places(&self, name: &Reference) -> Vec<Repository<'_, 'a>> {
        let place = |endpoint| Repository {
            client: self,
            endpoint,
            path: name.repository.clone(),
            access: Access::Pull,
            others: Vec::new(),
        };
        for_pull(&name.registry, &self.rules).into_iter().map(place).collect()
    }

    /// Reads the steps of all images of a cache; no layer of them comes.
    ///
    /// # Errors
    /// When no place has it, or a document is not what its digest says or makes no sense.
    pub fn cached_steps(&self, name: &Reference) -> Result<StepTable> {
        let places = self.places(name);
        let mut last = None;
        for (at, place) in places.iter().enumerate() {
            match steps(place, name) {
                Err(error) if !is_interruption(&error) && at + 1 < places.len() => {
                    self.tell(Notice::Next { error: &error, endpoint: &places[at + 1].endpoint.name });
                    last = Some(error);
                }
                found => return found,
            }
        }
        Err(last.unwrap_or_else(|| nobody(name)))
    }
}

fn steps(place: &Repository<'_, '_>, name: &Reference) -> Result<StepTable> {
    let tag = match (&name.digest, &name.tag) {
        (Some(digest), _) => digest.as_str(),
        (None, Some(tag)) => tag,
        (None, None) => "latest",
    };
    let missing = || RegistryError::Unknown { name: name.familiar(), registry: place.endpoint.name.clone() };
    let first = place.manifest(tag)?.ok_or_else(missing)?;
    read_steps(place, first, &name.familiar())
}

impl Shelf for Repository<'_, '_> {
    fn manifest(&self, wanted: &Descriptor) -> Result<Document> {
        let digest = &wanted.digest;
        let missing = || RegistryError::Unknown { name: digest.to_string(), registry: self.endpoint.name.clone() };
        let document = Repository::manifest(self, digest.as_str())?.ok_or_else(missing)?;
        let found = document.bytes.len() as u64;
        if found != wanted.size {
            return Err(
                RegistryError::Length { what: format!("manifest {digest}"), expected: wanted.size, found }.into()
            );
        }
        Ok(document)
    }

    fn config(&self, wanted: &Descriptor) -> Result<Vec<u8>> {
        Ok(self.small_blob(&wanted.digest, wanted.size, "the image config")?)
    }
}

impl Images {
    /// Pulls one layer of a cache, on top of `parent`, unless it is here.
    ///
    /// # Errors
    /// When no place has it, it is not what its digests say, or the store cannot be written; nothing of it is left then.
    pub fn pull_cached_layer(
        &self,
        client: &Client<'_>,
        name: &Reference,
        (diff_id, blob): (&Digest, &Descriptor),
        parent: Option<&Digest>,
        tell: Tell<'_>,
    ) -> Result<Layer> {
        let places = client.places(name);
        if places.is_empty() {
            return Err(nobody(name));
        }
        let ingest = Ingest::begin(&self.paths)?;
        let work = Work { images: self, ingest: &ingest, places: &places, tell, added: Mutex::default() };
        work.one(&Wanted { blob, diff_id, chain_id: &next_chain_id(parent, diff_id), parent })
    }

    /// Pushes a cache: its layers, its documents, and last what its name stands for: an index of its images, or with `flat` the
    /// manifest of the only one. Returns the digest of that.
    ///
    /// # Errors
    /// When a layer is missing or damaged, the registry cannot be asked or refuses; the name stands for what it did then.
    pub fn push_cache(
        &self,
        client: &Client<'_>,
        name: &Reference,
        images: &[CacheImage],
        (format, flat): (Format, bool),
        tell: Tell<'_>,
    ) -> Result<Digest> {
        let endpoint = for_push(&name.registry, &client.rules).ok_or_else(|| nobody(name))?;
        let place =
            Repository { client, endpoint, path: name.repository.clone(), access: Access::Push, others: Vec::new() };
        let _hold = self.hold()?;
        // Each layer once, however many images stand on it.
        let mut chains = Vec::with_capacity(images.len());
        let mut layers: BTreeMap<Digest, Layer> = BTreeMap::new();
        for image in images {
            let chain = self.layers_of(&image.chain)?;
            layers.extend(chain.iter().map(|layer| (layer.diff_id.clone(), layer.clone())));
            chains.push((image, chain));
        }
        let layers: Vec<Layer> = layers.into_values().collect();
        let named: Vec<(Digest, u64)> = layers.iter().map(|layer| (layer.diff_id.clone(), layer.tar_size)).collect();
        tell(LayerEvent::Layers(&named));
        let work = push::Work { images: self, place: &place, format, tell };
        let blobs = work.all(&layers, None)?;
        let blobs: BTreeMap<&Digest, &Descriptor> = layers.iter().map(|layer| &layer.diff_id).zip(&blobs).collect();
        let blob = |layer: &Layer| (layer.diff_id.clone(), blobs[&layer.diff_id].clone());
        let listed: Vec<_> =
            chains.iter().map(|(image, chain)| (*image, chain.iter().map(blob).collect::<Vec<_>>())).collect();
        let documents = documents(&listed)?;
        for (digest, bytes) in &documents.configs {
            work.document_blob(digest, bytes)?;
        }
        let (kind, bytes) = match (documents.manifests.as_slice(), flat) {
            ([(_, only)], true) => (media::MANIFEST, only),
            (manifests, _) => {
                for (digest, bytes) in manifests {
                    work.manifest(digest.as_str(), media::MANIFEST, bytes)?;
                }
                (media::INDEX, &documents.index)
            }
        };
        let digest = Digest::of(bytes);
        work.manifest(name.tag.as_deref().unwrap_or(digest.as_str()), kind, bytes)?;
        Ok(digest)
    }
}

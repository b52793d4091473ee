//! Taking images in from archives: `docker save`'s form and OCI layouts, plain or compressed.

use super::archive::{Archive, blob_name};
use super::documents::{MAX_NESTING, check_layers};
use super::error::{ImageError, Result};
use super::import::Expected;
use super::index::{Layer, chain_ids};
use super::ingest::Ingest;
use super::store::{Image, Images};
use crate::base::Digest;
use crate::oci::{Descriptor, ImageConfig, Manifest, Platform, Reference, media};
use serde::Deserialize;
use std::fs::File;

/// An image that was taken in.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The image.
    pub image: Image,
    /// The names the archive gave it; without any, its id is told.
    pub references: Vec<Reference>,
}

/// What `load` is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadProgress {
    /// Digest of the uncompressed layer.
    pub diff_id: Digest,
    /// Which layer this is, from 1.
    pub number: usize,
    /// How many the image has.
    pub of: usize,
    /// Bytes of it in the archive.
    pub bytes: u64,
}

/// One entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// An image of an archive, its documents read and checked, its layers not yet.
struct Found {
    config: Vec<u8>,
    parsed: ImageConfig,
    manifest: Option<Vec<u8>>,
    layers: Vec<Member>,
    references: Vec<Reference>,
    document: &'static str,
}

struct Member {
    name: String,
    blob: Option<Digest>,
}

impl Images {
    /// Takes in all images of an archive.
    ///
    /// # Errors
    /// When the archive is damaged, incomplete, for another platform, or holds no image, or the store cannot be written;
    /// what was taken in before the fault is taken out again.
    pub fn load(&self, archive: &File, progress: &mut dyn FnMut(&LoadProgress)) -> Result<Vec<Loaded>> {
        let ingest = Ingest::begin(&self.paths)?;
        let archive = Archive::open(archive, &ingest)?;
        let found = if archive.has("manifest.json") {
            saved_images(&archive)?
        } else if archive.has("index.json") {
            layout_images(&archive)?
        } else {
            return Err(ImageError::NotAnImage);
        };
        let mut added = Vec::new();
        let mut loaded = Vec::new();
        for image in found {
            let result = self.load_one(&archive, &ingest, image, &mut added, progress);
            match result {
                Ok(image) => loaded.push(image),
                Err(error) => {
                    let _ = self.remove_unused_layers(&added, &ingest, &|| Ok(Vec::new()));
                    return Err(error);
                }
            }
        }
        Ok(loaded)
    }

    fn load_one(
        &self,
        archive: &Archive<'_>,
        ingest: &Ingest,
        found: Found,
        added: &mut Vec<Digest>,
        progress: &mut dyn FnMut(&LoadProgress),
    ) -> Result<Loaded> {
        let diff_ids = &found.parsed.rootfs.diff_ids;
        let chain = chain_ids(diff_ids);
        let mut layers: Vec<Layer> = Vec::new();
        for (at, member) in found.layers.iter().enumerate() {
            let source = archive.source(found.document, &member.name)?;
            let diff_id = &diff_ids[at];
            progress(&LoadProgress {
                diff_id: diff_id.clone(),
                number: at + 1,
                of: diff_ids.len(),
                bytes: source.length(),
            });
            let known = self.snapshots.layer(&chain[at])?.is_some();
            let parent = at.checked_sub(1).map(|below| &chain[below]);
            let expected = Expected { diff_id: Some(diff_id), blob: member.blob.as_ref() };
            layers.push(self.ingest_layer(ingest, source, parent, expected)?);
            if !known {
                added.push(chain[at].clone());
            }
        }
        let image = self.record_image(&found.config, found.manifest.as_deref(), &layers, &found.references)?;
        Ok(Loaded { image, references: found.references })
    }

    /// Keeps layers that no image names yet from being collected, until it is dropped (the builder's hold).
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn hold(&self) -> Result<Hold> {
        Ok(Hold { _ingest: Ingest::begin(&self.paths)? })
    }
}

/// Keeps unnamed layers in the store; see [`Images::hold`].
#[derive(Debug)]
pub struct Hold {
    _ingest: Ingest,
}

/// Reads `manifest.json` (*moby image/spec v1.2 "Combined Image JSON + Filesystem Changeset Format"*).
fn saved_images(archive: &Archive<'_>) -> Result<Vec<Found>> {
    const DOCUMENT: &str = "manifest.json";
    let saved: Vec<SavedImage> = archive.json(DOCUMENT, DOCUMENT)?;
    if saved.is_empty() {
        return Err(ImageError::NotAnImage);
    }
    let one = |image: SavedImage| {
        let config = archive.read(DOCUMENT, &image.config)?;
        check_name(&image.config, &Digest::of(&config))?;
        let references = image.repo_tags.unwrap_or_default();
        let references = references.iter().map(|name| name.parse().map_err(ImageError::from)).collect::<Result<_>>()?;
        let member = |name: String| Member { blob: digest_in(&name).filter(|_| name.starts_with("blobs/")), name };
        let layers = image.layers.into_iter().map(member).collect();
        checked(Found { parsed: parse(&config)?, config, manifest: None, layers, references, document: DOCUMENT })
    };
    saved.into_iter().map(one).collect()
}

/// Reads `index.json` (*OCI image-spec "Image Layout"*).
fn layout_images(archive: &Archive<'_>) -> Result<Vec<Found>> {
    const DOCUMENT: &str = "index.json";
    let index: crate::oci::Index = archive.json(DOCUMENT, DOCUMENT)?;
    let mut found = Vec::new();
    let mut others = Vec::new();
    for descriptor in &index.manifests {
        manifests(archive, descriptor, &names(descriptor), 0, &mut found, &mut others)?;
    }
    match (found.is_empty(), others.into_iter().next()) {
        (true, Some((name, platform))) => {
            Err(ImageError::Platform { name, found: platform, wanted: Platform::host().to_string() })
        }
        (true, None) => Err(ImageError::NotAnImage),
        _ => Ok(found),
    }
}

/// Collects the images for this machine below a descriptor.
fn manifests(
    archive: &Archive<'_>,
    descriptor: &Descriptor,
    references: &[Reference],
    depth: usize,
    found: &mut Vec<Found>,
    others: &mut Vec<(String, String)>,
) -> Result<()> {
    const DOCUMENT: &str = "index.json";
    // Attestations stand beside images and are none.
    if descriptor.annotations.contains_key("vnd.docker.reference.type") {
        return Ok(());
    }
    if let Some(platform) = descriptor.platform.as_ref().filter(|platform| !platform.runs_on(&Platform::host())) {
        let name = references.first().map_or_else(|| descriptor.digest.short().to_owned(), Reference::familiar);
        others.push((name, platform.to_string()));
        return Ok(());
    }
    let bytes = archive.blob(DOCUMENT, &descriptor.digest)?;
    let text = || blob_name(&descriptor.digest);
    if matches!(descriptor.media_type.as_str(), media::INDEX | media::DOCKER_LIST) {
        if depth >= MAX_NESTING {
            return Err(ImageError::Invalid { document: text(), what: "indexes are nested too deep" });
        }
        let index: crate::oci::Index = serde_json::from_slice(&bytes).map_err(ImageError::document(&text()))?;
        for inner in &index.manifests {
            manifests(archive, inner, references, depth + 1, found, others)?;
        }
        return Ok(());
    }
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(ImageError::document(&text()))?;
    let config = archive.blob("the image manifest", &manifest.config.digest)?;
    let member = |layer: &Descriptor| Member { name: blob_name(&layer.digest), blob: Some(layer.digest.clone()) };
    let layers = manifest.layers.iter().map(member).collect();
    let references = references.to_vec();
    let parsed = parse(&config)?;
    found.push(checked(Found {
        config,
        parsed,
        manifest: Some(bytes),
        layers,
        references,
        document: "the image manifest",
    })?);
    Ok(())
}

/// Returns the names of a layout's entry: a complete one by containerd's annotation, or OCI's when it is more than a tag.
fn names(descriptor: &Descriptor) -> Vec<Reference> {
    let complete = descriptor.annotations.get("io.containerd.image.name");
    let named =
        descriptor.annotations.get("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/']));
    complete.or(named).and_then(|name| name.parse().ok()).into_iter().collect()
}

fn parse(config: &[u8]) -> Result<ImageConfig> {
    serde_json::from_slice(config).map_err(ImageError::document("image config"))
}

/// Checks what the documents say about each other.
fn checked(found: Found) -> Result<Found> {
    let platform = found.parsed.platform();
    let host = Platform::host();
    if !platform.runs_on(&host) {
        let name =
            found.references.first().map_or_else(|| Digest::of(&found.config).short().to_owned(), Reference::familiar);
        return Err(ImageError::Platform { name, found: platform.to_string(), wanted: host.to_string() });
    }
    check_layers(&found.parsed, found.layers.len(), "image config")?;
    Ok(found)
}

/// Returns the digest that a file name carries (`<hex>.json`, `blobs/sha256/<hex>`).
fn digest_in(name: &str) -> Option<Digest> {
    let last = name.rsplit('/').next().unwrap_or(name);
    Digest::from_hex(last.strip_suffix(".json").unwrap_or(last)).ok()
}

fn check_name(name: &str, found: &Digest) -> Result<()> {
    match digest_in(name) {
        Some(expected) if expected != *found => {
            Err(ImageError::Digest { what: name.to_owned(), expected, found: found.clone() })
        }
        _ => Ok(()),
    }
}

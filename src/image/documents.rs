//! An image's documents, wherever they lie: from what a name stands for to the manifest and the config for a platform
//! (*OCI image-spec "Image Index", "Image Manifest", "Image Configuration"*).

use super::choose::choose;
use super::error::{ImageError, Result};
use super::registry::RegistryError;
use super::snapshot::MAX_LAYERS;
use crate::base::Digest;
use crate::oci::{Descriptor, ImageConfig, Index, Manifest, Platform, media};

/// Deepest nesting of indexes.
pub(super) const MAX_NESTING: usize = 4;

/// A manifest or an index as it came.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
    /// What it says it is.
    pub(super) media_type: String,
}

/// Where documents are read from; what comes has the digest and the length that were asked for.
pub(super) trait Shelf {
    /// Reads a manifest or an index.
    fn manifest(&self, wanted: &Descriptor) -> Result<Document>;
    /// Reads an image's configuration.
    fn config(&self, wanted: &Descriptor) -> Result<Vec<u8>>;
}

/// The documents of one image, which fit each other.
pub(super) struct Documents {
    pub(super) document: Document,
    pub(super) manifest: Manifest,
    pub(super) raw_config: Vec<u8>,
    pub(super) config: ImageConfig,
}

/// Goes from what a name stands for to the image for a platform; `name` is for messages.
pub(super) fn image_documents(
    shelf: &dyn Shelf,
    first: Document,
    name: &str,
    platform: &Platform,
) -> Result<Documents> {
    let absent = |has| RegistryError::Platform { name: name.to_owned(), wanted: platform.to_string(), has };
    let mut document = first;
    for nesting in 0.. {
        let Some(index) = as_index(&document)? else { break };
        if nesting == MAX_NESTING {
            let what = "indexes are nested too deep";
            return Err(ImageError::Invalid { document: format!("the index of {name}"), what });
        }
        document = shelf.manifest(choose(&index, platform).map_err(absent)?)?;
    }
    let manifest = as_manifest(&document, name)?;
    let raw_config = shelf.config(&manifest.config)?;
    let config: ImageConfig = serde_json::from_slice(&raw_config).map_err(ImageError::document("the image config"))?;
    let has = config.platform();
    if !has.runs_on(platform) {
        return Err(absent(vec![has.to_string()]).into());
    }
    check_layers(&config, manifest.layers.len(), &format!("the image config of {name}"))?;
    Ok(Documents { document, manifest, raw_config, config })
}

/// Checks what a config says of the layers against how many there are; `document` names it.
pub(super) fn check_layers(config: &ImageConfig, layers: usize, document: &str) -> Result<()> {
    let invalid = |what| Err(ImageError::Invalid { document: document.to_owned(), what });
    match config.rootfs.diff_ids.len() {
        _ if config.rootfs.kind != "layers" => invalid("its rootfs is not of type \"layers\""),
        count if count != layers => invalid("it names another number of layers than the manifest"),
        count if count > MAX_LAYERS => invalid("it names more than 499 layers, which overlayfs cannot stack"),
        _ => Ok(()),
    }
}

/// Returns the kind of a document: what it says itself, else what came with it.
fn kind(document: &Document) -> Result<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kind {
        #[serde(default)]
        media_type: String,
        #[serde(default)]
        schema_version: u32,
        #[serde(default)]
        manifests: Option<serde::de::IgnoredAny>,
    }
    let what = format!("manifest {}", document.digest.short());
    let kind: Kind = serde_json::from_slice(&document.bytes).map_err(ImageError::document(&what))?;
    Ok(match kind {
        Kind { schema_version: 1, .. } => "schema 1".to_owned(),
        Kind { media_type, .. } if !media_type.is_empty() => media_type,
        Kind { manifests: Some(_), .. } => media::INDEX.to_owned(),
        _ => document.media_type.clone(),
    })
}

/// Reads a document as an index; `None` when it is none.
pub(super) fn as_index(document: &Document) -> Result<Option<Index>> {
    if !matches!(kind(document)?.as_str(), media::INDEX | media::DOCKER_LIST) {
        return Ok(None);
    }
    let what = format!("index {}", document.digest.short());
    serde_json::from_slice(&document.bytes).map(Some).map_err(ImageError::document(&what))
}

pub(super) fn as_manifest(document: &Document, name: &str) -> Result<Manifest> {
    let unsupported = |what: String| RegistryError::Unsupported { name: name.to_owned(), what };
    match kind(document)?.as_str() {
        media::MANIFEST | media::DOCKER_MANIFEST | "" => {}
        "schema 1" => {
            let what = "its manifest is of schema version 1, which no engine makes any more; push it again".to_owned();
            return Err(unsupported(what).into());
        }
        other => return Err(unsupported(format!("{other:?} is not a kind of manifest we know")).into()),
    }
    let what = format!("manifest {}", document.digest.short());
    let manifest: Manifest = serde_json::from_slice(&document.bytes).map_err(ImageError::document(&what))?;
    // An artifact is stored like an image and is none (*image-spec "Guidelines for Artifact Usage"*).
    if !matches!(manifest.config.media_type.as_str(), media::CONFIG | media::DOCKER_CONFIG | "") {
        return Err(unsupported(format!("it is no container image but {:?}", manifest.config.media_type)).into());
    }
    Ok(manifest)
}

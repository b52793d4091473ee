//! The documents of a cache: configurations that hold what a reader needs and no more, manifests, and the index of them. The same
//! steps and layers give the same bytes.

use super::super::error::{ImageError, Result};
use super::{CacheImage, attach_steps};
use crate::base::Digest;
use crate::oci::{Descriptor, ImageConfig, Index, Manifest, media, to_go_json};

/// What names the layers of a cache.
pub(in crate::image) struct CacheDocuments {
    /// Configurations, by digest.
    pub(in crate::image) configs: Vec<(Digest, Vec<u8>)>,
    /// Manifests, by digest; the first is the target's.
    pub(in crate::image) manifests: Vec<(Digest, Vec<u8>)>,
    /// The index of the manifests.
    pub(in crate::image) index: Vec<u8>,
}

/// Makes the documents of images; each comes with its layers: diff id and blob, bottom first.
pub(in crate::image) fn documents(images: &[(&CacheImage, Vec<(Digest, Descriptor)>)]) -> Result<CacheDocuments> {
    let (mut configs, mut manifests, mut listed) = (Vec::new(), Vec::new(), Vec::new());
    for (image, layers) in images {
        let platform = &image.platform;
        let mut config = ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            ..ImageConfig::default()
        };
        config.rootfs.diff_ids = layers.iter().map(|(diff_id, _)| diff_id.clone()).collect();
        attach_steps(&mut config, &image.steps);
        let config = to_go_json(&config).map_err(ImageError::document("config of a build cache"))?;
        let id = Digest::of(&config);
        let manifest = Manifest {
            schema_version: 2,
            media_type: media::MANIFEST.to_owned(),
            config: Descriptor::new(media::CONFIG, id.clone(), config.len() as u64),
            layers: layers.iter().map(|(_, blob)| blob.clone()).collect(),
            extra: serde_json::Map::new(),
        };
        let manifest = to_go_json(&manifest).map_err(ImageError::document("manifest of a build cache"))?;
        let mut descriptor = Descriptor::new(media::MANIFEST, Digest::of(&manifest), manifest.len() as u64);
        descriptor.platform = Some(platform.clone());
        configs.push((id, config));
        manifests.push((descriptor.digest.clone(), manifest));
        listed.push(descriptor);
    }
    let index =
        Index { schema_version: 2, media_type: media::INDEX.to_owned(), manifests: listed, extra: Default::default() };
    let index = to_go_json(&index).map_err(ImageError::document("index of a build cache"))?;
    Ok(CacheDocuments { configs, manifests, index })
}

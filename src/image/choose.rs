//! Which image of an index is for a platform (*OCI image-spec "Image Index"*).

use crate::oci::{Descriptor, Index, Platform};

/// Chooses the manifest for a platform: one of exactly its variant before one of none, and that before any other that runs.
///
/// # Errors
/// The platforms there are.
pub(super) fn choose<'i>(index: &'i Index, wanted: &Platform) -> Result<&'i Descriptor, Vec<String>> {
    // Attestations stand beside images and are none.
    let is_image = |descriptor: &&Descriptor| !descriptor.annotations.contains_key("vnd.docker.reference.type");
    let images: Vec<&Descriptor> = index.manifests.iter().filter(is_image).collect();
    let rank = |descriptor: &&&Descriptor| match &descriptor.platform {
        Some(platform) if !platform.runs_on(wanted) => None,
        Some(platform) if platform.variant == wanted.variant => Some(0),
        Some(platform) if platform.variant.is_empty() => Some(1),
        Some(_) => Some(2),
        // One that does not say what it is for is looked at; its config says it.
        None => Some(3),
    };
    let best = images.iter().filter_map(|image| Some((rank(&image)?, *image))).min_by_key(|(rank, _)| *rank);
    best.map(|(_, image)| image).ok_or_else(|| {
        let mut names: Vec<String> =
            images.iter().filter_map(|image| Some(image.platform.as_ref()?.to_string())).collect();
        names.sort();
        names.dedup();
        names
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Digest;

    fn index(platforms: &[&str]) -> Index {
        let mut manifests: Vec<Descriptor> = platforms
            .iter()
            .enumerate()
            .map(|(at, text)| {
                let mut descriptor = Descriptor::new("", Digest::of(&[at as u8]), at as u64);
                descriptor.platform = Platform::parse(text);
                descriptor
            })
            .collect();
        let mut attestation = Descriptor::new("", Digest::of(b"x"), 99);
        attestation.annotations.insert("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned());
        manifests.insert(0, attestation);
        Index { schema_version: 2, media_type: String::new(), manifests, extra: serde_json::Map::new() }
    }

    fn chosen(platforms: &[&str], wanted: &str) -> Result<u64, Vec<String>> {
        choose(&index(platforms), &Platform::parse(wanted).unwrap()).map(|descriptor| descriptor.size)
    }

    #[test]
    fn the_nearest_platform_is_chosen() {
        assert_eq!(chosen(&["linux/arm64", "linux/amd64"], "linux/amd64"), Ok(1));
        assert_eq!(chosen(&["linux/amd64", "linux/amd64"], "linux/amd64"), Ok(0));
        assert_eq!(chosen(&["linux/arm/v6", "linux/arm/v7"], "linux/arm/v7"), Ok(1));
        assert_eq!(chosen(&["?/?/?/?"], "linux/amd64"), Ok(0));
    }

    #[test]
    fn what_there_is_instead_is_told() {
        let has = ["linux/arm64".to_owned(), "windows/amd64".to_owned()];
        assert_eq!(chosen(&["windows/amd64", "linux/arm64", "linux/arm64"], "linux/amd64"), Err(has.to_vec()));
        assert_eq!(chosen(&[], "linux/amd64"), Err(Vec::new()));
    }
}

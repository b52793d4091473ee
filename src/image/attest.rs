//! What is said about an image beside it: in-toto statements in a manifest of their own, and the index that names both
//! (*BuildKit "Image attestation storage"*, *OCI image-spec "Image Index"*).

use super::error::{ImageError, Result};
use crate::base::Digest;
use crate::oci::{Descriptor, Index, Manifest, Platform, Reference, media, package_url, to_go_json};
use serde_json::{Value, json};

/// Type of a statement (*in-toto Attestation Framework "Statement"*).
const STATEMENT: &str = "https://in-toto.io/Statement/v0.1";

/// Something that is said about an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Attestation {
    /// What kind of thing.
    pub predicate_type: String,
    /// The thing.
    pub predicate: Value,
}

impl Attestation {
    /// Returns the statement that this is said of things, each a name and a digest.
    pub fn statement(&self, of: &[(String, Digest)]) -> Value {
        let subject = |(name, digest): &(String, Digest)| json!({ "name": name, "digest": { "sha256": digest.hex() } });
        json!({
            "_type": STATEMENT,
            "predicateType": self.predicate_type,
            "subject": of.iter().map(subject).collect::<Vec<_>>(),
            "predicate": self.predicate,
        })
    }
}

/// The documents that stand beside an image's manifest.
pub(super) struct Attested {
    /// Statements and the configuration, by digest.
    pub(super) blobs: Vec<(Digest, Vec<u8>)>,
    /// The manifest that names them.
    pub(super) manifest: (Digest, Vec<u8>),
    /// The index that names the image and that manifest.
    pub(super) index: (Digest, Vec<u8>),
}

fn blob(bytes: Vec<u8>) -> (Digest, Vec<u8>) {
    (Digest::of(&bytes), bytes)
}

/// Makes the documents for an image of these names and platform.
pub(super) fn attest(
    image: &Descriptor,
    platform: &Platform,
    names: &[Reference],
    attestations: &[Attestation],
) -> Result<Attested> {
    let malformed = || ImageError::document("the attestation");
    let (mut blobs, mut layers) = (Vec::new(), Vec::new());
    let mut subjects: Vec<String> = names.iter().map(|name| image_url(name, platform)).collect();
    if subjects.is_empty() {
        subjects.push("_".to_owned());
    }
    let subjects: Vec<_> = subjects.into_iter().map(|name| (name, image.digest.clone())).collect();
    for said in attestations {
        let statement = said.statement(&subjects);
        let (digest, bytes) = blob(to_go_json(&statement).map_err(malformed())?);
        let mut layer = Descriptor::new(media::IN_TOTO, digest.clone(), bytes.len() as u64);
        layer.annotations.insert("in-toto.io/predicate-type".to_owned(), said.predicate_type.clone());
        layers.push(layer);
        blobs.push((digest, bytes));
    }
    let diff_ids: Vec<&Digest> = layers.iter().map(|layer| &layer.digest).collect();
    let config = json!({
        "architecture": "unknown", "os": "unknown", "config": {}, "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = blob(to_go_json(&config).map_err(malformed())?);
    let manifest = Manifest {
        schema_version: 2,
        media_type: media::MANIFEST.to_owned(),
        config: Descriptor::new(media::CONFIG, config.0.clone(), config.1.len() as u64),
        layers,
        extra: Default::default(),
    };
    blobs.push(config);
    let manifest = blob(to_go_json(&manifest).map_err(malformed())?);
    let mut beside = Descriptor::new(media::MANIFEST, manifest.0.clone(), manifest.1.len() as u64);
    let unknown = || "unknown".to_owned();
    beside.platform = Some(Platform { architecture: unknown(), os: unknown(), ..Platform::default() });
    beside.annotations.insert("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned());
    beside.annotations.insert("vnd.docker.reference.digest".to_owned(), image.digest.to_string());
    let image = Descriptor { platform: Some(platform.clone()), ..image.clone() };
    let index = Index {
        schema_version: 2,
        media_type: media::INDEX.to_owned(),
        manifests: vec![image, beside],
        extra: Default::default(),
    };
    Ok(Attested { blobs, manifest, index: blob(to_go_json(&index).map_err(malformed())?) })
}

/// The name of an image as a package URL (*purl-spec "docker"*).
pub fn image_url(name: &Reference, platform: &Platform) -> String {
    let version = match (&name.digest, &name.tag) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(tag)) => tag.clone(),
        (None, None) => "latest".to_owned(),
    };
    package_url("docker", &name.familiar_name(), &version, &[("platform", &platform.to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_package_urls() {
        let platform = Platform::parse("linux/arm64/v8").unwrap();
        for (name, expected) in [
            ("busybox", "pkg:docker/busybox@latest?platform=linux%2Farm64%2Fv8"),
            ("127.0.0.1:5000/a/b:1.2", "pkg:docker/127.0.0.1%3A5000/a/b@1.2?platform=linux%2Farm64%2Fv8"),
        ] {
            assert_eq!(image_url(&name.parse().unwrap(), &platform), expected);
        }
    }

    #[test]
    fn the_documents_name_each_other() {
        let platform = Platform::parse("linux/amd64").unwrap();
        let image = Descriptor::new(media::MANIFEST, Digest::of(b"image"), 5);
        let said = Attestation { predicate_type: "https://example.org/x".to_owned(), predicate: json!({ "a": 1 }) };
        let names = ["a:1".parse().unwrap(), "b:2".parse().unwrap()];
        let made = attest(&image, &platform, &names, &[said]).unwrap();
        let index: Index = serde_json::from_slice(&made.index.1).unwrap();
        let [first, beside] = &index.manifests[..] else { panic!("two manifests") };
        assert_eq!((first.digest.clone(), first.platform.clone()), (image.digest.clone(), Some(platform)));
        assert_eq!((&beside.digest, beside.size), (&made.manifest.0, made.manifest.1.len() as u64));
        assert_eq!(beside.annotations["vnd.docker.reference.digest"], image.digest.to_string());
        let manifest: Manifest = serde_json::from_slice(&made.manifest.1).unwrap();
        let held = |descriptor: &Descriptor| {
            let (_, bytes) = made.blobs.iter().find(|(digest, _)| *digest == descriptor.digest).unwrap();
            assert_eq!((Digest::of(bytes), bytes.len() as u64), (descriptor.digest.clone(), descriptor.size));
            serde_json::from_slice::<Value>(bytes).unwrap()
        };
        let statement = held(&manifest.layers[0]);
        assert_eq!(statement["subject"][1]["name"], "pkg:docker/b@2?platform=linux%2Famd64");
        assert_eq!(statement["subject"][0]["digest"]["sha256"], image.digest.hex());
        assert_eq!(statement["predicate"], json!({ "a": 1 }));
        assert_eq!(held(&manifest.config)["rootfs"]["diff_ids"][0], manifest.layers[0].digest.to_string());
    }
}

//! Reading a cache's documents, wherever they lie: an image, or an index of some, nested or not; bounded.

use super::super::documents::{Document, MAX_NESTING, Shelf, as_index, as_manifest};
use super::super::error::{ImageError, Result};
use super::super::registry::RegistryError;
use super::StepTable;
use crate::oci::{Descriptor, media};

/// Most images of a cache.
const MAX_IMAGES: usize = 256;
/// Most bytes of all its documents.
const MAX_BYTES: u64 = 64 << 20;

/// Reads the steps of all images below a document. `name` is the cache's, for messages.
pub(in crate::image) fn read_steps(shelf: &dyn Shelf, first: Document, name: &str) -> Result<StepTable> {
    let invalid = |what| ImageError::Invalid { document: format!("the build cache {name}"), what };
    let (mut table, mut waiting) = (StepTable::default(), vec![(first, 0)]);
    let (mut images, mut bytes) = (0, 0_u64);
    // Before anything comes: what a document says of its length is what is read at most.
    let mut count = |wanted: &Descriptor| {
        bytes = bytes.saturating_add(wanted.size);
        if bytes > MAX_BYTES { Err(invalid("its documents are longer than 64 MiB")) } else { Ok(()) }
    };
    while let Some((document, depth)) = waiting.pop() {
        let Some(index) = as_index(&document)? else {
            let manifest = as_manifest(&document, name)?;
            count(&manifest.config)?;
            table.add(&shelf.config(&manifest.config)?, Some(&manifest.layers))?;
            continue;
        };
        if depth == MAX_NESTING {
            return Err(invalid("its indexes are nested too deep"));
        }
        for wanted in &index.manifests {
            // Attestations stand beside images and are none.
            if wanted.annotations.contains_key("vnd.docker.reference.type") {
                continue;
            }
            images += 1;
            if images > MAX_IMAGES {
                return Err(invalid("it has more than 256 images"));
            }
            let known = [media::MANIFEST, media::INDEX, media::DOCKER_MANIFEST, media::DOCKER_LIST, ""];
            if !known.contains(&wanted.media_type.as_str()) {
                let kind: String = wanted.media_type.chars().take(100).filter(|c| !c.is_control()).collect();
                let what = format!(
                    "it holds {kind:?}, which is no image: the cache of another builder, whose keys are others"
                );
                return Err(RegistryError::Unsupported { name: name.to_owned(), what }.into());
            }
            count(wanted)?;
            waiting.push((shelf.manifest(wanted)?, depth + 1));
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::super::{StepRecord, attach_steps};
    use super::*;
    use crate::base::{Digest, Timestamp, with_causes};
    use crate::oci::{ImageConfig, Index, Manifest, to_go_json};
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    /// Documents by digest, and what was asked for.
    #[derive(Default)]
    struct Shelves {
        documents: RefCell<BTreeMap<Digest, Vec<u8>>>,
        asked: RefCell<usize>,
    }

    impl Shelves {
        fn put(&self, kind: &str, bytes: Vec<u8>) -> Descriptor {
            let descriptor = Descriptor::new(kind, Digest::of(&bytes), bytes.len() as u64);
            self.documents.borrow_mut().insert(descriptor.digest.clone(), bytes);
            descriptor
        }

        fn image(&self, key: &str) -> Descriptor {
            let mut config = ImageConfig::default();
            let key = Digest::of(key.as_bytes());
            let step = StepRecord {
                key,
                below: 0,
                layer: false,
                detached: false,
                created: Timestamp(1),
                title: String::new(),
            };
            attach_steps(&mut config, &[step]);
            let config = self.put(media::CONFIG, to_go_json(&config).unwrap());
            let manifest = Manifest {
                schema_version: 2,
                media_type: media::MANIFEST.to_owned(),
                config,
                layers: Vec::new(),
                extra: Default::default(),
            };
            self.put(media::MANIFEST, to_go_json(&manifest).unwrap())
        }

        fn index(&self, manifests: Vec<Descriptor>) -> Descriptor {
            let media_type = media::INDEX.to_owned();
            let index = Index { schema_version: 2, media_type, manifests, extra: Default::default() };
            self.put(media::INDEX, to_go_json(&index).unwrap())
        }

        fn bytes(&self, wanted: &Descriptor) -> Vec<u8> {
            *self.asked.borrow_mut() += 1;
            self.documents.borrow()[&wanted.digest].clone()
        }

        fn read(&self, first: &Descriptor) -> Result<StepTable> {
            let document = self.manifest(first).unwrap();
            *self.asked.borrow_mut() = 0;
            read_steps(self, document, "NAME")
        }
    }

    impl Shelf for Shelves {
        fn manifest(&self, wanted: &Descriptor) -> Result<Document> {
            let media_type = wanted.media_type.clone();
            Ok(Document { bytes: self.bytes(wanted), digest: wanted.digest.clone(), media_type })
        }
        fn config(&self, wanted: &Descriptor) -> Result<Vec<u8>> {
            Ok(self.bytes(wanted))
        }
    }

    #[test]
    fn all_images_of_nested_indexes_are_read() {
        let shelves = Shelves::default();
        let mut attestation = Descriptor::new("x/y", Digest::of(b"none"), 1);
        attestation.annotations.insert("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned());
        let inner = shelves.index(vec![shelves.image("b"), attestation, shelves.image("c")]);
        let table = shelves.read(&shelves.index(vec![shelves.image("a"), inner])).unwrap();
        for key in ["a", "b", "c"] {
            assert_eq!(table.find(&Digest::of(key.as_bytes()), None).len(), 1, "{key}");
        }
        assert_eq!(shelves.read(&shelves.image("d")).unwrap().find(&Digest::of(b"d"), None).len(), 1);
    }

    #[test]
    fn depth_number_and_length_are_bounded_before_anything_is_read() {
        let shelves = Shelves::default();
        let check = |first: &Descriptor, what: &str, most: usize| {
            let error = shelves.read(first).unwrap_err();
            assert!(with_causes(&error).contains(what), "{error}");
            assert!(*shelves.asked.borrow() <= most, "{what}: {} documents were read", shelves.asked.borrow());
        };
        let mut deep = shelves.image("a");
        for _ in 0..=MAX_NESTING {
            deep = shelves.index(vec![deep]);
        }
        check(&deep, "nested too deep", MAX_NESTING);
        check(&shelves.index(vec![shelves.image("a"); MAX_IMAGES + 1]), "more than 256 images", MAX_IMAGES);
        let mut long = shelves.image("a");
        long.size = MAX_BYTES + 1;
        check(&shelves.index(vec![long.clone()]), "longer than 64 MiB", 0);
        long.size = u64::MAX;
        check(&shelves.index(vec![shelves.image("a"), long]), "longer than 64 MiB", 1);
        let buildkit = Descriptor::new("application/vnd.buildkit.cacheconfig.v0", Digest::of(b"x"), 1);
        check(&shelves.index(vec![buildkit]), "the cache of another builder", 0);
    }
}

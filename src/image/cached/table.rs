//! Steps by what must be known to use them: their key, and the chain they stand on. Pure.

use super::super::error::{ImageError, Result};
use super::super::index::chain_ids;
use super::StepRecord;
use crate::base::{Digest, Timestamp};
use crate::oci::{Descriptor, RootFs};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Most steps of one image, and of one cache.
const MOST_OF_IMAGE: usize = 10_000;
const MOST: usize = 100_000;

/// What a step led to.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownStep {
    /// The layer it made: its diff id, and its blob where that is not in the store already.
    pub layer: Option<(Digest, Option<Descriptor>)>,
    /// When it was done.
    pub created: Timestamp,
}

/// The steps of a cache.
#[derive(Clone, Debug, Default)]
pub struct StepTable {
    steps: BTreeMap<(Digest, Option<Digest>), Vec<KnownStep>>,
    count: usize,
}

/// The part of an image's configuration that is read; everything else is passed over.
#[derive(Deserialize)]
struct Carrier {
    #[serde(default)]
    rootfs: RootFs,
    #[serde(default, rename = "io.bulkhead.cache.v1")]
    cache: Option<Carried>,
}

#[derive(Deserialize)]
struct Carried {
    steps: Vec<StepRecord>,
}

impl StepTable {
    /// Adds what an image's configuration carries. `blobs` are the layers of its manifest, or none when the image is in the store.
    ///
    /// # Errors
    /// When it carries no steps, too many, or one whose layer the image does not have.
    pub(in crate::image) fn add(&mut self, config: &[u8], blobs: Option<&[Descriptor]>) -> Result<()> {
        const DOCUMENT: &str = "image config of a build cache";
        let invalid = |what| ImageError::Invalid { document: DOCUMENT.to_owned(), what };
        let carrier: Carrier = serde_json::from_slice(config).map_err(ImageError::document(DOCUMENT))?;
        let diff_ids = carrier.rootfs.diff_ids;
        let Some(Carried { steps }) = carrier.cache else {
            return Err(invalid("carries no build steps; --cache-to makes one that does"));
        };
        if blobs.is_some_and(|blobs| blobs.len() != diff_ids.len()) {
            return Err(invalid("names another number of layers than the manifest"));
        }
        if steps.len() > MOST_OF_IMAGE || self.count + steps.len() > MOST {
            return Err(invalid("carries more build steps than are read"));
        }
        let chain = chain_ids(&diff_ids);
        for step in steps {
            let parent = match (step.below, step.detached) {
                (0, _) | (_, true) => None,
                (below, false) => Some(chain.get(below - 1).ok_or_else(|| invalid("has a step on layers it lacks"))?),
            };
            let layer = match step.layer {
                true => Some(diff_ids.get(step.below).ok_or_else(|| invalid("has a step whose layer it lacks"))?),
                false => None,
            };
            // What is performed on nothing is nothing without a layer, and one of the store lies on others.
            if step.detached && (layer.is_none() || blobs.is_none()) {
                continue;
            }
            let layer = layer.map(|diff_id| (diff_id.clone(), blobs.map(|blobs| blobs[step.below].clone())));
            let known = KnownStep { layer, created: step.created };
            self.steps.entry((step.key, parent.cloned())).or_default().push(known);
            self.count += 1;
        }
        Ok(())
    }

    /// Returns what a step on a chain (its top-most layer) led to, as often as it is there.
    pub fn find(&self, key: &Digest, parent: Option<&Digest>) -> &[KnownStep] {
        self.steps.get(&(key.clone(), parent.cloned())).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{ImageConfig, media, to_go_json};

    fn id(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn step(key: &str, below: usize) -> StepRecord {
        StepRecord { key: id(key), below, layer: true, detached: false, created: Timestamp(7), title: key.to_owned() }
    }

    fn config(steps: &[StepRecord]) -> Vec<u8> {
        let mut config = ImageConfig::default();
        config.rootfs.diff_ids = vec![id("base"), id("one"), id("two")];
        super::super::attach_steps(&mut config, steps);
        to_go_json(&config).unwrap()
    }

    fn blobs(count: usize) -> Vec<Descriptor> {
        (0..count).map(|at| Descriptor::new(media::LAYER_GZIP, id(&format!("blob {at}")), at as u64)).collect()
    }

    #[test]
    fn a_step_is_found_on_its_own_chain_and_on_no_other() {
        let mut table = StepTable::default();
        let empty = StepRecord { layer: false, ..step("empty", 2) };
        let linked = StepRecord { detached: true, ..step("linked", 2) };
        let hollow = StepRecord { layer: false, detached: true, ..step("hollow", 1) };
        let steps = [step("first", 0), step("a", 1), empty, linked, hollow];
        table.add(&config(&steps), Some(&blobs(3))).unwrap();
        let chain = chain_ids(&[id("base"), id("one"), id("two")]);
        let found = |key: &str, parent: Option<&Digest>| -> Vec<Option<u64>> {
            let size = |step: &KnownStep| step.layer.as_ref().map(|(_, blob)| blob.as_ref().unwrap().size);
            table.find(&id(key), parent).iter().map(size).collect()
        };
        assert_eq!(found("first", None), [Some(0)]);
        assert_eq!(found("a", Some(&chain[0])), [Some(1)]);
        assert_eq!(found("empty", Some(&chain[1])), [None]);
        assert_eq!(found("linked", None), [Some(2)], "it was performed on nothing");
        for (key, parent) in [
            ("a", None),
            ("a", Some(&chain[1])),
            ("a", Some(&id("one"))),
            ("linked", Some(&chain[1])),
            ("hollow", None),
        ] {
            assert_eq!(found(key, parent), [], "{key} {parent:?}");
        }
    }

    #[test]
    fn what_an_image_of_the_store_carries_needs_no_blobs() {
        let mut table = StepTable::default();
        table.add(&config(&[step("a", 1), StepRecord { detached: true, ..step("linked", 2) }]), None).unwrap();
        let found = table.find(&id("a"), Some(&id("base")));
        assert_eq!(found[0].layer, Some((id("one"), None)));
        assert_eq!(table.find(&id("linked"), None), []);
    }

    #[test]
    fn steps_that_make_no_sense_are_refused() {
        let check = |bytes: &[u8], blobs: usize, what: &str| {
            let error = StepTable::default().add(bytes, Some(&super::tests::blobs(blobs))).unwrap_err();
            assert!(crate::base::with_causes(&error).contains(what), "{error} {what}");
        };
        check(&config(&[step("a", 3)]), 3, "whose layer it lacks");
        check(&config(&[step("a", usize::MAX)]), 3, "layers it lacks");
        check(&config(&[StepRecord { layer: false, ..step("a", 4) }]), 3, "on layers it lacks");
        check(&config(&[step("a", 1)]), 2, "another number of layers");
        check(&config(&vec![step("a", 1); MOST_OF_IMAGE + 1]), 3, "more build steps than are read");
        check(b"{}", 0, "carries no build steps");
        check(b"[", 0, "read image config");
        let text = String::from_utf8(config(&[step("a", 1)])).unwrap();
        check(text.replace("\"key\":\"sha256:", "\"key\":\"sha256:../").as_bytes(), 3, "read image config");
        check(text.replace("\"below\":1", "\"below\":-1").as_bytes(), 3, "read image config");
    }
}

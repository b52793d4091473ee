//! What the cache gives up: a pure choice by use and size.

use super::Entry;
use crate::base::{Digest, Timestamp};
use crate::image::LayerUse;
use std::collections::BTreeMap;

/// Layers of the store by chain id.
pub type Layers = BTreeMap<Digest, LayerUse>;

/// What may go, and how much (*docker builder prune*).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// `--all`: also steps whose layers an image needs; their layers stay.
    pub all: bool,
    /// `--filter until=`: only what was not used since.
    pub unused_since: Option<Timestamp>,
    /// `--keep-storage`: stop when no more than so many bytes are held; without it everything that may go does.
    pub keep: Option<u64>,
}

/// The layers that steps hold, each counted as often as it is needed.
struct Ledger<'a> {
    layers: &'a Layers,
    holders: BTreeMap<&'a Digest, usize>,
    /// Bytes of layers that nothing but the cache holds.
    bytes: u64,
}

impl<'a> Ledger<'a> {
    fn new(entries: &'a [Entry], layers: &'a Layers) -> Self {
        let mut ledger = Self { layers, holders: BTreeMap::new(), bytes: 0 };
        for layer in entries.iter().flat_map(|entry| stack(entry.top(), layers)) {
            let holders = ledger.holders.entry(&layer.chain_id).or_default();
            *holders += 1;
            if *holders == 1 && !layer.needed {
                ledger.bytes += layer.size;
            }
        }
        ledger
    }

    fn let_go(&mut self, entry: &Entry) {
        for layer in stack(entry.top(), self.layers) {
            if let Some(holders) = self.holders.get_mut(&layer.chain_id) {
                *holders -= 1;
                if *holders == 0 && !layer.needed {
                    self.bytes -= layer.size;
                }
            }
        }
    }
}

/// Returns a layer and what lies below it, as far as it is here.
fn stack<'a>(top: Option<&Digest>, layers: &'a Layers) -> impl Iterator<Item = &'a LayerUse> {
    let mut next = top.and_then(|id| layers.get(id));
    std::iter::from_fn(move || {
        let layer = next.take()?;
        next = layer.parent.as_ref().and_then(|id| layers.get(id));
        Some(layer)
    })
}

/// Returns the bytes that nothing but the cache holds.
pub fn held(entries: &[Entry], layers: &Layers) -> u64 {
    Ledger::new(entries, layers).bytes
}

/// Chooses the steps to forget, least recently used first.
///
/// A step was used when any step on top of it was, so a stack goes from its top; a step whose layer is gone is of no use
/// and goes in any case.
pub fn evict(entries: &[Entry], layers: &Layers, policy: &Policy) -> Vec<Digest> {
    let mut used: BTreeMap<&Digest, Timestamp> = BTreeMap::new();
    for entry in entries {
        for below in stack(entry.record.parent.as_ref(), layers) {
            let at = used.entry(&below.chain_id).or_insert(entry.last_used);
            *at = entry.last_used.max(*at);
        }
    }
    let last_used = |entry: &Entry| {
        let above = entry.record.layer.as_ref().and_then(|layer| used.get(&layer.chain_id));
        above.copied().map_or(entry.last_used, |at| at.max(entry.last_used))
    };
    let mut ledger = Ledger::new(entries, layers);
    let (whole, lost): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(|entry| entry.is_whole(layers));
    let mut gone: Vec<Digest> = Vec::new();
    for entry in lost {
        ledger.let_go(entry);
        gone.push(entry.key.clone());
    }
    let may_go = |entry: &&Entry| {
        (policy.all || !entry.is_shared(layers)) && policy.unused_since.is_none_or(|since| last_used(entry) < since)
    };
    let mut candidates: Vec<&Entry> = whole.into_iter().filter(may_go).collect();
    candidates.sort_by_cached_key(|entry| {
        (last_used(entry), std::cmp::Reverse(stack(entry.record.parent.as_ref(), layers).count()), &entry.key)
    });
    for entry in candidates {
        if policy.keep.is_some_and(|most| ledger.bytes <= most) {
            break;
        }
        ledger.let_go(entry);
        gone.push(entry.key.clone());
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::super::CacheRecord;
    use super::*;
    use crate::step::CommittedLayer;

    fn id(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    /// `name parent size used`; a needed layer has a `!`, a step without a layer the size `-`, one whose layer is gone `x`.
    fn world(lines: &[&str]) -> (Vec<Entry>, Layers) {
        let (mut entries, mut layers) = (Vec::new(), Layers::new());
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let (name, parent) = (words[0], Some(words[1]).filter(|parent| *parent != ".").map(id));
            let size = words[2].trim_end_matches('!').parse().ok();
            if let Some(size) = size {
                let needed = words[2].ends_with('!');
                layers.insert(id(name), LayerUse { chain_id: id(name), parent: parent.clone(), size, needed });
            }
            let layer = (words[2] != "-").then(|| CommittedLayer { diff_id: id(name), chain_id: id(name), size: 0 });
            let Some(used) = words.get(3) else { continue };
            let record = CacheRecord { schema: 1, parent, layer, created: Timestamp(0), title: name.to_owned() };
            entries.push(Entry { key: id(name), record, last_used: Timestamp(used.parse().unwrap()) });
        }
        (entries, layers)
    }

    #[track_caller]
    fn check(lines: &[&str], policy: Policy, gone: &[&str]) {
        let (entries, layers) = world(lines);
        let title = |key: &Digest| entries.iter().find(|entry| entry.key == *key).unwrap().record.title.clone();
        let found: Vec<String> = evict(&entries, &layers, &policy).iter().map(title).collect();
        assert_eq!(found, gone, "{policy:?}");
    }

    fn keep(bytes: u64) -> Policy {
        Policy { keep: Some(bytes), ..Policy::default() }
    }

    /// A base image, two steps on it that an image needs, a branch of two steps that nothing needs, a step of its own.
    const TREE: [&str; 7] = [
        "base . 1000!",
        "a base 10! 5",
        "b a 20! 6",
        "old base 30 1",
        "older old 40 2",
        "free . 50 9",
        "none free - 9",
    ];

    #[test]
    fn the_least_recently_used_go_from_the_top_until_enough_is_free() {
        let (entries, layers) = world(&TREE);
        assert_eq!(held(&entries, &layers), 120, "what images need is not held by the cache");
        check(&TREE, keep(120), &[]);
        check(&TREE, keep(119), &["older"]);
        check(&TREE, keep(80), &["older"]);
        check(&TREE, keep(79), &["older", "old"]);
        check(&TREE, keep(0), &["older", "old", "none", "free"]);
        check(&TREE, Policy::default(), &["older", "old", "none", "free"]);
    }

    #[test]
    fn use_of_a_step_is_use_of_everything_below_it() {
        // The lowest was looked at first, and so a moment earlier than what stands on it.
        let lines = ["one . 10 1", "two one 10 2", "three two 10 3", "other . 10 2"];
        check(&lines, keep(30), &["other"]);
        check(&lines, keep(10), &["other", "three", "two"]);
    }

    #[test]
    fn steps_of_images_go_only_with_all_and_free_nothing() {
        check(&TREE, Policy { all: true, ..Policy::default() }, &["older", "old", "b", "a", "none", "free"]);
        check(&TREE, Policy { all: true, keep: Some(50), ..Policy::default() }, &["older", "old"]);
    }

    #[test]
    fn until_spares_what_was_used_since() {
        let since = |at| Policy { unused_since: Some(Timestamp(at)), ..Policy::default() };
        check(&TREE, since(2), &[]);
        check(&TREE, since(3), &["older", "old"]);
        check(&TREE, Policy { keep: Some(90), ..since(3) }, &["older"]);
    }

    #[test]
    fn a_step_whose_layer_is_gone_goes_in_any_case() {
        let lines = ["one . 10 1", "two one x 2", "three two x 3", "four one 10 4"];
        check(&lines, keep(1000), &["two", "three"]);
    }

    #[test]
    fn a_base_that_only_the_cache_holds_counts() {
        // Its image was removed; nothing but the step stands on it.
        let lines = ["base . 1000", "a base 10 5"];
        let (entries, layers) = world(&lines);
        assert_eq!(held(&entries, &layers), 1010);
        check(&lines, keep(1000), &["a"]);
    }
}

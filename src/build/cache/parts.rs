//! What the key of a step was made of, kept beside its record (`build/cache/<key>.why`), so that a later miss can be
//! explained. Nothing depends on it: a part that is missing makes an explanation poorer, no build wrong.

use super::BuildCache;
use crate::base::{Digest, Timestamp};
use crate::store::{Durability, write_bytes};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};

/// Most files whose state is kept, and most bytes of them and of an operation.
const MAX_FILES: usize = 50_000;
const MAX_BYTES: usize = 4 << 20;

/// What a step's key was made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Parts {
    /// Which Dockerfile: a short digest of its path.
    pub file: String,
    /// Stage, as it is shown.
    pub stage: String,
    /// Number within the stage.
    pub number: u32,
    /// The step, for people.
    pub title: String,
    /// Its operation.
    pub operation: serde_json::Value,
    /// Key of the step below it.
    pub parent: Option<Digest>,
    /// That step, for people.
    pub below: String,
    /// Digest of what it reads.
    pub content: Option<Digest>,
    /// The stage it reads, for people; empty where that is the context.
    #[serde(default)]
    pub reads: String,
    /// Files of the context that it reads, with a short form of what each is; none where they were too many.
    #[serde(skip)]
    pub files: BTreeMap<String, u64>,
}

impl BuildCache {
    /// Keeps what a key was made of. Parts that are too large, or cannot be written, are not kept.
    pub fn keep_parts(&self, key: &Digest, parts: &Parts) {
        let Ok(mut text) = serde_json::to_string(parts) else { return };
        text.push('\n');
        if text.len() > MAX_BYTES {
            return;
        }
        let head = text.len();
        for (path, print) in &parts.files {
            if parts.files.len() > MAX_FILES || text.len() > MAX_BYTES {
                text.truncate(head);
                break;
            }
            // A line for each; a name may hold a line's end.
            let _ = writeln!(text, "{print:x} {}", path.replace('\n', "\u{fffd}"));
        }
        let _ = write_bytes(&self.parts_path(key), text.as_bytes(), Durability::Atomic);
    }

    fn parts_path(&self, key: &Digest) -> std::path::PathBuf {
        self.path(key).with_extension("why")
    }

    /// Forgets what a key was made of.
    pub(super) fn forget_parts(&self, key: &Digest) {
        let _ = std::fs::remove_file(self.parts_path(key));
    }

    /// Reads what a key was made of; the files only with `files`.
    pub fn parts(&self, key: &Digest, files: bool) -> Option<Parts> {
        let mut lines = BufReader::new(std::fs::File::open(self.parts_path(key)).ok()?);
        let mut head = String::new();
        lines.read_line(&mut head).ok()?;
        let mut parts: Parts = serde_json::from_str(&head).ok()?;
        if files {
            for line in lines.lines() {
                let line = line.ok()?;
                let (print, path) = line.split_once(' ')?;
                parts.files.insert(path.to_owned(), u64::from_str_radix(print, 16).ok()?);
            }
        }
        Some(parts)
    }

    /// Finds the earlier step that is most like this one: the same at another time.
    pub fn nearest(&self, key: &Digest, parts: &Parts) -> Option<Parts> {
        let entries = self.entries().ok()?;
        let others = entries.into_iter().filter(|entry| entry.key != *key);
        let scored = others.filter_map(|entry| {
            let other = self.parts(&entry.key, false)?;
            Some(((likeness(parts, &other)?, entry.last_used), entry.key))
        });
        let (_, key) = scored.max_by_key(|(score, _): &((u32, Timestamp), Digest)| *score)?;
        self.parts(&key, true)
    }
}

/// How alike two steps are; `None` when neither can be the other at another time.
fn likeness(one: &Parts, other: &Parts) -> Option<u32> {
    let same = |equal: bool, weight: u32| if equal { weight } else { 0 };
    let operation = one.operation == other.operation;
    let place = one.file == other.file && one.stage == other.stage && one.number == other.number;
    let title = one.file == other.file && one.title == other.title;
    if !operation && !place && !title {
        return None;
    }
    let content = one.content == other.content;
    Some(
        same(operation, 8)
            + same(title, 6)
            + same(one.file == other.file, 5)
            + same(one.parent == other.parent, 4)
            + same(content, 4)
            + same(place, 2),
    )
}

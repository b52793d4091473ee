//! Why a step was or was not found in the cache: a pure comparison of what two keys were made of.

use crate::build::cache::Parts;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Most files that are named.
const MAX_FILES: usize = 10;

/// Why a step was performed, or was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing that it is made of has changed.
    Cached,
    /// The same step was performed a moment ago: by another stage, or by another build.
    Shared,
    /// A cache that the build was given had its result.
    Imported(String),
    /// `--no-cache`, `--no-cache-filter`.
    NotAsked,
    /// Nothing like it is in the cache.
    First,
    /// It was performed before, and its layer is gone.
    LayerGone,
    /// The step below it was performed anew, and so this was, though nothing else has changed.
    ParentAnew,
    /// What has changed since it was performed last.
    Changed(Vec<Change>),
}

/// One thing that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A file of the context.
    File {
        /// Path in the context.
        path: String,
        /// What became of it.
        how: How,
    },
    /// So many more files.
    MoreFiles(usize),
    /// Files, too many to be told apart.
    Files,
    /// The stage or image it copies from.
    Source(String),
    /// A variable.
    Variable {
        /// Its name.
        name: String,
        /// What became of it.
        how: How,
    },
    /// The text of the instruction.
    Instruction {
        /// What it was.
        before: String,
    },
    /// Something else the step depends on: user, working directory, a flag.
    Setting(String),
    /// The step below it, or the image.
    Parent(String),
}

/// What became of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It is there and was not.
    Added,
    /// It was there.
    Removed,
    /// It is another.
    Changed,
}

impl How {
    fn text(self) -> &'static str {
        match self {
            Self::Added => "is new",
            Self::Removed => "is gone",
            Self::Changed => "changed",
        }
    }
}

/// Compares a step with the one it may have been before.
pub(super) fn compare(now: &Parts, before: Option<&Parts>) -> Reason {
    let Some(before) = before else { return Reason::First };
    let mut changes = Vec::new();
    operation(now, before, &mut changes);
    if now.content != before.content {
        if !now.files.is_empty() && !before.files.is_empty() && now.files != before.files {
            files(&now.files, &before.files, &mut changes);
        } else if now.reads.is_empty() {
            changes.push(Change::Files);
        } else {
            changes.push(Change::Source(now.reads.clone()));
        }
    }
    if now.parent != before.parent {
        changes.push(Change::Parent(now.below.clone()));
    }
    Reason::Changed(changes)
}

/// How two sets of named things differ.
fn differences<'a, T: PartialEq>(
    now: &'a BTreeMap<String, T>,
    before: &'a BTreeMap<String, T>,
) -> impl Iterator<Item = (&'a String, How)> {
    let names: BTreeSet<&String> = now.keys().chain(before.keys()).collect();
    names.into_iter().filter_map(|name| match (now.get(name), before.get(name)) {
        (Some(_), None) => Some((name, How::Added)),
        (None, Some(_)) => Some((name, How::Removed)),
        (now, before) => (now != before).then_some((name, How::Changed)),
    })
}

fn files(now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>, changes: &mut Vec<Change>) {
    let all: Vec<_> = differences(now, before).collect();
    let named = all.iter().take(MAX_FILES).map(|(path, how)| Change::File { path: (*path).clone(), how: *how });
    changes.extend(named);
    if all.len() > MAX_FILES {
        changes.push(Change::MoreFiles(all.len() - MAX_FILES));
    }
}

/// Compares operations field by field, whatever fields there are: `{"run": {"args": ..., "env": ...}}`.
fn operation(now: &Parts, before: &Parts, changes: &mut Vec<Change>) {
    if now.operation == before.operation {
        return;
    }
    let instruction = || Change::Instruction { before: before.title.clone() };
    let (Some((kind, new)), Some((old_kind, old))) = (only(&now.operation), only(&before.operation)) else {
        return changes.push(instruction());
    };
    let (Some(new), Some(old), true) = (new.as_object(), old.as_object(), kind == old_kind) else {
        return changes.push(instruction());
    };
    let names: BTreeSet<&String> = new.keys().chain(old.keys()).collect();
    let mut text = now.title != before.title;
    for name in names.into_iter().filter(|name| new.get(*name) != old.get(*name)) {
        match name.as_str() {
            "env" => {
                let changed = |(name, how): (&String, How)| Change::Variable { name: name.clone(), how };
                changes.extend(differences(&variables(new.get("env")), &variables(old.get("env"))).map(changed));
            }
            "args" | "sources" | "destination" | "script" => text = true,
            other => changes.push(Change::Setting(other.to_owned())),
        }
    }
    if text {
        changes.push(instruction());
    }
}

/// The only entry of an object.
fn only(value: &Value) -> Option<(&String, &Value)> {
    value.as_object().filter(|object| object.len() == 1)?.iter().next()
}

fn variables(env: Option<&Value>) -> BTreeMap<String, String> {
    let entries = env.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    entries.filter_map(|entry| entry.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

impl Reason {
    /// Tells whether the step was not performed.
    pub fn is_cached(&self) -> bool {
        matches!(self, Self::Cached | Self::Shared | Self::Imported(_))
    }

    /// Returns the reasons for programs: an array of objects with `kind` and `name`.
    pub fn json(&self) -> Value {
        let one = |kind: &str| json!([{ "kind": kind }]);
        match self {
            Self::Cached => json!([]),
            Self::Shared => one("shared"),
            Self::Imported(from) => json!([{ "kind": "imported", "name": from }]),
            Self::NotAsked => one("no-cache"),
            Self::First => one("first"),
            Self::LayerGone => one("layer-gone"),
            Self::ParentAnew => one("parent-anew"),
            Self::Changed(changes) => changes.iter().map(Change::json).collect(),
        }
    }
}

impl Change {
    fn json(&self) -> Value {
        match self {
            Self::File { path, how } => json!({ "kind": "file", "name": path, "change": how.text() }),
            Self::MoreFiles(count) => json!({ "kind": "more-files", "count": count }),
            Self::Files => json!({ "kind": "files" }),
            Self::Source(name) => json!({ "kind": "source", "name": name }),
            Self::Variable { name, how } => json!({ "kind": "variable", "name": name, "change": how.text() }),
            Self::Instruction { before } => json!({ "kind": "instruction", "before": before }),
            Self::Setting(name) => json!({ "kind": "setting", "name": name }),
            Self::Parent(name) => json!({ "kind": "parent", "name": name }),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cached => f.write_str("nothing it is made of has changed"),
            Self::Shared => f.write_str("the same step was done a moment ago"),
            Self::Imported(from) => write!(f, "its result was taken from {from}"),
            Self::NotAsked => f.write_str("the cache was not to be used"),
            Self::First => f.write_str("nothing like it is in the cache"),
            Self::LayerGone => f.write_str("its layer has been removed from the cache"),
            Self::ParentAnew => f.write_str("the step below it was done anew"),
            Self::Changed(changes) => {
                let texts: Vec<String> = changes.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join("; "))
            }
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, how } => write!(f, "file {} {}", if path.is_empty() { "." } else { path }, how.text()),
            Self::MoreFiles(count) => write!(f, "and {count} more files"),
            Self::Files => f.write_str("the files it copies changed"),
            Self::Source(name) => write!(f, "what it copies from changed: {name}"),
            Self::Variable { name, how } => write!(f, "variable {name} {}", how.text()),
            Self::Instruction { before } => write!(f, "the instruction changed; it was: {before}"),
            Self::Setting(name) => write!(f, "{name} changed"),
            Self::Parent(name) => write!(f, "what is below it changed: {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Digest;

    fn run(line: &str, env: &[&str]) -> Parts {
        Parts {
            title: format!("RUN {line}"),
            operation: json!({ "run": { "args": ["/bin/sh", "-c", line], "env": env, "user": "" } }),
            parent: Some(Digest::of(b"below")),
            below: "FROM base".into(),
            ..Parts::default()
        }
    }

    #[track_caller]
    fn check(now: &Parts, before: &Parts, text: &str) {
        assert_eq!(compare(now, Some(before)).to_string(), text);
    }

    #[test]
    fn a_miss_names_what_changed() {
        let now = run("make", &["A=1", "B=2", "C=3"]);
        check(&now, &run("make", &["A=1", "B=3", "D=1"]), "variable B changed; variable C is new; variable D is gone");
        check(&now, &run("make all", &["A=1", "B=2", "C=3"]), "the instruction changed; it was: RUN make all");
        let mut other = now.clone();
        other.operation["run"]["user"] = json!("me");
        other.parent = None;
        check(&now, &other, "user changed; what is below it changed: FROM base");
        assert_eq!(compare(&now, None), Reason::First);
        let copy = |files: &[(&str, u64)]| Parts {
            content: Some(Digest::of(format!("{files:?}").as_bytes())),
            files: files.iter().map(|(path, print)| ((*path).to_owned(), *print)).collect(),
            ..Parts::default()
        };
        check(
            &copy(&[("a", 1), ("b", 1), ("c", 1)]),
            &copy(&[("a", 1), ("b", 2), ("d", 1)]),
            "file b changed; file c is new; file d is gone",
        );
        check(&copy(&[("a", 1)]), &copy(&[]), "the files it copies changed");
        let names: Vec<String> = (0..13).map(|n| format!("{n:02}")).collect();
        let many: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let text = compare(&copy(&many), Some(&copy(&[("x", 1)]))).to_string();
        assert!(text.starts_with("file 00 is new; ") && text.ends_with("file 09 is new; and 4 more files"), "{text}");
    }
}

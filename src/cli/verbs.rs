//! The table of verbs: what the first words of a command line may be.

use super::context::Context;
use super::error::Outcome;
use super::flags::{Flags, Parsed};
use super::{boot, build, container, generate, image, network, registry, system, volume};

/// One verb.
pub(super) struct Verb {
    /// All its names; the first is the one in messages (`run`, `container run`).
    pub(super) names: &'static [&'static str],
    /// Usage line without the program's name.
    pub(super) usage: &'static str,
    /// What it does, in one line.
    pub(super) about: &'static str,
    /// Least and largest number of arguments.
    pub(super) count: (usize, usize),
    /// Whether options may follow arguments; false for verbs whose arguments hold another program's options.
    pub(super) interspersed: bool,
    /// Declares its flags.
    pub(super) flags: fn(Flags) -> Flags,
    /// Carries it out and returns the exit code.
    pub(super) run: fn(&Context<'_>, Parsed) -> Outcome,
}

/// Any number of arguments.
pub(super) const ANY: usize = usize::MAX;

impl Verb {
    /// Returns the name used in messages.
    pub(super) fn name(&self) -> &'static str {
        self.names[0]
    }
}

/// Makes one verb; options may follow arguments.
pub(super) const fn verb(
    names: &'static [&'static str],
    usage: &'static str,
    about: &'static str,
    count: (usize, usize),
    flags: fn(Flags) -> Flags,
    run: fn(&Context<'_>, Parsed) -> Outcome,
) -> Verb {
    Verb { names, usage, about, count, interspersed: true, flags, run }
}

/// Nouns that verbs are grouped under.
pub(super) const NOUNS: [(&str, &str); 5] = [
    ("builder", "Manage builds"),
    ("container", "Manage containers"),
    ("image", "Manage images"),
    ("network", "Manage networks"),
    ("volume", "Manage volumes"),
];

/// Verbs of Docker's that are still to come, and what to do until then.
pub(super) const NOT_YET: [(&str, &str); 11] = [
    ("search", "registries' own pages find images; 'bulkhead pull' takes them in by name"),
    ("compose", "'bulkhead run --restart' starts each service"),
    ("cp", "'bulkhead exec NAME tar -c PATH' writes files out, 'bulkhead exec -i NAME tar -x' takes them in"),
    ("top", "'bulkhead exec NAME ps' shows what runs inside"),
    ("stats", "'bulkhead inspect --format {{.State.Pid}} NAME' names the process to look at"),
    ("events", "'bulkhead wait' and 'bulkhead logs -f' end with the container"),
    ("diff", "'bulkhead ps -s' shows how much a container wrote"),
    ("export", "'bulkhead commit' keeps a container's files as an image"),
    ("update", "'bulkhead commit' keeps its files; run it anew with other limits"),
    ("network create", "containers share the network 'bridge', or another's with --network container:NAME"),
    ("system", "'bulkhead info' shows this engine, 'bulkhead container prune' and 'bulkhead image prune' make room"),
];

/// Returns all verbs, in the order of the help.
pub(super) fn all() -> impl Iterator<Item = &'static Verb> {
    [
        container::VERBS,
        build::VERBS,
        image::VERBS,
        registry::VERBS,
        volume::VERBS,
        network::VERBS,
        boot::VERBS,
        system::VERBS,
        generate::VERBS,
    ]
    .into_iter()
    .flatten()
}

/// Finds a verb by one of its names.
pub(super) fn find(name: &str) -> Option<&'static Verb> {
    all().find(|verb| verb.names.contains(&name))
}

/// Finds the name most like a mistyped one, if any is near.
pub(super) fn near<'n>(mistyped: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let most = (mistyped.chars().count() / 3).max(1);
    names.map(|name| (distance(mistyped, name), name)).filter(|(far, _)| *far <= most).min().map(|(_, name)| name)
}

/// Counts the letters to insert, remove, replace or swap with their neighbour to turn one word into another.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(rows[i - 2][j - 2] + 1);
            }
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_flag_table_is_sound() {
        let mut seen = std::collections::HashSet::new();
        for verb in all() {
            for name in verb.names {
                assert!(seen.insert(name), "{name} is there twice");
            }
            crate::cli::flags::command(verb).debug_assert();
            let last = verb.name().split(' ').next_back().unwrap();
            assert!(verb.usage.starts_with(verb.name()) && verb.usage.contains(last), "{}", verb.usage);
        }
    }

    #[test]
    fn verbs_to_come_are_not_there_yet() {
        for (name, _) in NOT_YET {
            assert!(find(name).is_none() && find(&format!("container {name}")).is_none(), "{name} exists now");
        }
    }

    #[test]
    fn mistyped_verbs_find_their_neighbour() {
        let names = || all().flat_map(|verb| verb.names.iter().copied());
        assert_eq!(near("rnu", names()), Some("run"));
        assert_eq!(near("imags", names()), Some("images"));
        assert_eq!(near("frobnicate", names()), None);
    }
}

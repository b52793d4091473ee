//! The table of verbs: what the first words of a command line may be.

use super::context::Context;
use super::error::Outcome;
use super::flags::Parsed;
use clap::Command;

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
    pub(super) flags: fn(Command) -> Command,
    /// Carries it out and returns the exit code.
    pub(super) run: fn(&Context, Parsed) -> Outcome,
}

impl Verb {
    /// Returns the name used in messages.
    pub(super) fn name(&self) -> &'static str {
        self.names[0]
    }
}

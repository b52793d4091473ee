//! `--flag=value` words of an instruction.

use super::error::{DockerfileError, Position, Problem, nearest};
use super::parser::Node;

/// A flag as written.
struct Flag<'a> {
    name: &'a str,
    value: Option<&'a str>,
    at: Position,
}

/// The flags of one instruction, taken one after another.
pub(super) struct Flags<'a> {
    instruction: &'static str,
    given: Vec<Flag<'a>>,
    known: Vec<&'static str>,
    /// Where the flag taken last stands.
    pub(super) at: Position,
}

impl<'a> Flags<'a> {
    pub(super) fn new(instruction: &'static str, node: &'a Node) -> Self {
        let given = node.flags.iter().zip(&node.flags_at).map(|(word, at)| {
            let word = word.strip_prefix("--").unwrap_or(word);
            let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            Flag { name, value, at: *at }
        });
        Self { instruction, given: given.collect(), known: Vec::new(), at: node.at }
    }

    fn take(&mut self, name: &'static str) -> Vec<Flag<'a>> {
        self.known.push(name);
        let (taken, left) = std::mem::take(&mut self.given).into_iter().partition(|flag| flag.name == name);
        self.given = left;
        taken
    }

    fn once(&mut self, name: &'static str) -> Result<Option<Option<&'a str>>, DockerfileError> {
        let taken = self.take(name);
        if let Some(flag) = taken.last() {
            self.at = flag.at;
        }
        match taken.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one.value)),
            _ => Err(Problem::DuplicateFlag(name.into()).at(self.at)),
        }
    }

    /// A flag with a value, at most once.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<&'a str>, DockerfileError> {
        match self.once(name)? {
            Some(None) => Err(Problem::FlagWithoutValue(name.into()).at(self.at)),
            value => Ok(value.flatten()),
        }
    }

    /// A flag with a value, any number of times, each with its place.
    pub(super) fn texts(&mut self, name: &'static str) -> Result<Vec<(&'a str, Position)>, DockerfileError> {
        let value = |flag: Flag<'a>| {
            Ok((flag.value.ok_or_else(|| Problem::FlagWithoutValue(name.into()).at(flag.at))?, flag.at))
        };
        self.take(name).into_iter().map(value).collect()
    }

    /// A switch: `--link`, `--link=false`.
    pub(super) fn switch(&mut self, name: &'static str) -> Result<Option<bool>, DockerfileError> {
        match self.once(name)? {
            None => Ok(None),
            Some(None) => Ok(Some(true)),
            Some(Some(value)) => {
                parse_bool(value).map(Some).ok_or_else(|| self.bad(name, value, "it is true or false"))
            }
        }
    }

    /// An error about the value of the flag taken last.
    pub(super) fn bad(&self, flag: &str, value: &str, expected: &'static str) -> DockerfileError {
        Problem::FlagValue { flag: flag.into(), value: value.into(), expected }.at(self.at)
    }

    /// Refuses what was not taken.
    pub(super) fn finish(self) -> Result<(), DockerfileError> {
        match self.given.first() {
            None => Ok(()),
            Some(flag) => {
                let suggestion = nearest(flag.name, &self.known);
                Err(Problem::UnknownFlag { instruction: self.instruction, flag: flag.name.to_owned(), suggestion }
                    .at(flag.at))
            }
        }
    }
}

/// Reads a truth value as Go's `strconv.ParseBool` does.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

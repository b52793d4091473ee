//! `--flag=value` words of an instruction.

use super::error::{DockerfileError, Position, Problem, nearest};

/// The flags of one instruction, taken one after another.
pub(super) struct Flags<'a> {
    instruction: &'static str,
    at: Position,
    given: Vec<(&'a str, Option<&'a str>)>,
    known: Vec<&'static str>,
}

impl<'a> Flags<'a> {
    pub(super) fn new(instruction: &'static str, at: Position, words: &'a [String]) -> Self {
        let given = words
            .iter()
            .map(|word| {
                let word = word.strip_prefix("--").unwrap_or(word);
                word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)))
            })
            .collect();
        Self { instruction, at, given, known: Vec::new() }
    }

    fn take(&mut self, name: &'static str) -> Vec<Option<&'a str>> {
        self.known.push(name);
        let (taken, left) = std::mem::take(&mut self.given).into_iter().partition(|(n, _)| *n == name);
        self.given = left;
        Vec::into_iter(taken).map(|(_, value)| value).collect()
    }

    fn once(&mut self, name: &'static str) -> Result<Option<Option<&'a str>>, DockerfileError> {
        match self.take(name).as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
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

    /// A flag with a value, any number of times.
    pub(super) fn texts(&mut self, name: &'static str) -> Result<Vec<&'a str>, DockerfileError> {
        let at = self.at;
        self.take(name).into_iter().map(|value| value.ok_or_else(|| Problem::FlagWithoutValue(name.into()).at(at))).collect()
    }

    /// A switch: `--link`, `--link=false`.
    pub(super) fn switch(&mut self, name: &'static str) -> Result<Option<bool>, DockerfileError> {
        match self.once(name)? {
            None => Ok(None),
            Some(None) => Ok(Some(true)),
            Some(Some(value)) => parse_bool(value).map(Some).ok_or_else(|| self.bad(name, value, "it is true or false")),
        }
    }

    /// An error about the value of a flag.
    pub(super) fn bad(&self, flag: &str, value: &str, expected: &'static str) -> DockerfileError {
        Problem::FlagValue { flag: flag.into(), value: value.into(), expected }.at(self.at)
    }

    /// Refuses what was not taken.
    pub(super) fn finish(self) -> Result<(), DockerfileError> {
        match self.given.first() {
            None => Ok(()),
            Some((flag, _)) => {
                let suggestion = nearest(flag, &self.known);
                Err(Problem::UnknownFlag { instruction: self.instruction, flag: (*flag).to_owned(), suggestion }.at(self.at))
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

//! How flags are declared and read: `clap` underneath, the habits of Docker's flags on top.
//!
//! Switches take an optional `=true`/`=false`, a flag that wants a value takes the next word whatever it starts with,
//! the last one of a repeated flag counts, and for verbs that start programs options end at the first plain word.

use super::error::{Failure, exit};
use super::verbs::Verb;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::fmt::Display;

/// Id of the positional arguments of every verb.
const ARGUMENTS: &str = "ARGUMENTS";

/// Declares a switch.
pub(super) fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_name("bool")
        .help(help)
}

/// Declares a flag with one value; `kind` is the word shown in the help (`string`, `bytes`, `duration`).
pub(super) fn value(name: &'static str, kind: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).num_args(1).allow_hyphen_values(true).value_name(kind).help(help)
}

/// Declares a flag that may be given several times; each value counts.
pub(super) fn list(name: &'static str, help: &'static str) -> Arg {
    value(name, "list", help).action(ArgAction::Append)
}

/// Tells whether a flag was declared with [`switch`].
pub(super) fn is_switch(arg: &Arg) -> bool {
    arg.is_require_equals_set()
}

/// Builds the parser of one verb: its flags and its positional arguments, nothing of any other verb.
pub(super) fn command(verb: &'static Verb) -> Command {
    let mut command = Command::new(verb.name())
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args_override_self(true)
        .about(verb.about);
    command = (verb.flags)(command);
    let taken = command.get_arguments().any(|arg| arg.get_short() == Some('h'));
    let help = Arg::new("help").long("help").action(ArgAction::SetTrue).help("Print usage");
    command = command.arg(if taken { help } else { help.short('h') });
    // One list for all positional arguments: with `trailing_var_arg` the first of them ends the options.
    command.arg(Arg::new(ARGUMENTS).num_args(0..).trailing_var_arg(!verb.interspersed).hide(true))
}

/// The flags and arguments one verb was called with.
pub(super) struct Parsed {
    verb: &'static Verb,
    matches: ArgMatches,
    /// The positional arguments.
    pub(super) arguments: Vec<String>,
}

/// Reads the words after a verb; `Ok(None)` means `--help` was asked for.
///
/// # Errors
/// Exit code 125 for flags that are unknown or badly used, 1 for too many or too few arguments.
pub(super) fn parse(verb: &'static Verb, words: Vec<String>) -> Result<Option<Parsed>, Failure> {
    let mut matches = command(verb).try_get_matches_from(words).map_err(|error| refused(verb, &error))?;
    if matches.get_flag("help") {
        return Ok(None);
    }
    let arguments: Vec<String> = matches.remove_many(ARGUMENTS).map(Iterator::collect).unwrap_or_default();
    let parsed = Parsed { verb, matches, arguments };
    parsed.count_arguments(verb.count)?;
    Ok(Some(parsed))
}

impl Parsed {
    /// Refuses fewer arguments than `least`, for verbs where that depends on flags.
    ///
    /// # Errors
    /// Exit code 1.
    pub(super) fn require_arguments(&self, least: usize) -> Result<(), Failure> {
        self.count_arguments((least, self.verb.count.1))
    }

    fn count_arguments(&self, (least, most): (usize, usize)) -> Result<(), Failure> {
        let (verb, count) = (self.verb, self.arguments.len());
        if (least..=most).contains(&count) {
            return Ok(());
        }
        let wanted = match (least, most) {
            (0, 0) => "accepts no arguments".to_owned(),
            (a, b) if a == b => format!("requires {a} argument{}", if a == 1 { "" } else { "s" }),
            (a, usize::MAX) => format!("requires at least {a} argument{}", if a == 1 { "" } else { "s" }),
            (0, b) => format!("requires at most {b} argument{}", if b == 1 { "" } else { "s" }),
            (a, b) => format!("requires {a} to {b} arguments"),
        };
        Err(Failure::new(exit::FAILED, format!("'bulkhead {}' {wanted}", verb.name()))
            .hint(format!("usage: bulkhead {}", verb.usage)))
    }

    /// Tells whether a switch is on.
    ///
    /// # Errors
    /// When it was given a value that is no truth value.
    pub(super) fn switch(&self, name: &str) -> Result<bool, Failure> {
        let Some(text) = self.text(name) else { return Ok(false) };
        match text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
            _ => Err(self.invalid(name, text, "not a truth value: true or false")),
        }
    }

    /// Tells whether a flag was given at all.
    pub(super) fn given(&self, name: &str) -> bool {
        self.matches.contains_id(name)
    }

    /// Returns the value of a flag.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.matches.get_one::<String>(name).map(String::as_str)
    }

    /// Returns the value of a flag, `None` also when it is empty.
    pub(super) fn filled(&self, name: &str) -> Option<String> {
        self.text(name).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// Returns all values of a repeatable flag, in order.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.matches.get_many::<String>(name).into_iter().flatten().map(String::as_str)
    }

    /// Returns the position of each value of a repeatable flag among all words, to keep the order of different flags.
    pub(super) fn placed(&self, name: &str) -> impl Iterator<Item = (usize, &str)> {
        self.matches.indices_of(name).into_iter().flatten().zip(self.all(name))
    }

    /// Reads the value of a flag with a parser; empty is as if not given.
    ///
    /// # Errors
    /// In Docker's words: `invalid argument "x" for "-m, --memory" flag: ...`.
    pub(super) fn read<T, E: Display>(
        &self,
        name: &str,
        parser: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Failure> {
        match self.text(name) {
            None | Some("") => Ok(None),
            Some(text) => parser(text).map(Some).map_err(|error| self.invalid(name, text, error)),
        }
    }

    /// Reads all values of a repeatable flag with a parser that may give several results each.
    ///
    /// # Errors
    /// As [`Parsed::read`].
    pub(super) fn read_all<T, E: Display>(
        &self,
        name: &str,
        parser: impl Fn(&str) -> Result<Vec<T>, E>,
    ) -> Result<Vec<T>, Failure> {
        let mut results = Vec::new();
        for text in self.all(name) {
            results.extend(parser(text).map_err(|error| self.invalid(name, text, error))?);
        }
        Ok(results)
    }

    /// Returns the failure for a value that a flag cannot have.
    pub(super) fn invalid(&self, name: &str, text: &str, why: impl Display) -> Failure {
        let short = command(self.verb).get_arguments().find(|arg| arg.get_id() == name).and_then(Arg::get_short);
        let flag = short.map_or_else(|| format!("--{name}"), |short| format!("-{short}, --{name}"));
        Failure::new(exit::USAGE, format!("invalid argument {text:?} for {flag:?} flag: {why}"))
            .hint(see_help(self.verb))
    }

    /// Returns the failure for flags that exclude each other.
    pub(super) fn conflict(&self, message: impl Into<String>) -> Failure {
        Failure::new(exit::USAGE, message).hint(see_help(self.verb))
    }
}

fn see_help(verb: &Verb) -> String {
    format!("'bulkhead {} --help' lists the flags", verb.name())
}

/// Says in Docker's words why the words after a verb were refused.
fn refused(verb: &'static Verb, error: &clap::Error) -> Failure {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let word = context(ContextKind::InvalidArg).unwrap_or_default();
    let bare = word.split([' ', '=', '[']).next().unwrap_or_default();
    let message = match error.kind() {
        ErrorKind::UnknownArgument if bare.starts_with("--") => format!("unknown flag: {bare}"),
        ErrorKind::UnknownArgument if bare.len() > 1 && bare.starts_with('-') => {
            format!("unknown shorthand flag: '{}' in {bare}", bare.chars().nth(1).unwrap_or('-'))
        }
        // A switch is only ever short of nothing, so what lacks a value is a flag with one.
        ErrorKind::InvalidValue | ErrorKind::WrongNumberOfValues | ErrorKind::TooFewValues => {
            format!("flag needs an argument: {bare}")
        }
        ErrorKind::InvalidUtf8 => "an argument is not valid UTF-8".to_owned(),
        _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    };
    let hint = match context(ContextKind::SuggestedArg) {
        Some(near) => {
            format!("did you mean '{}'? {}", near.split([' ', '=', '[']).next().unwrap_or_default(), see_help(verb))
        }
        None => see_help(verb),
    };
    Failure::new(exit::USAGE, message).hint(hint)
}

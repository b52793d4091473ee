//! How flags are declared and read, with the habits of Docker's flags.
//!
//! Switches take an optional `=true`/`=false`, a flag that wants a value takes the next word whatever it starts with,
//! the last one of a repeated flag counts, and for verbs that start programs options end at the first plain word.

use super::error::{Failure, exit};
use super::verbs::Verb;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};
use std::fmt::Display;

/// Id of the positional arguments of every verb.
pub(super) const ARGUMENTS: &str = "ARGUMENTS";
/// Room for the flags of the verb that has most.
const MOST_FLAGS: usize = 100;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Nothing, or a truth value after `=`.
    Switch,
    /// One value; the last one counts.
    Value,
    /// One value each time; all count.
    List,
}

/// One flag, as a verb declares it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag {
    /// Its long name.
    pub(super) name: &'static str,
    /// Its letter.
    pub(super) short: Option<char>,
    /// Another long name, which the help leaves out.
    pub(super) alias: Option<&'static str>,
    /// What it takes.
    pub(super) form: Form,
    /// Word for its value in the help (`string`, `bytes`, `duration`).
    pub(super) kind: &'static str,
    /// What it does, in one line.
    pub(super) help: &'static str,
    /// Whether the help leaves it out.
    pub(super) hidden: bool,
}

impl Flag {
    const fn new(name: &'static str, form: Form, kind: &'static str, help: &'static str) -> Self {
        Self { name, short: None, alias: None, form, kind, help, hidden: false }
    }

    /// Gives it a letter.
    pub(super) const fn short(self, letter: char) -> Self {
        Self { short: Some(letter), ..self }
    }

    /// Gives it another long name.
    pub(super) const fn alias(self, name: &'static str) -> Self {
        Self { alias: Some(name), ..self }
    }

    /// Leaves it out of the help.
    pub(super) const fn hide(self, hidden: bool) -> Self {
        Self { hidden, ..self }
    }

    /// Describes it to clap.
    fn arg(&self) -> Arg {
        let arg = Arg::new(self.name).long(self.name).value_name(self.kind).help(self.help).hide(self.hidden);
        let arg = match self.form {
            Form::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            Form::Value => arg.num_args(1).allow_hyphen_values(true),
            Form::List => arg.num_args(1).allow_hyphen_values(true).action(ArgAction::Append),
        };
        let arg = match self.short {
            Some(letter) => arg.short(letter),
            None => arg,
        };
        match self.alias {
            Some(name) => arg.alias(name),
            None => arg,
        }
    }
}

/// The flags of a verb, in the order of their declaration.
#[derive(Debug)]
pub(super) struct Flags(Vec<Flag>);

impl Flags {
    /// Collects the flags that a verb declares.
    pub(super) fn of(verb: &Verb) -> Self {
        (verb.flags)(Self(Vec::with_capacity(MOST_FLAGS)))
    }

    /// Declares one more.
    pub(super) fn arg(mut self, flag: Flag) -> Self {
        self.0.push(flag);
        self
    }
}

impl std::ops::Deref for Flags {
    type Target = [Flag];
    fn deref(&self) -> &[Flag] {
        &self.0
    }
}

/// Declares a switch.
pub(super) const fn switch(name: &'static str, help: &'static str) -> Flag {
    Flag::new(name, Form::Switch, "bool", help)
}

/// Declares a flag with one value; `kind` is the word shown in the help (`string`, `bytes`, `duration`).
pub(super) const fn value(name: &'static str, kind: &'static str, help: &'static str) -> Flag {
    Flag::new(name, Form::Value, kind, help)
}

/// Declares a flag that may be given several times; each value counts.
pub(super) const fn list(name: &'static str, help: &'static str) -> Flag {
    Flag::new(name, Form::List, "list", help)
}

/// Tells whether a flag was declared with [`switch`].
pub(super) fn is_switch(arg: &Arg) -> bool {
    arg.is_require_equals_set()
}

/// Builds clap's parser of one verb: its flags and its positional arguments, nothing of any other verb.
pub(super) fn command(verb: &'static Verb) -> Command {
    let flags = Flags::of(verb);
    let help = Arg::new("help").long("help").action(ArgAction::SetTrue).help("Print usage");
    let taken = flags.iter().any(|flag| flag.short == Some('h'));
    Command::new(verb.name())
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args_override_self(true)
        .about(verb.about)
        .args(flags.iter().map(Flag::arg))
        .arg(if taken { help } else { help.short('h') })
        // One list for all positional arguments: with `trailing_var_arg` the first of them ends the options.
        .arg(Arg::new(ARGUMENTS).num_args(0..).trailing_var_arg(!verb.interspersed).hide(true))
}

/// The flags and arguments one verb was called with.
pub(super) struct Parsed {
    verb: &'static Verb,
    flags: Flags,
    /// The values of flags: place among all words, position in `flags`, text.
    values: Vec<(usize, usize, String)>,
    /// The positional arguments.
    pub(super) arguments: Vec<String>,
}

/// Reads the words after a verb; `Ok(None)` means `--help` was asked for.
///
/// # Errors
/// Exit code 125 for flags that are unknown or badly used, 1 for too many or too few arguments.
pub(super) fn parse(verb: &'static Verb, words: Vec<String>) -> Result<Option<Parsed>, Failure> {
    let flags = Flags::of(verb);
    let mut matches = command(verb).try_get_matches_from(words).map_err(|error| refused(verb, &error))?;
    if matches.get_flag("help") {
        return Ok(None);
    }
    let arguments = matches.remove_many(ARGUMENTS).map(Iterator::collect).unwrap_or_default();
    let mut values = Vec::new();
    for (number, flag) in flags.iter().enumerate() {
        let places = matches.indices_of(flag.name).into_iter().flatten();
        let texts = matches.get_many::<String>(flag.name).into_iter().flatten().cloned();
        values.extend(places.zip(texts).map(|(place, text)| (place, number, text)));
    }
    values.sort();
    let parsed = Parsed { verb, flags, values, arguments };
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
        self.placed(name).next().is_some()
    }

    /// Returns the value of a flag.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.placed(name).last().map(|(_, text)| text)
    }

    /// Returns the value of a flag, `None` also when it is empty.
    pub(super) fn filled(&self, name: &str) -> Option<String> {
        self.text(name).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// Returns all values of a repeatable flag, in order.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.placed(name).map(|(_, text)| text)
    }

    /// Returns the position of each value of a repeatable flag among all words, to keep the order of different flags.
    pub(super) fn placed(&self, name: &str) -> impl Iterator<Item = (usize, &str)> {
        debug_assert!(self.flags.iter().any(|flag| flag.name == name), "{} declares no --{name}", self.verb.name());
        let of_flag = move |(_, flag, _): &&(usize, usize, String)| self.flags[*flag].name == name;
        self.values.iter().filter(of_flag).map(|(place, _, text)| (*place, text.as_str()))
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
        let short = self.flags.iter().find(|flag| flag.name == name).and_then(|flag| flag.short);
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

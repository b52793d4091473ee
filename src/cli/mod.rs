//! The command line: one file per noun, tables, `--format`, progress; the only floor that prints.
//!
//! Parsing does no work: flags become a request, and the engine is asked to carry it out. Only the parser of the verb
//! that was called is built. stdout is data, stderr is talk; failures become exit codes here and nowhere else.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this floor is the one that prints")]

mod boot;
mod build;
mod container;
mod context;
mod detach;
mod error;
mod flags;
mod format;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod generate;
mod help;
mod image;
mod inspect;
mod network;
mod progress;
mod registry;
mod system;
mod table;
mod template;
mod terminal;
mod time;
mod verbs;
mod volume;

pub use context::Launcher;

use context::{Context, complain, out};
use error::{Failure, Outcome, exit};
use std::path::PathBuf;
use std::process::ExitCode;

/// First word of the command that takes down what a container held; the shim starts it.
const CLEANUP: &str = "_cleanup";

/// What a start of our binary is going to do, as far as `main` must know before anything is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It becomes a shim.
    Shim,
    /// It starts one container.
    OneContainer,
    /// It may start several.
    Containers,
    /// It starts none.
    Plain,
}

/// Reads from the words of the command line what this start is going to do.
pub fn start() -> Start {
    #[cfg(debug_assertions)]
    arm_fault();
    start_of(std::env::args_os().skip(1))
}

/// Plans the fault that a test asks for (see [`crate::sys::fault`]); the programs that are shipped have none.
#[cfg(debug_assertions)]
fn arm_fault() {
    use crate::sys::fault::{Fault, arm};
    let wanted = std::env::var("BULKHEAD_FAULT").ok();
    let counts = std::env::var_os("BULKHEAD_FAULT_COUNTS");
    if wanted.is_none() && counts.is_none() {
        return;
    }
    let fault =
        wanted.map(|text| Fault::parse(&text).expect("BULKHEAD_FAULT=POINT[:N][:kill|nospace|io] names a point"));
    let open = |path| std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let counts = counts.map(|path| open(path).expect("BULKHEAD_FAULT_COUNTS names a file that can be written"));
    arm(fault, counts.as_ref()).expect("memory that forks share");
}

fn start_of(words: impl Iterator<Item = std::ffi::OsString>) -> Start {
    let mut words = words.filter_map(|word| word.into_string().ok());
    while let Some(word) = words.next() {
        match word.as_str() {
            "--root" | "--run" => drop(words.next()),
            "container" | "image" | "builder" => {}
            "shim" => return Start::Shim,
            "run" => return Start::OneContainer,
            "start" | "restart" | "build" => return Start::Containers,
            flag if flag.starts_with('-') => {}
            _ => return Start::Plain,
        }
    }
    Start::Plain
}

/// Runs the command line of this process; `launcher` makes shims, the first of them from the seed that `main` forked.
pub fn main(launcher: Launcher<'_>) -> ExitCode {
    let words: Result<Vec<String>, _> = std::env::args_os().skip(1).map(std::ffi::OsString::into_string).collect();
    let result = match words {
        Ok(words) => dispatch(words, launcher),
        Err(word) => {
            Err(Failure::new(exit::USAGE, format!("an argument is not valid UTF-8: {}", word.to_string_lossy())))
        }
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            complain(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// What the words before the verb say.
#[derive(Debug, Default, PartialEq)]
struct Globals {
    root: Option<PathBuf>,
    run: Option<PathBuf>,
    help: bool,
    version: bool,
}

impl Globals {
    /// Takes the global flags from the front of the words.
    fn take(words: &mut std::collections::VecDeque<String>) -> Result<Self, Failure> {
        let mut globals = Self::default();
        while let Some(word) = words.front().filter(|word| word.starts_with('-')).cloned() {
            words.pop_front();
            let (name, value) =
                word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value.to_owned())));
            match name {
                "--root" | "--run" => {
                    let value = value.or_else(|| words.pop_front());
                    let value =
                        value.ok_or_else(|| Failure::new(exit::USAGE, format!("flag needs an argument: {name}")))?;
                    *(if name == "--root" { &mut globals.root } else { &mut globals.run }) = Some(value.into());
                }
                "--help" | "-h" => globals.help = true,
                "--version" | "-v" => globals.version = true,
                _ => {
                    let kind = if name.starts_with("--") { "unknown flag" } else { "unknown shorthand flag" };
                    return Err(Failure::new(exit::USAGE, format!("{kind}: {name}"))
                        .hint("'bulkhead --help' lists the flags that stand before the command"));
                }
            }
        }
        Ok(globals)
    }
}

/// Finds the verb of the words and runs it.
fn dispatch(words: Vec<String>, launcher: Launcher<'_>) -> Outcome {
    let mut words = std::collections::VecDeque::from(words);
    let globals = Globals::take(&mut words)?;
    if globals.version {
        out(format!("bulkhead version {}\n", env!("CARGO_PKG_VERSION")))?;
        return Ok(0);
    }
    let mut first = words.pop_front().unwrap_or_default();
    let asks_help = globals.help || first.is_empty() || first == "help";
    if first == "help" {
        first = words.pop_front().unwrap_or_default();
    }
    if first.is_empty() {
        out(help::of_program())?;
        return Ok(0);
    }
    if first == CLEANUP {
        return clean_up(globals, words.into(), launcher);
    }
    if let Some((noun, about)) = verbs::NOUNS.into_iter().find(|(noun, _)| *noun == first) {
        match words.pop_front() {
            Some(second) if !second.starts_with('-') => first = format!("{noun} {second}"),
            Some(flag) if flag != "--help" && flag != "-h" => {
                return Err(Failure::new(exit::USAGE, format!("unknown flag: {flag}"))
                    .hint(format!("'bulkhead {noun} --help' lists its commands")));
            }
            _ => {
                out(help::of_noun(noun, about))?;
                return Ok(0);
            }
        }
    } else if first == "system" && words.front().is_some_and(|word| word == "info") {
        words.pop_front();
        first = "info".to_owned();
    }
    let Some(verb) = verbs::find(&first) else { return Err(unknown(&first)) };
    if asks_help {
        out(help::of_verb(verb))?;
        return Ok(0);
    }
    match flags::parse(verb, words.into())? {
        Some(parsed) => {
            let context = Context::new(globals.root, globals.run, launcher);
            (verb.run)(&context, parsed).map_err(|failure| failure.name_full_disk(context.paths()))
        }
        None => {
            out(help::of_verb(verb))?;
            Ok(0)
        }
    }
}

fn unknown(name: &str) -> Failure {
    let names =
        verbs::all().flat_map(|verb| verb.names.iter().copied()).chain(verbs::NOUNS.into_iter().map(|(noun, _)| noun));
    let failure = Failure::failed(format!("bulkhead: '{name}' is not a bulkhead command"));
    let first = name.split(' ').next_back().unwrap_or_default();
    if let Some((_, instead)) = verbs::NOT_YET.into_iter().find(|(verb, _)| *verb == name || *verb == first) {
        return failure.hint(format!("it does not exist yet; {instead}"));
    }
    match verbs::near(name, names) {
        Some(near) => failure.hint(format!("did you mean 'bulkhead {near}'?")),
        None => failure.hint("'bulkhead --help' lists the commands"),
    }
}

/// `--root DIR --run DIR _cleanup ID`: started by a shim after its container has ended.
fn clean_up(globals: Globals, ids: Vec<String>, launcher: Launcher<'_>) -> Outcome {
    let engine = Context::new(globals.root, globals.run, launcher).engine()?;
    for id in ids {
        let id = id.try_into().map_err(|error: crate::base::IdError| Failure::failed(error.to_string()))?;
        engine.finish(&id)?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str]) -> Failure {
        let launcher: Launcher<'_> = &mut || Err(crate::shim::ShimError::Refused("no shim in this test".to_owned()));
        dispatch(words.iter().map(|word| (*word).to_owned()).collect(), launcher).expect_err("these lines are refused")
    }

    #[test]
    fn unknown_verbs_have_code_1_and_a_neighbour() {
        for (words, near) in [
            (&["rnu", "x"][..], "did you mean 'bulkhead run'?"),
            (&["image", "lss"], "did you mean 'bulkhead image ls'?"),
            (&["volum"], "did you mean 'bulkhead volume'?"),
            (&["frobnicate"], "'bulkhead --help' lists the commands"),
        ] {
            let failure = run(words);
            assert_eq!(failure.exit_code(), 1, "{words:?}");
            let text = failure.render(false);
            assert!(text.contains("is not a bulkhead command") && text.contains(near), "{text}");
        }
    }

    #[test]
    fn bad_flags_have_code_125_wherever_they_stand() {
        for words in [
            &["--foo", "ps"][..],
            &["ps", "--foo"],
            &["container", "--foo"],
            &["--root"],
            &["run", "--name"],
            &["ps", "-Z"],
        ] {
            assert_eq!(run(words).exit_code(), 125, "{words:?}");
        }
        for words in [&["ps", "extra"][..], &["logs"], &["rename", "a"], &["run"]] {
            assert_eq!(run(words).exit_code(), 1, "{words:?}");
        }
    }

    #[test]
    fn global_flags_end_at_the_verb() {
        let mut words = ["--root", "/a", "--run=/b", "run", "--root"].map(str::to_owned).to_vec().into();
        let globals = Globals::take(&mut words).unwrap();
        assert_eq!(globals, Globals { root: Some("/a".into()), run: Some("/b".into()), help: false, version: false });
        assert_eq!(words, ["run", "--root"]);
    }
}

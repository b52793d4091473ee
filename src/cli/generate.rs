//! `completion` and `man`: made from the same flag tables the parser uses; in bash, names are completed, too.

use super::context::{Context, out};
use super::error::{Failure, Outcome, exit};
use super::flags::{self, Parsed, is_switch};
use super::verbs::{NOUNS, Verb, all};
use clap::{Arg, ArgAction, Command};
use std::io::Write;
use std::path::Path;

/// Completes, in bash, what the parser does not know: the names of what there is. Asks [`switches_in_bash`].
const NAMES_IN_BASH: &str = include_str!("names.bash");

/// The verbs of this file.
pub(super) static VERBS: &[Verb] = &[
    Verb {
        names: &["completion"],
        usage: "completion bash|zsh|fish",
        about: "Print the completion script of a shell",
        count: (1, 1),
        interspersed: true,
        flags: |flags| flags,
        run: completion,
    },
    Verb {
        names: &["man"],
        usage: "man DIRECTORY",
        about: "Write the manual pages into a directory",
        count: (1, 1),
        interspersed: true,
        flags: |flags| flags,
        run: manual,
    },
];

/// Turns a verb's parser into one that describes it: switches without values, no list of all arguments.
fn described(verb: &'static Verb, name: &'static str) -> Command {
    flags::command(verb).name(name).no_binary_name(false).mut_args(|arg: Arg| {
        if is_switch(&arg) {
            arg.num_args(0).require_equals(false).default_missing_value(None::<&str>).action(ArgAction::SetTrue)
        } else {
            arg
        }
    })
}

/// Builds the whole tree.
fn tree() -> Command {
    let mut program = Command::new("bulkhead")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Runs Dockerfile workloads in sandboxes, without a daemon")
        .disable_help_subcommand(true)
        .arg(Arg::new("root").long("root").value_name("DIR").help("Directory for what survives a reboot"))
        .arg(Arg::new("run").long("run").value_name("DIR").help("Directory for what dies with the boot"));
    let mut nouns: Vec<Command> =
        NOUNS.into_iter().map(|(noun, about)| Command::new(noun).about(about).disable_help_subcommand(true)).collect();
    for verb in all() {
        for name in verb.names {
            match name.split_once(' ') {
                None => program = program.subcommand(described(verb, name)),
                Some((noun, name)) => {
                    if let Some(known) = nouns.iter_mut().find(|command| command.get_name() == noun) {
                        *known = std::mem::take(known).subcommand(described(verb, name));
                    }
                }
            }
        }
    }
    program.subcommands(nouns)
}

/// Returns the function of the bash script that tells which flags of a verb take no value: behind these, names are meant.
fn switches_in_bash() -> String {
    let mut script = "\n_bulkhead_switches() {\n    case $1 in\n".to_owned();
    for verb in all() {
        let command = flags::command(verb);
        let switches = || command.get_arguments().filter(|arg| is_switch(arg));
        let letters: String = switches().filter_map(Arg::get_short).collect();
        let words: Vec<String> = switches().filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect();
        let names: Vec<String> = verb.names.iter().map(|name| format!("'{name}'")).collect();
        if !words.is_empty() {
            let (names, words) = (names.join(" | "), words.join(" "));
            script += &format!("        {names}) letters='{letters}' words='{words}' ;;\n");
        }
    }
    script + "    esac\n}\n"
}

fn completion(_: &Context<'_>, parsed: Parsed) -> Outcome {
    let shell = match parsed.arguments[0].as_str() {
        "bash" => clap_complete::Shell::Bash,
        "zsh" => clap_complete::Shell::Zsh,
        "fish" => clap_complete::Shell::Fish,
        other => {
            return Err(Failure::new(exit::USAGE, format!("unknown shell {other:?}; known are bash, zsh and fish")));
        }
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut tree(), "bulkhead", &mut script);
    out(script)?;
    if shell == clap_complete::Shell::Bash {
        out(switches_in_bash())?;
        out(NAMES_IN_BASH)?;
    }
    Ok(0)
}

fn manual(_: &Context<'_>, parsed: Parsed) -> Outcome {
    let directory = Path::new(&parsed.arguments[0]);
    write_pages(directory)?;
    Ok(0)
}

fn write_pages(directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(tree(), directory)?;
    for verb in all() {
        let arguments = verb.usage.strip_prefix(verb.name()).unwrap_or_default();
        for name in verb.names {
            let path = directory.join(format!("bulkhead-{}.1", name.replace(' ', "-")));
            // A name below a noun that is not there yet (`system info`) has no page.
            let page = match std::fs::read_to_string(&path) {
                Ok(page) => with_usage(&page, name, arguments),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            std::fs::File::create(&path)?.write_all(page.as_bytes())?;
        }
    }
    Ok(())
}

/// Puts the usage as `--help` says it in the place of a list of all flags without the arguments.
fn with_usage(page: &str, name: &str, arguments: &str) -> String {
    let mut lines: Vec<String> = page.lines().map(str::to_owned).collect();
    if let Some(heading) = lines.iter().position(|line| line == ".SH SYNOPSIS")
        && let Some(line) = lines.get_mut(heading + 1)
    {
        *line = format!("\\fBbulkhead {name}\\fR{arguments}").replace('-', "\\-");
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_know_verbs_and_flags() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut tree(), "bulkhead", &mut script);
            let text = String::from_utf8(script).unwrap();
            for word in ["publish-all", "no-trunc", "container", "volume"] {
                assert!(text.contains(word), "{shell}: {word}");
            }
        }
    }

    #[test]
    fn bash_knows_which_flags_of_a_verb_take_no_value() {
        let script = switches_in_bash();
        let line = |name: &str| script.lines().find(|line| line.contains(&format!("'{name}'"))).unwrap().to_owned();
        assert!(line("logs").contains(" letters='ft' ") && line("logs").contains("--follow"), "{}", line("logs"));
        assert_eq!(line("rm"), line("container rm"));
        // `run -a` takes a stream, `build -f` a file.
        assert!(!line("run").contains("a' words=") && !line("run").contains("--attach"), "{}", line("run"));
        assert!(!line("build").contains("--file"), "{}", line("build"));
        for verb in all() {
            for arg in flags::command(verb).get_arguments().filter(|arg| is_switch(arg)) {
                let long = arg.get_long().unwrap();
                assert!(verb.names.iter().all(|name| line(name).contains(&format!("--{long}"))), "{long}");
            }
        }
    }

    #[test]
    fn every_verb_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        write_pages(directory.path()).unwrap();
        let page = std::fs::read_to_string(directory.path().join("bulkhead-run.1")).unwrap();
        assert!(page.contains("read\\-only"), "{page}");
        let usage = "\n.SH SYNOPSIS\n\\fBbulkhead run\\fR [OPTIONS] IMAGE [COMMAND] [ARG...]\n.SH ";
        assert!(page.contains(usage), "{page}");
        assert!(directory.path().join("bulkhead-container-ls.1").exists());
    }
}

//! `--help` in the layout Docker's users know.

use super::flags::{command, is_switch};
use super::verbs::{NOUNS, Verb, all};
use std::fmt::Write as _;

/// Widest help column of flags.
const COLUMN: usize = 36;

/// Returns the help of a verb.
pub(super) fn of_verb(verb: &'static Verb) -> String {
    let mut text = format!("Usage:  bulkhead {}\n\n{}\n", verb.usage, verb.about);
    if verb.names.len() > 1 {
        let names: Vec<String> = verb.names.iter().map(|name| format!("bulkhead {name}")).collect();
        let _ = write!(text, "\nAliases:\n  {}\n", names.join(", "));
    }
    text.push_str("\nOptions:\n");
    let command = command(verb);
    let mut flags: Vec<_> = command.get_arguments().filter(|arg| !arg.is_hide_set()).collect();
    flags.sort_by_key(|arg| arg.get_id().as_str());
    for flag in flags {
        let short = flag.get_short().map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
        let kind = match flag.get_value_names() {
            Some([kind]) if !is_switch(flag) && flag.get_action().takes_values() => format!(" {kind}"),
            _ => String::new(),
        };
        let left = format!("  {short}--{}{kind}", flag.get_id());
        let about = flag.get_help().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(text, "{left:<COLUMN$} {about}");
    }
    text
}

fn rows<'a>(text: &mut String, rows: impl Iterator<Item = (&'a str, &'a str)>) {
    for (name, about) in rows {
        let _ = writeln!(text, "  {name:<11} {about}");
    }
}

/// Returns the help of a noun (`bulkhead container`).
pub(super) fn of_noun(noun: &str, about: &str) -> String {
    let mut text = format!("Usage:  bulkhead {noun} COMMAND\n\n{about}\n\nCommands:\n");
    let mut verbs: Vec<(&str, &str)> = all()
        .filter_map(|verb| {
            let mut names = verb.names.iter().filter_map(|name| name.strip_prefix(noun)?.strip_prefix(' '));
            names.next().map(|name| (name, verb.about))
        })
        .collect();
    verbs.sort_unstable();
    rows(&mut text, verbs.into_iter());
    let _ = write!(text, "\nRun 'bulkhead {noun} COMMAND --help' for more information on a command.\n");
    text
}

/// Returns the help of the program.
pub(super) fn of_program() -> String {
    let mut text =
        "Usage:  bulkhead [OPTIONS] COMMAND\n\nRuns Dockerfile workloads in sandboxes, without a daemon\n\nCommands:\n"
            .to_owned();
    let mut verbs: Vec<(&str, &str)> =
        all().filter(|verb| !verb.name().contains(' ')).map(|verb| (verb.name(), verb.about)).collect();
    verbs.sort_unstable();
    rows(&mut text, verbs.into_iter());
    text.push_str("\nManagement Commands:\n");
    rows(&mut text, NOUNS.into_iter());
    text.push_str(
        "\nGlobal Options:\n      --root DIR    Directory for what survives a reboot (BULKHEAD_ROOT)\n      \
         --run DIR     Directory for what dies with the boot (BULKHEAD_RUN)\n  -v, --version     Print version information and quit\n\n\
         Run 'bulkhead COMMAND --help' for more information on a command.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::verbs::find;

    #[test]
    fn the_help_of_run_lists_flags_in_dockers_layout() {
        let text = of_verb(find("run").unwrap());
        assert!(text.starts_with(
            "Usage:  bulkhead run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nCreate and run a new container from an image\n"
        ));
        for line in [
            "  -d, --detach                       Run container in background and print container ID\n",
            "      --rm                           Automatically remove",
            "  -e, --env list                     Set environment variables (NAME=VALUE, or NAME for the caller's value)\n",
            "Aliases:\n  bulkhead run, bulkhead container run\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn every_verb_stands_in_the_help_of_the_program_or_of_its_noun() {
        let program = of_program();
        for verb in all() {
            match verb.name().split_once(' ') {
                None => assert!(program.contains(verb.about), "{}", verb.name()),
                Some((noun, _)) => assert!(of_noun(noun, "").contains(verb.about), "{}", verb.name()),
            }
        }
    }
}

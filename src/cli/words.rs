//! Reads the words after a verb by its flags.

use super::flags::{Flag, Form};

/// What the words after a verb say.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Words {
    /// The values of flags in the order of the words: place among all words, position among the flags, text; `true` for a
    /// switch without one.
    pub(super) values: Vec<(usize, usize, String)>,
    /// The positional arguments.
    pub(super) arguments: Vec<String>,
    /// Whether `--help` is among them.
    pub(super) help: bool,
}

/// Reads the words after a verb; `None` when they name a flag that is not there, or use one badly.
///
/// `interspersed` is whether options may follow arguments; `--` ends them in any case. `-h` asks for help unless a flag
/// has that letter.
pub(super) fn read(flags: &[Flag], interspersed: bool, words: &[String]) -> Option<Words> {
    let mut read = Words::default();
    let mut rest = words.iter().enumerate();
    let mut options = true;
    while let Some((place, word)) = rest.next() {
        if !options || word == "-" || !word.starts_with('-') {
            read.arguments.push(word.clone());
            options &= interspersed;
        } else if word == "--" {
            options = false;
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            let Some(flag) = flags.iter().position(|flag| flag.name == name || flag.alias == Some(name)) else {
                if (name, value) != ("help", None) {
                    return None;
                }
                read.help = true;
                continue;
            };
            let (place, text) = match (value, flags[flag].form) {
                (Some(value), _) => (place, value),
                (None, Form::Switch) => (place, "true"),
                (None, Form::Value | Form::List) => rest.next().map(|(place, next)| (place, next.as_str()))?,
            };
            read.values.push((place, flag, text.to_owned()));
        } else {
            let mut letters = word[1..].chars();
            while let Some(letter) = letters.next() {
                let Some(flag) = flags.iter().position(|flag| flag.short == Some(letter)) else {
                    if letter != 'h' {
                        return None;
                    }
                    read.help = true;
                    continue;
                };
                let attached = letters.as_str().strip_prefix('=');
                let (place, text) = match (attached, flags[flag].form) {
                    (Some(value), _) => (place, value),
                    (None, Form::Switch) => {
                        read.values.push((place, flag, "true".to_owned()));
                        continue;
                    }
                    (None, _) if letters.as_str().is_empty() => {
                        rest.next().map(|(place, next)| (place, next.as_str()))?
                    }
                    (None, _) => (place, letters.as_str()),
                };
                read.values.push((place, flag, text.to_owned()));
                break;
            }
        }
    }
    Some(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags::{ARGUMENTS, Flags, command};
    use crate::cli::verbs::{Verb, all};
    use clap::ArgMatches;
    use proptest::prelude::*;

    /// Reads the words with clap's parser of the verb, the model.
    fn model(verb: &'static Verb, flags: &[Flag], words: &[String]) -> Option<Words> {
        let mut matches: ArgMatches = command(verb).try_get_matches_from(words).ok()?;
        let help = matches.get_flag("help");
        let arguments = matches.remove_many(ARGUMENTS).map(Iterator::collect).unwrap_or_default();
        let mut values = Vec::new();
        for (number, flag) in flags.iter().enumerate() {
            let texts = matches.get_many::<String>(flag.name).into_iter().flatten().cloned();
            let places = matches.indices_of(flag.name).into_iter().flatten();
            values.extend(places.zip(texts).map(|(place, text)| (place, number, text)));
        }
        values.sort();
        Some(Words { values, arguments, help })
    }

    /// Leaves of a flag that does not repeat the last value alone, and of places the order.
    fn last_ones(flags: &[Flag], mut words: Words) -> Words {
        let values = std::mem::take(&mut words.values);
        let counts = |at: usize| {
            let (_, flag, _) = values[at];
            flags[flag].form == Form::List || !values[at + 1..].iter().any(|(_, other, _)| *other == flag)
        };
        let kept = (0..values.len()).filter(|at| counts(*at));
        words.values = kept.enumerate().map(|(order, at)| (order, values[at].1, values[at].2.clone())).collect();
        words
    }

    /// Makes a word about one of the flags, or about none.
    fn word(flags: &[Flag], (kind, first, second, text): (u8, usize, usize, u8)) -> String {
        const TEXTS: [&str; 8] = ["", "x", "true", "-", "--", "-x", "a=b", "=é"];
        let text = TEXTS[usize::from(text) % TEXTS.len()];
        let letters: Vec<char> = flags.iter().filter_map(|flag| flag.short).chain(['h', 'Z']).collect();
        let (flag, letter, other) =
            (flags.get(first % (flags.len() + 1)), letters[first % letters.len()], letters[second % letters.len()]);
        let name =
            flag.map_or("help", |flag| if second % 3 == 0 { flag.alias.unwrap_or(flag.name) } else { flag.name });
        match kind % 12 {
            0..=2 => format!("--{name}"),
            3 | 4 => format!("--{name}={text}"),
            5 => format!("-{letter}"),
            6 => format!("-{letter}{other}"),
            7 => format!("-{letter}{text}"),
            8 => format!("-{letter}{other}={text}"),
            9 => format!("--{name}{text}"),
            _ => text.to_owned(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
        #[test]
        fn words_are_understood_as_clap_understands_them(
            verb in 0..all().count(),
            seeds in proptest::collection::vec(any::<(u8, usize, usize, u8)>(), 0..6),
        ) {
            let verb = all().nth(verb).unwrap();
            let flags = Flags::of(verb);
            let words: Vec<String> = seeds.into_iter().map(|seed| word(&flags, seed)).collect();
            let mine = read(&flags, verb.interspersed, &words).map(|read| last_ones(&flags, read));
            let theirs = model(verb, &flags, &words).map(|read| last_ones(&flags, read));
            prop_assert_eq!(mine, theirs, "{} {:?}", verb.name(), words);
        }
    }
}

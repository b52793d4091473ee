//! Splitting of argument text, before any variable is replaced.

/// Splits at blanks, with quotes and escapes kept in the words.
pub(super) fn quoted_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut blank_ok = false;
    let mut quote = None;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if quote.is_none() && c.is_whitespace() {
            if blank_ok || !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            blank_ok = false;
            continue;
        }
        if c == escape && quote != Some('\'') {
            // An escape character at the very end is dropped; any other keeps its character with it.
            if let Some(next) = rest.next() {
                word.push(c);
                word.push(next);
            } else {
                quote = None;
            }
            continue;
        }
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                blank_ok = true;
            }
            _ => {}
        }
        word.push(c);
    }
    if blank_ok || !word.is_empty() {
        words.push(word);
    }
    words
}

/// Splits at runs of tab, vertical tab, form feed, carriage return and space.
pub(super) fn split_blanks(text: &str) -> Vec<String> {
    text.split(['\t', '\u{b}', '\u{c}', '\r', ' ']).filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

/// Takes leading `--flag` words, quotes and backslashes removed; returns them with their byte offsets, and what is left,
/// from its first character on. A word `--` ends the flags.
pub(super) fn builder_flags(text: &str) -> (Vec<(usize, String)>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let at = text.len() - rest.len();
        let (word, blank_ok, behind) = flag_word(rest);
        rest = behind.trim_start();
        if word == "--" {
            break;
        }
        if blank_ok || !word.is_empty() {
            flags.push((at, word));
        }
    }
    (flags, rest)
}

fn flag_word(text: &str) -> (String, bool, &str) {
    let mut word = String::new();
    let mut blank_ok = false;
    let mut quote = None;
    let mut rest = text.char_indices();
    while let Some((at, c)) = rest.next() {
        match quote {
            None if c.is_whitespace() => return (word, blank_ok, &text[at..]),
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                blank_ok = true;
            }
            Some(open) if c == open => quote = None,
            _ if c == '\\' => word.extend(rest.next().map(|(_, c)| c)),
            _ => word.push(c),
        }
    }
    (word, blank_ok, "")
}

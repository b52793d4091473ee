//! Word expansion: quotes, escapes, `$NAME` and every `${...}` form (*Dockerfile reference "Environment replacement"*).
//!
//! Pure: variables come from a lookup. The word is walked once; nesting of `${...}` is limited.

use super::pattern::Pattern;
use std::iter::Peekable;
use std::str::Chars;

/// Deepest nesting of `${...}` that is followed.
const MAX_DEPTH: usize = 64;

/// Longest result, bytes: `ENV A=$A$A` in every line would otherwise double without end.
const MAX_LENGTH: usize = 1 << 20;

/// Most steps that a pattern with `*` may take in `${name//old/new}`.
const MAX_PATTERN_WORK: usize = 1 << 28;

/// Why a word cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// A quote without its partner.
    #[error("missing closing {0}")]
    Unclosed(char),
    /// `${` without `}`.
    #[error("missing '}}' of a ${{...}}")]
    MissingBrace,
    /// `${NAME/old` without the second `/`.
    #[error("missing second '/' of a ${{name/old/new}}")]
    MissingSlash,
    /// `${}`, `${:x}`, `${{`.
    #[error("bad substitution: ${{...}} needs a name")]
    BadSubstitution,
    /// A modifier that does not exist.
    #[error("unsupported modifier {0} in ${{...}}")]
    Modifier(String),
    /// `${NAME:?message}`.
    #[error("{name}: {message}")]
    Required {
        /// Variable.
        name: String,
        /// Message of the Dockerfile or our own.
        message: String,
    },
    /// A bad pattern in `#`, `%` or `/`.
    #[error("invalid pattern {0:?} in ${{...}}: after \\ only * ? \\ may stand")]
    Pattern(String),
    /// Nesting.
    #[error("${{...}} is nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// Length.
    #[error("the result is longer than {MAX_LENGTH} bytes")]
    TooLong,
}

/// How quotes and escapes are treated.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    /// The escape character, `\` or a backtick.
    pub escape: char,
    /// Quotes stay in the result.
    pub raw_quotes: bool,
    /// Escape characters stay in the result.
    pub raw_escapes: bool,
    /// Variables that are not set stay as they are written.
    pub keep_unset: bool,
    /// Quotes are ordinary characters (here-document bodies).
    pub plain_quotes: bool,
}

impl Mode {
    /// The mode of instruction arguments: quotes and escapes are removed, unset variables are empty.
    pub fn word(escape: char) -> Self {
        Self { escape, raw_quotes: false, raw_escapes: false, keep_unset: false, plain_quotes: false }
    }
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The whole text.
    pub text: String,
    /// The text split at unquoted blanks, after replacement.
    pub words: Vec<String>,
    /// Names that were looked up and not found, in order, once each.
    pub unset: Vec<String>,
}

/// Expands one text.
///
/// # Errors
/// For an unclosed quote or brace, an unknown modifier, a bad pattern, or `${NAME:?}` without a value.
pub fn expand(text: &str, mode: Mode, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Expanded, ExpandError> {
    let mut walker = Walker { rest: text.chars().peekable(), mode, lookup, unset: Vec::new(), depth: 0 };
    let (text, words) = walker.until(None, mode.raw_escapes)?;
    Ok(Expanded { text, words, unset: walker.unset })
}

struct Walker<'a> {
    rest: Peekable<Chars<'a>>,
    mode: Mode,
    lookup: &'a dyn Fn(&str) -> Option<String>,
    unset: Vec<String>,
    depth: usize,
}

#[derive(Default)]
struct Words {
    done: Vec<String>,
    word: String,
    open: bool,
}

impl Words {
    fn unquoted(&mut self, c: char) {
        if !c.is_whitespace() {
            self.raw(c);
        } else if self.open && !self.word.is_empty() {
            self.done.push(std::mem::take(&mut self.word));
            self.open = false;
        }
    }

    fn raw(&mut self, c: char) {
        self.word.push(c);
        self.open = true;
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.done.push(self.word);
        }
        self.done
    }
}

impl Walker<'_> {
    /// Walks to the stop character (which is eaten) or the end.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<(String, Vec<String>), ExpandError> {
        let outer = std::mem::replace(&mut self.mode.raw_escapes, raw_escapes);
        let result = self.until_inner(stop);
        self.mode.raw_escapes = outer;
        result
    }

    fn until_inner(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), ExpandError> {
        let (mut text, mut words) = (String::new(), Words::default());
        while let Some(&c) = self.rest.peek() {
            if stop == Some(c) {
                self.rest.next();
                return Ok((text, words.finish()));
            }
            if text.len() > MAX_LENGTH {
                return Err(ExpandError::TooLong);
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    value.chars().for_each(|c| words.unquoted(c));
                    text.push_str(&value);
                }
                '\'' | '"' if !self.mode.plain_quotes => {
                    let value = if c == '"' { self.double_quoted()? } else { self.single_quoted()? };
                    words.word.push_str(&value);
                    words.open = true;
                    text.push_str(&value);
                }
                _ if c == self.mode.escape => {
                    self.rest.next();
                    if self.mode.raw_escapes {
                        words.raw(c);
                        text.push(c);
                    }
                    let Some(next) = self.rest.next() else { break };
                    words.raw(next);
                    text.push(next);
                }
                _ => {
                    self.rest.next();
                    words.unquoted(c);
                    text.push(c);
                }
            }
        }
        match stop {
            None => Ok((text, words.finish())),
            Some('/') => Err(ExpandError::MissingSlash),
            Some(_) => Err(ExpandError::MissingBrace),
        }
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let mut text = String::new();
        self.rest.next();
        if self.mode.raw_quotes {
            text.push('\'');
        }
        loop {
            match self.rest.next() {
                None => return Err(ExpandError::Unclosed('\'')),
                Some('\'') => break,
                Some(c) => text.push(c),
            }
        }
        if self.mode.raw_quotes {
            text.push('\'');
        }
        Ok(text)
    }

    /// Inside double quotes only `"`, `$` and the escape character itself can be escaped.
    fn double_quoted(&mut self) -> Result<String, ExpandError> {
        let mut text = String::new();
        self.rest.next();
        if self.mode.raw_quotes {
            text.push('"');
        }
        loop {
            let Some(&c) = self.rest.peek() else { return Err(ExpandError::Unclosed('"')) };
            if c == '$' {
                text.push_str(&self.dollar()?);
                if text.len() > MAX_LENGTH {
                    return Err(ExpandError::TooLong);
                }
                continue;
            }
            self.rest.next();
            if c == '"' {
                break;
            }
            if c != self.mode.escape {
                text.push(c);
                continue;
            }
            if self.mode.raw_escapes {
                text.push(c);
            }
            match self.rest.peek() {
                None => {}
                Some(&next) if next == '"' || next == '$' || next == self.mode.escape => {
                    self.rest.next();
                    text.push(next);
                }
                Some(_) => text.push(c),
            }
        }
        if self.mode.raw_quotes {
            text.push('"');
        }
        Ok(text)
    }

    fn dollar(&mut self) -> Result<String, ExpandError> {
        self.rest.next();
        if self.rest.peek() != Some(&'{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".into());
            }
            return Ok(match self.get(&name) {
                None if self.mode.keep_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.rest.next();
        if self.depth >= MAX_DEPTH {
            return Err(ExpandError::TooDeep);
        }
        self.depth += 1;
        let result = self.braces();
        self.depth -= 1;
        result
    }

    /// Everything after `${`.
    fn braces(&mut self) -> Result<String, ExpandError> {
        match self.rest.peek() {
            None => return Err(ExpandError::MissingBrace),
            Some('{' | '}' | ':') => return Err(ExpandError::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        let modifier = self.rest.next().ok_or(ExpandError::MissingBrace)?;
        match modifier {
            '}' => Ok(match self.get(&name) {
                None if self.mode.keep_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            ':' => {
                let kind = self.rest.next().ok_or(ExpandError::MissingBrace)?;
                self.conditional(&name, kind, true)
            }
            '+' | '-' | '?' | '#' | '%' => self.conditional(&name, modifier, false),
            '/' => self.replace(&name),
            other => Err(ExpandError::Modifier(other.into())),
        }
    }

    /// `${name:-word}` and its kin; with a colon an empty value counts as unset.
    fn conditional(&mut self, name: &str, kind: char, colon: bool) -> Result<String, ExpandError> {
        let (word, _) = self.until(Some('}'), matches!(kind, '#' | '%'))?;
        let value = self.get(name);
        let written = || if colon { format!(":{kind}") } else { kind.to_string() };
        if value.is_none() && self.mode.keep_unset {
            return Ok(format!("${{{name}{}{word}}}", written()));
        }
        let set = value.as_deref().is_some_and(|v| !(colon && v.is_empty()));
        match kind {
            '-' => Ok(if set { value.unwrap_or_default() } else { word }),
            '+' => Ok(if set { word } else { String::new() }),
            '?' if set => Ok(value.unwrap_or_default()),
            '?' => {
                let default = if value.is_some() { "is not allowed to be empty" } else { "is not allowed to be unset" };
                Err(ExpandError::Required {
                    name: name.to_owned(),
                    message: if word.is_empty() { default.into() } else { word },
                })
            }
            '#' | '%' => {
                let (longest, pattern) = match word.strip_prefix(kind) {
                    Some(rest) => (true, rest),
                    None => (false, word.as_str()),
                };
                let pattern = Pattern::parse(pattern)?;
                let value: Vec<char> = value.unwrap_or_default().chars().collect();
                Ok(if kind == '#' {
                    let cut = pattern.match_from(&value, longest).unwrap_or(0);
                    value[cut..].iter().collect()
                } else {
                    let reversed: Vec<char> = value.iter().rev().copied().collect();
                    let cut = pattern.reversed().match_from(&reversed, longest).unwrap_or(0);
                    value[..value.len() - cut].iter().collect()
                })
            }
            _ => Err(ExpandError::Modifier(written())),
        }
    }

    /// `${name/old/new}` and `${name//old/new}`.
    fn replace(&mut self, name: &str) -> Result<String, ExpandError> {
        let all = self.rest.peek() == Some(&'/');
        if all {
            self.rest.next();
        }
        let (old, _) = self.until(Some('/'), true)?;
        let (new, _) = self.until(Some('}'), true)?;
        let Some(value) = self.get(name) else {
            let slash = if all { "//" } else { "/" };
            return Ok(if self.mode.keep_unset { format!("${{{name}{slash}{old}/{new}}}") } else { String::new() });
        };
        let pattern = Pattern::parse(&old)?;
        let value: Vec<char> = value.chars().collect();
        if pattern.has_star()
            && value.len().saturating_mul(value.len()).saturating_mul(pattern.len()) > MAX_PATTERN_WORK
        {
            return Err(ExpandError::TooLong);
        }
        let (mut text, mut at) = (String::new(), 0);
        while at <= value.len() {
            if text.len() > MAX_LENGTH {
                return Err(ExpandError::TooLong);
            }
            match pattern.match_from(&value[at..], true) {
                Some(length) => {
                    text.push_str(&new);
                    at += length;
                    if !all {
                        break;
                    }
                    if length == 0 {
                        text.extend(value.get(at));
                        at += 1;
                    } else if at == value.len() {
                        break;
                    }
                }
                None => {
                    text.extend(value.get(at));
                    at += 1;
                }
            }
        }
        text.extend(value.get(at..).unwrap_or_default());
        Ok(text)
    }

    /// A name, a run of digits, one special parameter, or nothing.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.rest.peek() {
            Some(c) if c.is_ascii_digit() => {
                while let Some(c) = self.rest.next_if(char::is_ascii_digit) {
                    name.push(c);
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => name.extend(self.rest.next()),
            _ => {
                while let Some(c) = self.rest.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    name.push(c);
                }
            }
        }
        name
    }

    fn get(&mut self, name: &str) -> Option<String> {
        let value = (self.lookup)(name);
        if value.is_none() && !self.unset.iter().any(|n| n == name) {
            self.unset.push(name.to_owned());
        }
        value
    }
}

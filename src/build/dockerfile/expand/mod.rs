//! Word expansion: quotes, escapes, `$NAME` and every `${...}` form (*Dockerfile reference "Environment replacement"*).
//!
//! Pure: variables come from a lookup. The word is walked once; nesting of `${...}` is limited.

mod braces;

use std::iter::Peekable;
use std::str::Chars;

/// Deepest nesting of `${...}` that is followed.
const MAX_DEPTH: usize = 64;

/// Longest result, bytes: `ENV A=$A$A` in every line would otherwise double without end.
const MAX_LENGTH: usize = 1 << 20;

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

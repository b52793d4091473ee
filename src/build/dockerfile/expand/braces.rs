//! What stands in `${...}`: a name alone, `:-` and its kin, cuts by a pattern, replacement.

use super::super::pattern::Pattern;
use super::{ExpandError, MAX_LENGTH, Walker};

/// Most steps that a pattern with `*` may take.
const MAX_PATTERN_WORK: usize = 1 << 28;

/// Refuses a pattern that would be looked at for long: a star keeps every length of the value alive.
fn affordable(pattern: &Pattern, length: usize, tries: usize) -> Result<(), ExpandError> {
    let steps = length.saturating_mul(tries).saturating_mul(pattern.len());
    if pattern.has_star() && steps > MAX_PATTERN_WORK { Err(ExpandError::TooLong) } else { Ok(()) }
}

impl Walker<'_> {
    /// Everything after `${`.
    pub(super) fn braces(&mut self) -> Result<String, ExpandError> {
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
                affordable(&pattern, value.len(), 1)?;
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
        // It is tried at every place of the value.
        affordable(&pattern, value.len(), value.len())?;
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
}

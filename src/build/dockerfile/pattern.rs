//! Patterns of `${name#pattern}` and its kin.

use super::expand::ExpandError;

/// A shell pattern without bracket expressions.
pub(super) struct Pattern(Vec<Token>);

#[derive(Clone, Copy, PartialEq)]
enum Token {
    Star,
    Any,
    One(char),
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, ExpandError> {
        let mut tokens = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::Any,
                // `}` and `/` had to be escaped to stand inside ${...}; the escape is no part of the pattern.
                '\\' if matches!(rest.peek(), Some('}' | '/')) => continue,
                '\\' => match rest.next() {
                    Some(c @ ('*' | '?' | '\\')) => Token::One(c),
                    _ => return Err(ExpandError::Pattern(text.to_owned())),
                },
                c => Token::One(c),
            });
        }
        tokens.dedup_by(|a, b| *a == Token::Star && *b == Token::Star);
        Ok(Self(tokens))
    }

    /// Tells whether a match may be longer than the pattern.
    pub(super) fn has_star(&self) -> bool {
        self.0.contains(&Token::Star)
    }

    /// Returns the number of its letters and wildcards.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn reversed(&self) -> Self {
        Self(self.0.iter().rev().copied().collect())
    }

    /// Returns the length of the longest or shortest match at the start, in characters.
    pub(super) fn match_from(&self, value: &[char], longest: bool) -> Option<usize> {
        // reach[i]: the tokens so far match the first `low + i` characters. At most pattern times value steps, and only
        // as many as the pattern is long when it has no star; nothing backtracks.
        let (mut low, mut reach) = (0usize, vec![true]);
        for token in &self.0 {
            if *token == Token::Star {
                let mut open = false;
                let ends = reach.len();
                for i in 0.. {
                    if i < ends {
                        open |= reach[i];
                        reach[i] = open;
                    } else if open {
                        reach.push(true);
                    } else {
                        break;
                    }
                    match value.get(low + i) {
                        None => break,
                        Some('\n') => open = false,
                        Some(_) => {}
                    }
                }
                continue;
            }
            for (i, live) in reach.iter_mut().enumerate() {
                *live = *live
                    && match (value.get(low + i), token) {
                        (Some(c), Token::One(wanted)) => c == wanted,
                        (Some(c), _) => *c != '\n',
                        (None, _) => false,
                    };
            }
            low += 1;
            if !reach.contains(&true) {
                return None;
            }
        }
        let end = if longest { reach.iter().rposition(|r| *r) } else { reach.iter().position(|r| *r) };
        end.map(|i| low + i)
    }
}

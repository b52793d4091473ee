//! Path patterns: Go's `filepath.Match` for one path component, and `**` for any number of them.

/// A pattern that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad pattern {0:?}: a [ does not close, a range is empty, or \\ stands at the end")]
pub struct GlobError(pub String);

/// One piece of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Star,
    Any,
    One(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// A pattern for one path component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    pieces: Vec<Piece>,
}

impl Component {
    /// Reads `*`, `?`, `[a-z]`, `[^x]` and `\x`.
    ///
    /// # Errors
    /// As Go's `ErrBadPattern`.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        let fail = || GlobError(text.to_owned());
        let mut pieces = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            pieces.push(match c {
                '*' => {
                    if pieces.last() == Some(&Piece::Star) {
                        continue;
                    }
                    Piece::Star
                }
                '?' => Piece::Any,
                '\\' => Piece::One(rest.next().ok_or_else(fail)?),
                '[' => {
                    let negated = rest.next_if_eq(&'^').is_some();
                    let mut ranges = Vec::new();
                    while ranges.is_empty() || rest.peek() != Some(&']') {
                        let mut end = || match rest.next() {
                            None | Some('-' | ']') => None,
                            Some('\\') => rest.next(),
                            c => c,
                        };
                        let low = end().ok_or_else(fail)?;
                        let high = if rest.next_if_eq(&'-').is_some() {
                            match rest.next() {
                                None | Some('-' | ']') => return Err(fail()),
                                Some('\\') => rest.next().ok_or_else(fail)?,
                                Some(c) => c,
                            }
                        } else {
                            low
                        };
                        ranges.push((low, high));
                    }
                    rest.next();
                    Piece::Class { negated, ranges }
                }
                c => Piece::One(c),
            });
        }
        Ok(Self { pieces })
    }

    /// Tells whether a whole component matches.
    pub fn matches(&self, name: &str) -> bool {
        let (mut pattern, mut text) = (0, name);
        let mut retry: Option<(usize, &str)> = None;
        loop {
            match self.pieces.get(pattern) {
                None if text.is_empty() => return true,
                Some(Piece::Star) => {
                    pattern += 1;
                    retry = Some((pattern, text));
                    continue;
                }
                Some(piece) => {
                    if let Some(c) = text.chars().next().filter(|c| piece.takes(*c)) {
                        pattern += 1;
                        text = &text[c.len_utf8()..];
                        continue;
                    }
                }
                None => {}
            }
            // Only the last star needs another try, with one character more.
            let Some((star, from)) = retry else { return false };
            let Some(c) = from.chars().next() else { return false };
            let from = &from[c.len_utf8()..];
            (pattern, text, retry) = (star, from, Some((star, from)));
        }
    }

    /// Returns the text when the pattern has no special character left.
    fn literal(&self) -> Option<String> {
        self.pieces.iter().map(|p| if let Piece::One(c) = p { Some(*c) } else { None }).collect()
    }
}

impl Piece {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Star => false,
            Self::Any => true,
            Self::One(wanted) => c == *wanted,
            Self::Class { negated, ranges } => ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated,
        }
    }
}

/// One step of a path pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A name as it is.
    Name(String),
    /// A pattern for one name.
    Pattern(Component),
    /// `**`: any number of names.
    Deep,
}

impl Segment {
    fn parse(text: &str) -> Result<Self, GlobError> {
        if text == "**" {
            return Ok(Self::Deep);
        }
        let component = Component::parse(text)?;
        Ok(match component.literal() {
            Some(name) => Self::Name(name),
            None => Self::Pattern(component),
        })
    }

    /// Tells whether one name matches; `**` matches any.
    pub fn takes(&self, name: &str) -> bool {
        match self {
            Self::Name(wanted) => wanted == name,
            Self::Pattern(component) => component.matches(name),
            Self::Deep => true,
        }
    }
}

/// A pattern for a relative path, split at `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    /// Its steps.
    pub segments: Vec<Segment>,
}

impl PathPattern {
    /// Reads a pattern; `.`, `..` and empty steps are resolved as far as they can be.
    ///
    /// # Errors
    /// For a component that is no pattern.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        let mut segments: Vec<Segment> = Vec::new();
        for part in clean(text) {
            let segment = Segment::parse(part)?;
            if segment != Segment::Deep || segments.last() != Some(&Segment::Deep) {
                segments.push(segment);
            }
        }
        Ok(Self { segments })
    }

    /// Tells whether any step is a pattern.
    pub fn is_wild(&self) -> bool {
        self.segments.iter().any(|s| !matches!(s, Segment::Name(_)))
    }
}

/// Splits a path at `/` with `.` and `..` resolved; `..` never leaves the start, as in a root directory.
pub fn clean(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_match_as_gos_filepath_match() {
        for (pattern, name, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab", true),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "x", true),
            ("*.py[co]", "a.pyc", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(Component::parse(pattern).unwrap().matches(name), expected, "{pattern:?} {name:?}");
        }
        for bad in ["[", "[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "a[", "a[^", "[^bc", "\\", "a\\"] {
            assert!(Component::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = Component::parse(&"*a".repeat(200)).unwrap();
        assert!(!pattern.matches(&"a".repeat(199)));
        assert!(!pattern.matches(&("a".repeat(5000) + "b")));
    }
}

//! `.dockerignore`: which paths of the context are left out.
//!
//! The rules are those of moby's `patternmatcher` (*Dockerfile reference, ".dockerignore file"*): the last pattern that
//! matches a path or one of its parents decides; `!` takes a path back; `**` stands for any number of directories.

use super::glob::{Component, GlobError};

/// Most patterns of a file.
const MAX_PATTERNS: usize = 10_000;

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// A bad pattern.
    #[error("line {line}")]
    Pattern {
        /// Line, from 1.
        line: usize,
        /// The pattern.
        #[source]
        source: GlobError,
    },
    /// `!` alone.
    #[error("line {0}: ! needs a pattern behind it")]
    LoneExclamation(usize),
    /// Too long.
    #[error("more than {MAX_PATTERNS} patterns")]
    TooMany,
}

/// One piece of a pattern; a pattern matches a whole path, slashes included.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    One(char),
    /// `?`: any character but a slash.
    Any,
    /// `*`: any characters but slashes.
    Star,
    /// `[...]`.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `**` with more behind it: nothing, or anything that ends in a slash. Always followed by `DeepInside`.
    Deep,
    /// The state after `Deep` has taken a character.
    DeepInside,
    /// `**` at the end: anything.
    Rest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    pieces: Vec<Piece>,
    takes_back: bool,
}

/// The patterns of a `.dockerignore` file or of `COPY --exclude`, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

/// What the patterns say about a directory while it is walked: one answer per pattern.
#[derive(Clone, Debug, Default)]
pub struct Inherited {
    matched: Vec<bool>,
}

/// What the patterns say about a path.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// It is left out.
    pub ignored: bool,
    /// Nothing below it can be taken back, so a walk may skip it (said of ignored paths only).
    pub prune: bool,
    /// What its children start from.
    pub inherited: Inherited,
}

impl Ignore {
    /// Reads the text of a `.dockerignore` file.
    ///
    /// # Errors
    /// With the line of the first bad pattern.
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
        Self::from_lines(lines.map(|(i, line)| (i + 1, line)))
    }

    /// Reads patterns given one by one (`COPY --exclude`).
    ///
    /// # Errors
    /// With the number of the first bad pattern, from 1.
    pub fn from_patterns(patterns: &[String]) -> Result<Self, IgnoreError> {
        Self::from_lines(patterns.iter().enumerate().map(|(i, p)| (i + 1, p.as_str())))
    }

    fn from_lines<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Result<Self, IgnoreError> {
        let mut patterns = Vec::new();
        for (line, text) in lines {
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            let (takes_back, text) = match text.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, text),
            };
            if text.is_empty() {
                return Err(IgnoreError::LoneExclamation(line));
            }
            let cleaned = clean_relative(text).join("/");
            // "." (as written, or what is left of "a/..") excludes nothing by itself, as in moby.
            if cleaned.is_empty() {
                continue;
            }
            let pieces =
                pieces(&cleaned).ok_or_else(|| IgnoreError::Pattern { line, source: GlobError(text.to_owned()) })?;
            patterns.push(Pattern { pieces, takes_back });
            if patterns.len() > MAX_PATTERNS {
                return Err(IgnoreError::TooMany);
            }
        }
        Ok(Self { patterns })
    }

    /// Tells whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Judges a path relative to the context whose parent directory was judged with `parent`.
    pub fn judge(&self, path: &str, parent: &Inherited) -> Verdict {
        let mut ignored = false;
        let mut matched = vec![false; self.patterns.len()];
        for (index, pattern) in self.patterns.iter().enumerate() {
            // A pattern that matched a parent matches everything below it. One that could not change the answer is not
            // looked at and counts as no match for what lies below; moby does so too.
            let inherited = parent.matched.get(index).copied().unwrap_or(false);
            if inherited || (pattern.takes_back == ignored && matches(&pattern.pieces, path)) {
                matched[index] = true;
                ignored = !pattern.takes_back;
            }
        }
        let prune = ignored && !self.patterns.iter().any(|p| p.takes_back && may_match_below(&p.pieces, path));
        Verdict { ignored, prune, inherited: Inherited { matched } }
    }

    /// Judges a path on its own, parents included.
    pub fn ignores(&self, path: &str) -> bool {
        let (mut ignored, mut inherited) = (false, Inherited::default());
        for end in path.char_indices().filter(|(_, c)| *c == '/').map(|(i, _)| i).chain([path.len()]) {
            let verdict = self.judge(&path[..end], &inherited);
            (ignored, inherited) = (verdict.ignored, verdict.inherited);
        }
        ignored
    }
}

/// Splits a pattern at `/` as Go's `filepath.Clean` leaves it: `..` at the start stays (and matches nothing).
fn clean_relative(text: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => {
                parts.pop();
            }
            // "/.." is "/".
            ".." if text.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    parts
}

/// Reads a cleaned pattern; `None` when Go's `filepath.Match` refuses it.
fn pieces(text: &str) -> Option<Vec<Piece>> {
    // Validity is filepath.Match's: judged without the meaning of `**`.
    for part in text.split('/') {
        Component::parse(part).ok()?;
    }
    let mut pieces = Vec::new();
    let mut rest = text.chars().peekable();
    // `**` and then plain text is compared as a suffix by moby: `**file` also matches `a/profile`.
    if let Some(suffix) = text.strip_prefix("**").filter(|s| !s.starts_with('/') && !s.contains(['*', '?', '[', '\\']))
    {
        pieces.push(Piece::Rest);
        pieces.extend(suffix.chars().map(Piece::One));
        return Some(pieces);
    }
    while let Some(c) = rest.next() {
        match c {
            '*' if rest.next_if_eq(&'*').is_some() => {
                rest.next_if_eq(&'/');
                if rest.peek().is_none() {
                    pieces.push(Piece::Rest);
                } else {
                    pieces.extend([Piece::Deep, Piece::DeepInside]);
                }
            }
            '*' => pieces.push(Piece::Star),
            '?' => pieces.push(Piece::Any),
            '\\' => pieces.push(Piece::One(rest.next()?)),
            '[' => {
                let negated = rest.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                while rest.peek() != Some(&']') {
                    let low = class_char(&mut rest)?;
                    let high = if rest.next_if_eq(&'-').is_some() { class_char(&mut rest)? } else { low };
                    ranges.push((low, high));
                }
                rest.next();
                pieces.push(Piece::Class { negated, ranges });
            }
            c => pieces.push(Piece::One(c)),
        }
    }
    Some(pieces)
}

fn class_char(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match rest.next()? {
        '\\' => rest.next(),
        c => Some(c),
    }
}

fn matches(pieces: &[Piece], path: &str) -> bool {
    reach(pieces, path.chars()).is_some_and(|row| row[pieces.len()])
}

/// Tells whether some path below `path` can match.
fn may_match_below(pieces: &[Piece], path: &str) -> bool {
    reach(pieces, path.chars().chain(['/'])).is_some()
}

/// `reach[i]`: the first `i` pieces match the whole text; `None` when no text that begins so can match.
fn reach(pieces: &[Piece], text: impl Iterator<Item = char>) -> Option<Vec<bool>> {
    let mut row = vec![false; pieces.len() + 1];
    row[0] = true;
    skip_empty(pieces, &mut row);
    for c in text {
        let mut next = vec![false; pieces.len() + 1];
        for (i, piece) in pieces.iter().enumerate().filter(|(i, _)| row[*i]) {
            let (stay, go) = match piece {
                Piece::One(wanted) => (false, c == *wanted),
                Piece::Any => (false, c != '/'),
                Piece::Class { negated, ranges } => {
                    (false, ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated)
                }
                Piece::Star => (c != '/', false),
                Piece::Rest => (true, false),
                Piece::Deep => (false, false),
                Piece::DeepInside => (true, c == '/'),
            };
            next[i] |= stay;
            next[i + 1] |= go;
        }
        skip_empty(pieces, &mut next);
        if !next.contains(&true) {
            return None;
        }
        row = next;
    }
    Some(row)
}

/// Pieces that may stand for nothing let the match go on behind them.
fn skip_empty(pieces: &[Piece], row: &mut [bool]) {
    for (i, piece) in pieces.iter().enumerate() {
        if !row[i] {
            continue;
        }
        match piece {
            Piece::Star | Piece::Rest => row[i + 1] = true,
            Piece::Deep => {
                row[i + 1] = true;
                row[i + 2] = true;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_judged_as_moby_does() {
        for (patterns, path, ignored) in [
            ("**", "file", true),
            ("**", "dir/file", true),
            ("**/", "file", true),
            ("**/**", "dir/file", true),
            ("dir/**", "dir/file", true),
            ("dir/**", "dir/a/b", true),
            ("dir/**", "dir", false),
            ("**/dir", "dir/file", true),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/*", "dir/dir2/dir2/file", true),
            ("**file", "file", true),
            ("**file", "dir/file", true),
            ("**file", "dir/profile", true),
            ("**/file", "dir/dir/file", true),
            ("**/file*", "dir/dir/file.txt", true),
            ("**/file*txt", "dir/dir/file.txt", true),
            ("**/**/*.txt", "dir/dir/file.txt", true),
            ("a**/*.txt", "abcd/file.txt", true),
            ("a**/*.txt", "a/dir/dir/file.txt", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "a/xb", false),
            ("a+b*", "a+bc", true),
            ("a+b*", "aabc", false),
            ("a/*.txt", "a/b/c.txt", false),
            ("*.txt", "a/b.txt", false),
            ("a[b-d]e", "ace", true),
            ("a[b-d]e", "aae", false),
            ("a\\*b", "a*b", true),
            (".*", ".foo", true),
            (".*", "foo", false),
            ("abc.def", "abcdef", false),
            ("abc/..", "abc", false),
            ("/abc", "abc", true),
            ("./abc/", "abc/d", true),
            ("../abc", "abc", false),
            ("abc", "abcd", false),
            ("node_modules", "node_modules/x/y", true),
            ("node_modules", "sub/node_modules", false),
            ("*\n!keep", "keep", false),
            ("*\n!keep", "keep/below", false),
            ("*\n!keep", "other", true),
            ("!keep\n*", "keep", true),
            ("*\n!dir/keep", "dir/keep", false),
            ("*\n!dir/keep", "dir/lose", true),
            ("dir\n!dir/keep\ndir/keep/not", "dir/keep/not", true),
            ("dir\n!dir/keep\ndir/keep/not", "dir/keep/yes", false),
            ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
            ("*.md\n!README*.md\nREADME-secret.md", "README.md", false),
            ("**\n!**/*.rs", "src/a/b.rs", false),
            ("**\n!**/*.rs", "src/a/b.txt", true),
            ("# comment\n a \n", "a", true),
            ("", "a", false),
            (".", "a", false),
        ] {
            assert_eq!(Ignore::parse(patterns).unwrap().ignores(path), ignored, "{patterns:?} {path:?}");
        }
        for bad in ["!", "a\n[", "a\\"] {
            assert!(Ignore::parse(bad).is_err(), "{bad:?}");
        }
    }

    /// The cases of moby's own tests, the walk from parent to child included; `/` alone is no path of ours.
    #[test]
    fn mobys_own_cases_come_out_the_same() {
        let table = include_str!("../../tests/data/dockerignore/moby");
        let mut wrong = Vec::new();
        let mut count = 0;
        for line in table.lines().filter(|line| !line.starts_with('#')) {
            let (patterns, rest) = line.split_once('\t').unwrap();
            let (path, expected) = rest.split_once('\t').unwrap();
            count += 1;
            let found = match Ignore::parse(&patterns.replace(' ', "\n")) {
                Err(_) => "bad",
                Ok(ignore) if ignore.ignores(path.trim_end_matches('/')) => "yes",
                Ok(_) => "no",
            };
            if found != expected {
                wrong.push(format!("{line:?}: {found}"));
            }
        }
        assert!(wrong.is_empty() && count == 138, "{} of {count}: {wrong:#?}", wrong.len());
    }

    #[test]
    fn an_ignored_directory_is_skipped_unless_something_below_may_come_back() {
        for (patterns, directory, prune) in [
            ("big", "big", true),
            ("big\n!other/x", "big", true),
            ("big\n!big/a/x", "big", false),
            ("big\n!big/a/x", "big/b", true),
            ("big\n!big/a/x", "big/a", false),
            ("*\n!**/x", "big/deep", false),
            ("*\n!*.md", "big", true),
            ("*\n!keep", "big", true),
            ("*\n!keep*", "big", true),
        ] {
            let ignore = Ignore::parse(patterns).unwrap();
            let mut inherited = Inherited::default();
            if let Some((parent, _)) = directory.split_once('/') {
                inherited = ignore.judge(parent, &inherited).inherited;
            }
            let verdict = ignore.judge(directory, &inherited);
            assert!(verdict.ignored);
            assert_eq!(verdict.prune, prune, "{patterns:?} {directory:?}");
        }
    }
}

//! Lines: parser directives, line continuation, comments and here-document bodies.
//!
//! *Dockerfile reference "Format", "Parser directives", "Here-documents"*; the odd cases follow BuildKit's parser.

use super::error::{DockerfileError, LineRange, Position, Problem};
use super::expand::{Mode, expand};

/// A Dockerfile larger than this is refused, bytes.
pub(super) const MAX_FILE: usize = 16 << 20;

/// The parser directives at the head of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`.
    pub syntax: Option<String>,
    /// `# check=`.
    pub check: Option<String>,
    /// `# escape=`.
    pub escape: Option<char>,
}

impl Directives {
    /// Returns the escape character in force.
    pub fn escape(&self) -> char {
        self.escape.unwrap_or('\\')
    }
}

/// A here-document: `<<EOF`, `<<-EOF`, `<<"EOF"`, `3<<EOF`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The word, without quotes.
    pub name: String,
    /// Variables are replaced in the body (no part of the word was quoted).
    pub expand: bool,
    /// `<<-`: tabs at the start of lines are dropped.
    pub strip_tabs: bool,
    /// The number before `<<`.
    pub descriptor: u32,
    /// The body as written, with line ends.
    pub body: String,
}

impl Heredoc {
    /// Returns the body with leading tabs dropped where `<<-` asks for it.
    pub fn content(&self) -> String {
        if !self.strip_tabs {
            return self.body.clone();
        }
        self.body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }

    /// Reads one word; `None` when it opens no here-document.
    pub fn parse(word: &str) -> Option<Self> {
        let digits = word.find(|c: char| !c.is_ascii_digit())?;
        let rest = word[digits..].strip_prefix("<<")?;
        let (strip_tabs, rest) = match rest.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        if rest.is_empty() || rest.contains('<') {
            return None;
        }
        let plain = Mode { keep_unset: true, ..Mode::word('\\') };
        let raw = Mode { raw_quotes: true, raw_escapes: true, ..plain };
        let words = |mode| expand(rest, mode, &|_| None).ok().map(|e| e.words);
        let (name, written) = (words(plain)?, words(raw)?);
        let [name] = <[String; 1]>::try_from(name).ok()?;
        let expand = written.first() == Some(&name);
        Some(Self { name, expand, strip_tabs, descriptor: word[..digits].parse().unwrap_or(0), body: String::new() })
    }
}

/// One instruction's text with continuation lines joined.
#[derive(Debug)]
pub(super) struct LogicalLine {
    pub(super) text: String,
    pub(super) lines: LineRange,
    /// Byte offset in `text` where each physical line begins, with that line's number and its first column.
    segments: Vec<(usize, u32, u32)>,
}

impl LogicalLine {
    /// Returns the place in the file of a byte offset in the text.
    pub(super) fn position(&self, offset: usize) -> Position {
        let index = self.segments.partition_point(|(start, _, _)| *start <= offset).saturating_sub(1);
        let Some((start, line, column)) = self.segments.get(index) else {
            return Position { line: self.lines.first, column: 1 };
        };
        let characters = self.text.get(*start..offset.min(self.text.len())).map_or(0, |t| t.chars().count());
        Position { line: *line, column: column + characters as u32 }
    }
}

/// What the lexer found next.
#[derive(Debug)]
pub(super) enum Token {
    Instruction(LogicalLine),
    /// `#!step name args`: the text behind `#!`.
    StepComment(LogicalLine),
}

pub(super) struct Lexer<'a> {
    lines: std::str::SplitInclusive<'a, char>,
    number: u32,
    pub(super) directives: Directives,
    directives_done: bool,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { lines: text.split_inclusive('\n'), number: 0, directives: Directives::default(), directives_done: false }
    }

    /// Returns the number of the last line read.
    pub(super) fn line(&self) -> u32 {
        self.number
    }

    fn physical(&mut self) -> Option<&'a str> {
        let line = self.lines.next()?;
        self.number = self.number.saturating_add(1);
        Some(line)
    }

    /// Returns the next instruction with its continuation lines.
    pub(super) fn next(&mut self) -> Result<Option<Token>, DockerfileError> {
        while let Some(raw) = self.physical() {
            let line = raw.trim_end_matches(['\r', '\n']);
            let stripped = line.trim_start();
            let column = 1 + (line.chars().count() - stripped.chars().count()) as u32;
            self.directive(stripped)?;
            if let Some(comment) = stripped.strip_prefix('#') {
                if let Some(text) = comment.strip_prefix('!').filter(|t| is_step(t)) {
                    let lines = LineRange { first: self.number, last: self.number };
                    let segments = vec![(0, self.number, column + 2)];
                    return Ok(Some(Token::StepComment(LogicalLine { text: text.to_owned(), lines, segments })));
                }
                continue;
            }
            let (text, mut more) = self.continued(stripped);
            if text.is_empty() && !more {
                continue;
            }
            let first = self.number;
            let mut joined = LogicalLine {
                text: text.to_owned(),
                lines: LineRange { first, last: first },
                segments: vec![(0, first, column)],
            };
            while more {
                let Some(raw) = self.physical() else { break };
                let line = raw.trim_end_matches(['\r', '\n']);
                let stripped = line.trim_start();
                joined.lines.last = self.number;
                if stripped.is_empty() || stripped.starts_with('#') {
                    continue;
                }
                joined.segments.push((joined.text.len(), self.number, 1));
                let (text, again) = self.continued(line);
                joined.text.push_str(text);
                more = again;
            }
            if joined.text.trim().is_empty() {
                continue;
            }
            return Ok(Some(Token::Instruction(joined)));
        }
        Ok(None)
    }

    /// Cuts the continuation character: the last one on the line, unless another stands before it.
    fn continued<'t>(&self, line: &'t str) -> (&'t str, bool) {
        let escape = self.directives.escape();
        match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
            Some(before) if !before.ends_with(escape) => (before, true),
            _ => (line, false),
        }
    }

    /// Reads the lines up to the word of a here-document into its body.
    pub(super) fn body(&mut self, heredoc: &mut Heredoc, at: Position) -> Result<(), DockerfileError> {
        while let Some(raw) = self.physical() {
            let line = raw.trim_end_matches(['\r', '\n']);
            let line = if heredoc.strip_tabs { line.trim_start_matches('\t') } else { line };
            if line == heredoc.name {
                return Ok(());
            }
            heredoc.body.push_str(raw);
        }
        Err(Problem::UnterminatedHeredoc(heredoc.name.clone()).at(at))
    }

    /// Looks for `# name=value`, until the first line that is none.
    fn directive(&mut self, line: &str) -> Result<(), DockerfileError> {
        if self.directives_done {
            return Ok(());
        }
        let Some((name, value)) = split_directive(line) else {
            self.directives_done = true;
            return Ok(());
        };
        let at = Position { line: self.number, column: 1 };
        let twice = match name.as_str() {
            "syntax" => self.directives.syntax.replace(value.to_owned()).is_some(),
            "check" => self.directives.check.replace(value.to_owned()).is_some(),
            "escape" => {
                let escape = match value {
                    "\\" => '\\',
                    "`" => '`',
                    _ => return Err(Problem::Escape(value.to_owned()).at(at)),
                };
                self.directives.escape.replace(escape).is_some()
            }
            _ => {
                self.directives_done = true;
                false
            }
        };
        if twice { Err(Problem::DuplicateDirective(name).at(at)) } else { Ok(()) }
    }
}

fn is_step(text: &str) -> bool {
    text.get(..4).is_some_and(|w| w.eq_ignore_ascii_case("step")) && text[4..].starts_with([' ', '\t'])
}

fn split_directive(line: &str) -> Option<(String, &str)> {
    let (name, value) = line.strip_prefix('#')?.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let good = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.bytes().all(|b| b.is_ascii_alphanumeric());
    (good && !value.is_empty()).then(|| (name.to_ascii_lowercase(), value))
}

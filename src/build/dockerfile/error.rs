//! What can be wrong with a Dockerfile, where, and how to say it.

use std::fmt::Write as _;

/// A place in the Dockerfile; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

/// First and last line of an instruction, heredocs included; they count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineRange {
    /// First line.
    pub first: u32,
    /// Last line.
    pub last: u32,
}

/// One problem found in a Dockerfile.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("line {}, column {}: {problem}", at.line, at.column)]
pub struct DockerfileError {
    /// Where.
    pub at: Position,
    /// What.
    pub problem: Problem,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Problem {
    /// Nothing but comments and blanks.
    #[error("the file has no instructions")]
    NoInstructions,
    /// No `FROM`.
    #[error("the file has no FROM instruction, so there is nothing to build")]
    NoFrom,
    /// Something other than `ARG` stands before the first `FROM`.
    #[error("{0} before the first FROM; only ARG may stand there")]
    BeforeFrom(String),
    /// A word that is no instruction.
    #[error("unknown instruction {word}")]
    UnknownInstruction {
        /// As written.
        word: String,
        /// The instruction that may be meant.
        suggestion: Option<&'static str>,
    },
    /// A flag that the instruction does not have.
    #[error("{instruction} has no flag --{flag}")]
    UnknownFlag {
        /// Instruction.
        instruction: &'static str,
        /// Flag without dashes.
        flag: String,
        /// The flag that may be meant.
        suggestion: Option<&'static str>,
    },
    /// A flag given twice.
    #[error("flag --{0} is given twice")]
    DuplicateFlag(String),
    /// A flag that needs a value.
    #[error("flag --{0} needs a value: --{0}=VALUE")]
    FlagWithoutValue(String),
    /// A flag value that cannot be read.
    #[error("--{flag}={value}: {expected}")]
    FlagValue {
        /// Flag without dashes.
        flag: String,
        /// Value as written.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A directive given twice.
    #[error("parser directive {0} is given twice")]
    DuplicateDirective(String),
    /// `# escape=` with something else than a backslash or a backtick.
    #[error("escape character {0:?} is neither \\ nor `")]
    Escape(String),
    /// Wrong number of arguments.
    #[error("{instruction} {needs}")]
    Arguments {
        /// Instruction.
        instruction: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// `name=value` expected.
    #[error("{instruction}: {word:?} has no =; write name=value")]
    NotNameValue {
        /// Instruction.
        instruction: &'static str,
        /// Word as written.
        word: String,
    },
    /// An empty name.
    #[error("{0}: a name may not be blank")]
    BlankName(&'static str),
    /// JSON form with something that is not a text.
    #[error("the JSON form may hold texts only")]
    JsonNotStrings,
    /// An instruction that exists in JSON form only.
    #[error("{0} is written in JSON form: {0} [\"program\", \"argument\"]")]
    JsonRequired(&'static str),
    /// Bad stage name.
    #[error("{0:?} cannot name a build stage; it starts with a letter and has letters, digits, - _ . only")]
    StageName(String),
    /// A heredoc without its last line.
    #[error("the here-document has no line {0}")]
    UnterminatedHeredoc(String),
    /// A heredoc as destination.
    #[error("a here-document cannot be the destination")]
    HeredocDestination,
    /// `ONBUILD` with an instruction that cannot be a trigger.
    #[error("{0} may not be an ONBUILD trigger")]
    BadTrigger(String),
    /// HEALTHCHECK with an unknown form.
    #[error("HEALTHCHECK {0} is unknown; write HEALTHCHECK CMD command or HEALTHCHECK NONE")]
    HealthcheckForm(String),
    /// `--mount` field.
    #[error("--mount: {0}")]
    Mount(#[from] super::mount::MountError),
    /// Word expansion.
    #[error("{0}")]
    Expand(#[from] super::expand::ExpandError),
    /// The file is too large to be a Dockerfile.
    #[error("the file has {bytes} bytes; more than {limit} are not read")]
    TooLarge {
        /// Size, bytes.
        bytes: usize,
        /// Limit, bytes.
        limit: usize,
    },
}

impl Problem {
    /// Puts the problem at a place.
    pub fn at(self, at: Position) -> DockerfileError {
        DockerfileError { at, problem: self }
    }
}

impl DockerfileError {
    /// Returns what to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        match &self.problem {
            Problem::UnknownInstruction { suggestion: Some(word), .. } => Some(format!("did you mean {word}?")),
            Problem::UnknownInstruction { .. } => {
                Some("a line that continues the one above needs \\ at the end of that line".into())
            }
            Problem::UnknownFlag { suggestion: Some(flag), .. } => Some(format!("did you mean --{flag}?")),
            Problem::Mount(error) => error.nearest_field().map(|field| format!("did you mean {field}?")),
            Problem::NoFrom | Problem::NoInstructions => Some("a Dockerfile starts with FROM image".into()),
            Problem::BeforeFrom(_) => Some("put a FROM line first".into()),
            Problem::UnterminatedHeredoc(name) => Some(format!("end it with a line that holds {name} alone")),
            Problem::StageName(_) => Some("FROM image AS builder".into()),
            _ => None,
        }
    }

    /// Returns the lines around the error with a caret below the column.
    pub fn excerpt(&self, source: &str) -> String {
        excerpt(source, LineRange { first: self.at.line, last: self.at.line }, Some(self.at.column))
    }
}

/// Prints lines of a Dockerfile with two lines around them; lines of the range are marked, a caret stands below the
/// last one when a column is given. Columns count characters; tabs are kept, so that the caret stays in place.
pub fn excerpt(source: &str, lines: LineRange, column: Option<u32>) -> String {
    let mut text = String::new();
    let from = lines.first.saturating_sub(2).max(1);
    let to = lines.last.saturating_add(2);
    for (number, line) in (1u32..).zip(source.lines()).skip_while(|(n, _)| *n < from).take_while(|(n, _)| *n <= to) {
        let marked = (lines.first..=lines.last).contains(&number);
        let line: String = line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
        let _ = writeln!(text, "{} {number:>4} | {line}", if marked { ">>>" } else { "   " });
        if let (Some(column), true) = (column, number == lines.last) {
            let pad: String = line
                .chars()
                .take(column.saturating_sub(1) as usize)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            let _ = writeln!(text, "         | {pad}^");
        }
    }
    text
}

/// Returns the candidate nearest to a word by edit distance, when it is near enough to be meant.
pub fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    if word.len() > 32 {
        return None;
    }
    let word = word.to_ascii_uppercase();
    let limit = if word.len() <= 3 { 1 } else { 2 };
    candidates
        .iter()
        .map(|c| (distance(&word, &c.to_ascii_uppercase()), *c))
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// Levenshtein distance with neighbours swapped counted as one step.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

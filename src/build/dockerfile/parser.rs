//! The parse tree: one node per instruction, arguments split but not interpreted.

use super::error::{DockerfileError, LineRange, Position, Problem};
use super::expand::{Mode, expand};
use super::lexer::{Directives, Heredoc, Lexer, LogicalLine, MAX_FILE, Token};
use super::quote::go_quote;
use super::words::{builder_flags, quoted_words, split_blanks};
use std::fmt::Write as _;

/// One instruction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Instruction, lower case.
    pub keyword: String,
    /// Flags as written, quotes removed: `--from=build`.
    pub flags: Vec<String>,
    /// Where each flag stands.
    pub flags_at: Vec<Position>,
    /// Arguments; for `ENV` and `LABEL` groups of name, value and separator (`=` or nothing).
    pub arguments: Vec<String>,
    /// The arguments were written as a JSON list.
    pub json: bool,
    /// The instruction behind `ONBUILD`.
    pub trigger: Option<Box<Node>>,
    /// Here-documents, bodies included.
    pub heredocs: Vec<Heredoc>,
    /// The instruction with continuation lines joined.
    pub original: String,
    /// Lines, here-documents included.
    pub lines: LineRange,
    /// Where the keyword stands.
    pub at: Position,
    /// Where the first flag or argument stands.
    pub arguments_at: Position,
    /// Written as `#!step`, a comment to other builders.
    pub comment: bool,
}

/// A whole file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tree {
    /// Parser directives.
    pub directives: Directives,
    /// Instructions in order.
    pub nodes: Vec<Node>,
}

impl Tree {
    /// Prints the tree as BuildKit's parser does: one s-expression per instruction.
    pub fn dump(&self) -> String {
        self.nodes.iter().fold(String::new(), |mut text, node| {
            let _ = writeln!(text, "({})", node.dump());
            text
        })
    }
}

impl Node {
    fn dump(&self) -> String {
        let mut text = self.keyword.clone();
        if !self.flags.is_empty() {
            let flags: Vec<String> = self.flags.iter().map(|f| go_quote(f)).collect();
            let _ = write!(text, " [{}]", flags.join(" "));
        }
        if let Some(trigger) = &self.trigger {
            let _ = write!(text, " ({})", trigger.dump());
        }
        for argument in &self.arguments {
            let _ = write!(text, " {}", go_quote(argument));
        }
        text
    }
}

/// Parses a file into its tree.
///
/// # Errors
/// At the first syntax error; a file without instructions is one.
pub fn parse_tree(text: &str) -> Result<Tree, DockerfileError> {
    if text.len() > MAX_FILE {
        return Err(Problem::TooLarge { bytes: text.len(), limit: MAX_FILE }.at(Position { line: 1, column: 1 }));
    }
    let mut lexer = Lexer::new(text);
    let mut nodes = Vec::new();
    while let Some(token) = lexer.next()? {
        let escape = lexer.directives.escape();
        let (line, comment) = match token {
            Token::Instruction(line) => (line, false),
            Token::StepComment(line) => (line, true),
        };
        let mut node = parse_line(&line, 0, escape, false)?;
        node.comment = comment;
        node.lines = line.lines;
        if let Some(holder) = heredoc_holder(&mut node).filter(|_| line.text.contains("<<")) {
            let mut heredocs = heredocs_of(&line.text);
            for heredoc in &mut heredocs {
                let at = line.position(line.text.find("<<").unwrap_or(0));
                lexer.body(heredoc, at)?;
            }
            holder.heredocs = heredocs;
            node.lines.last = lexer.line();
        }
        nodes.push(node);
    }
    if nodes.is_empty() {
        return Err(Problem::NoInstructions.at(Position { line: lexer.line().max(1), column: 1 }));
    }
    Ok(Tree { directives: lexer.directives, nodes })
}

/// The node that takes here-documents: `RUN`, `COPY`, `ADD`, or one of them behind `ONBUILD`, not in JSON form.
fn heredoc_holder(node: &mut Node) -> Option<&mut Node> {
    let node = match node.trigger {
        Some(_) => node.trigger.as_deref_mut()?,
        None => node,
    };
    (!node.json && matches!(node.keyword.as_str(), "run" | "copy" | "add")).then_some(node)
}

fn heredocs_of(line: &str) -> Vec<Heredoc> {
    let mode = Mode { raw_quotes: true, raw_escapes: true, keep_unset: true, ..Mode::word('\\') };
    // A line whose quotes do not close opens no here-document, as in BuildKit.
    expand(line, mode, &|_| None)
        .map(|e| e.words.iter().filter_map(|w| Heredoc::parse(w)).collect())
        .unwrap_or_default()
}

/// Parses one instruction that starts at a byte offset of a joined line.
fn parse_line(line: &LogicalLine, offset: usize, escape: char, trigger: bool) -> Result<Node, DockerfileError> {
    let text = &line.text[offset..];
    let start = offset + (text.len() - text.trim_start().len());
    let trimmed = text.trim();
    let end = trimmed.find(BLANK).unwrap_or(trimmed.len());
    let keyword = trimmed[..end].to_lowercase();
    let behind = &trimmed[end..];
    let rest = behind.trim();
    let rest_at = start + end + (behind.len() - behind.trim_start().len());
    let (flags, arguments) = builder_flags(rest);
    let arguments_at = rest_at + (rest.len() - arguments.len());
    let mut node = Node {
        keyword,
        flags_at: flags.iter().map(|(at, _)| line.position(rest_at + at)).collect(),
        flags: flags.into_iter().map(|(_, flag)| flag).collect(),
        original: trimmed.to_owned(),
        lines: line.lines,
        at: line.position(start),
        arguments_at: line.position(arguments_at),
        ..Node::default()
    };
    let arguments_trimmed = arguments.trim();
    let problem = |problem: Problem| problem.at(line.position(arguments_at));
    match node.keyword.as_str() {
        "onbuild" if trigger => return Err(Problem::BadTrigger("ONBUILD".into()).at(node.at)),
        "onbuild" if !arguments_trimmed.is_empty() => {
            node.trigger = Some(Box::new(parse_line(line, arguments_at, escape, true)?))
        }
        "env" => node.arguments = name_values(arguments_trimmed, "ENV", escape).map_err(problem)?,
        "label" => node.arguments = name_values(arguments_trimmed, "LABEL", escape).map_err(problem)?,
        "arg" => node.arguments = quoted_words(arguments_trimmed, escape),
        "add" | "copy" | "volume" => match json_texts(arguments_trimmed).map_err(problem)? {
            Some(texts) => (node.arguments, node.json) = (texts, true),
            None => node.arguments = split_blanks(arguments_trimmed),
        },
        "cmd" | "entrypoint" | "run" | "shell" => match json_texts(arguments_trimmed).map_err(problem)? {
            Some(texts) => (node.arguments, node.json) = (texts, true),
            None => node.arguments = non_empty(arguments_trimmed),
        },
        "healthcheck" => {
            let end = arguments_trimmed.find(|c: char| c.is_ascii_whitespace()).unwrap_or(arguments_trimmed.len());
            let (kind, command) = arguments_trimmed.split_at(end);
            node.arguments = non_empty(kind);
            match json_texts(command).map_err(problem)? {
                Some(texts) => {
                    node.arguments.extend(texts);
                    node.json = true;
                }
                None => node.arguments.extend(non_empty(command.trim())),
            }
        }
        "expose" | "from" => node.arguments = split_blanks(arguments_trimmed),
        _ => node.arguments = non_empty(arguments_trimmed),
    }
    Ok(node)
}

/// Blanks that separate words: tab, vertical tab, form feed, carriage return, space.
const BLANK: [char; 5] = ['\t', '\u{b}', '\u{c}', '\r', ' '];

fn non_empty(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { vec![text.to_owned()] }
}

/// Reads a JSON list of texts; `None` when the text is no JSON list, which makes it a shell line.
fn json_texts(text: &str) -> Result<Option<Vec<String>>, Problem> {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    let texts: Option<Vec<String>> = values
        .into_iter()
        .map(|value| match value {
            serde_json::Value::String(text) => Some(text),
            _ => None,
        })
        .collect();
    texts.map(Some).ok_or(Problem::JsonNotStrings)
}

/// `ENV name value` or `ENV name=value ...`, as groups of three: name, value, separator.
fn name_values(text: &str, instruction: &'static str, escape: char) -> Result<Vec<String>, Problem> {
    let words = quoted_words(text, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        let Some((name, value)) = text.split_once(BLANK) else {
            return Err(Problem::Arguments { instruction, needs: "needs a name and a value: NAME=value" });
        };
        return Ok(vec![name.to_owned(), value.trim_start_matches(BLANK).to_owned(), String::new()]);
    }
    let mut groups = Vec::with_capacity(words.len() * 3);
    for word in words {
        let Some((name, value)) = word.split_once('=') else { return Err(Problem::NotNameValue { instruction, word }) };
        groups.extend([name.to_owned(), value.to_owned(), "=".to_owned()]);
    }
    Ok(groups)
}

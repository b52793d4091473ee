//! Cuts a template into text and the tokens of its actions.

use super::TemplateError;

/// Kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text outside actions.
    Text,
    /// `{{`.
    Left,
    /// `}}`.
    Right,
    /// White space inside an action; it separates operands.
    Space,
    /// `.Name`.
    Field,
    /// `$` or `$name`.
    Variable,
    /// A function.
    Identifier,
    /// `if`, `range`, ...
    Keyword,
    /// `.`.
    Dot,
    /// `nil`.
    Nil,
    /// `true` or `false`.
    Bool,
    /// A number.
    Number,
    /// `'x'`, still quoted.
    Char,
    /// `"x"` or a raw string, still quoted.
    Quoted,
    /// One of `|`, `(`, `)`, `,`, `:=`, `=`.
    Sign,
    /// The end.
    End,
}

/// One token.
#[derive(Clone, Debug)]
pub(super) struct Token {
    /// Kind.
    pub(super) kind: Kind,
    /// Its text as written; of a [`Kind::Text`], what remains after trimming.
    pub(super) text: String,
    /// Byte offset in the template.
    pub(super) at: usize,
}

const KEYWORDS: [&str; 11] =
    ["block", "break", "continue", "define", "else", "end", "if", "range", "template", "with", "nil"];

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    tokens: Vec<Token>,
    parens: usize,
}

/// Cuts a whole template.
pub(super) fn lex(source: &str) -> Result<Vec<Token>, TemplateError> {
    let mut lexer = Lexer { source, at: 0, tokens: Vec::new(), parens: 0 };
    while lexer.at < source.len() {
        let rest = lexer.rest();
        let Some(open) = rest.find("{{") else {
            lexer.push(Kind::Text, rest.len());
            break;
        };
        if open > 0 {
            let text = &rest[..open];
            // `{{- ` eats the white space before it.
            let kept = if trims_left(&rest[open..]) { text.trim_end_matches(is_space) } else { text };
            let token = Token { kind: Kind::Text, text: kept.to_owned(), at: lexer.at };
            lexer.at += open;
            if !kept.is_empty() {
                lexer.tokens.push(token);
            }
        }
        lexer.action()?;
    }
    lexer.tokens.push(Token { kind: Kind::End, text: String::new(), at: source.len() });
    Ok(lexer.tokens)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Tells whether an action opens with a trim marker: `{{-` and a space.
fn trims_left(action: &str) -> bool {
    action[2..].starts_with('-') && action[3..].starts_with(is_space)
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn fail(&self, message: impl Into<String>) -> TemplateError {
        TemplateError::parse(self.source, self.at, message)
    }

    fn push(&mut self, kind: Kind, length: usize) {
        self.tokens.push(Token { kind, text: self.rest()[..length].to_owned(), at: self.at });
        self.at += length;
    }

    /// Cuts one action from `{{` to behind `}}`.
    fn action(&mut self) -> Result<(), TemplateError> {
        let trim = trims_left(self.rest());
        let inside = if trim { 4 } else { 2 };
        if self.rest()[inside.min(self.rest().len())..].trim_start_matches(|c| trim && is_space(c)).starts_with("/*") {
            return self.comment();
        }
        self.push(Kind::Left, 2);
        if trim {
            self.at += 1;
        }
        self.parens = 0;
        loop {
            let rest = self.rest();
            if rest.starts_with("}}") {
                if self.parens > 0 {
                    return Err(self.fail("unclosed left paren"));
                }
                self.push(Kind::Right, 2);
                return Ok(());
            }
            let spaces = rest.len() - rest.trim_start_matches(is_space).len();
            if spaces > 0 && rest[spaces..].starts_with("-}}") {
                if self.parens > 0 {
                    return Err(self.fail("unclosed left paren"));
                }
                self.at += spaces + 1;
                self.push(Kind::Right, 2);
                self.skip_space();
                return Ok(());
            }
            if spaces > 0 {
                self.push(Kind::Space, spaces);
                continue;
            }
            self.inside()?;
        }
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches(is_space).len();
    }

    fn comment(&mut self) -> Result<(), TemplateError> {
        let end = self.rest().find("*/").ok_or_else(|| self.fail("unclosed comment"))?;
        self.at += end + 2;
        if self.rest().starts_with("}}") {
            self.at += 2;
            return Ok(());
        }
        let rest = self.rest();
        let after = rest.trim_start_matches(is_space);
        if after.len() < rest.len() && after.starts_with("-}}") {
            self.at += rest.len() - after.len() + 3;
            self.skip_space();
            return Ok(());
        }
        Err(self.fail("comment ends before closing delimiter"))
    }

    /// Cuts one token inside an action.
    fn inside(&mut self) -> Result<(), TemplateError> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Err(self.fail("unclosed action")) };
        let second = rest[first.len_utf8()..].chars().next();
        match first {
            ':' if second == Some('=') => self.push(Kind::Sign, 2),
            ':' => return Err(self.fail("expected :=")),
            '|' | '=' | ',' => self.push(Kind::Sign, 1),
            '(' => {
                self.parens += 1;
                self.push(Kind::Sign, 1);
            }
            ')' => {
                self.parens = self.parens.checked_sub(1).ok_or_else(|| self.fail("unexpected right paren"))?;
                self.push(Kind::Sign, 1);
            }
            '"' => return self.quoted('"', Kind::Quoted, "unterminated quoted string"),
            '\'' => return self.quoted('\'', Kind::Char, "unterminated character constant"),
            '`' => {
                let end = rest[1..].find('`').ok_or_else(|| self.fail("unterminated raw quoted string"))?;
                self.push(Kind::Quoted, end + 2);
            }
            '$' => return self.word(1, Kind::Variable),
            '.' if !second.is_some_and(|c| c.is_ascii_digit()) => {
                if second.is_some_and(is_word) {
                    return self.word(1, Kind::Field);
                }
                self.push(Kind::Dot, 1);
            }
            '+' | '-' | '.' | '0'..='9' => return self.number(),
            c if is_word(c) => return self.word(0, Kind::Identifier),
            c => return Err(self.fail(format!("unexpected {:?} in operand", c.to_string()))),
        }
        Ok(())
    }

    fn quoted(&mut self, quote: char, kind: Kind, message: &str) -> Result<(), TemplateError> {
        let mut escaped = false;
        for (index, c) in self.rest().char_indices().skip(1) {
            match c {
                '\n' => break,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == quote => {
                    self.push(kind, index + 1);
                    return Ok(());
                }
                _ => {}
            }
        }
        Err(self.fail(message))
    }

    fn number(&mut self) -> Result<(), TemplateError> {
        let rest = self.rest();
        let mut previous = ' ';
        let end = rest
            .char_indices()
            .find(|&(index, c)| {
                let sign = matches!(c, '+' | '-') && (index == 0 || matches!(previous, 'e' | 'E' | 'p' | 'P'));
                previous = c;
                !(sign || c == '.' || is_word(c))
            })
            .map_or(rest.len(), |(index, _)| index);
        if super::constant::parse_number(&rest[..end]).is_none() {
            return Err(self.fail(format!("bad number syntax: {:?}", &rest[..end])));
        }
        self.push(Kind::Number, end);
        Ok(())
    }

    /// Cuts a word that begins `lead` bytes from here, and checks that something may follow it.
    fn word(&mut self, lead: usize, kind: Kind) -> Result<(), TemplateError> {
        let rest = self.rest();
        let end = rest[lead..].find(|c| !is_word(c)).map_or(rest.len(), |index| lead + index);
        let kind = match &rest[..end] {
            "true" | "false" if kind == Kind::Identifier => Kind::Bool,
            "nil" if kind == Kind::Identifier => Kind::Nil,
            word if kind == Kind::Identifier && KEYWORDS.contains(&word) => Kind::Keyword,
            _ => kind,
        };
        let follows = rest[end..].chars().next();
        let good = follows.is_none_or(|c| is_space(c) || ".,|:()=".contains(c)) || rest[end..].starts_with("}}");
        if !good {
            self.at += end;
            let c = follows.unwrap_or(' ');
            return Err(self.fail(format!("bad character U+{:04X} '{c}'", u32::from(c))));
        }
        self.push(kind, end);
        Ok(())
    }
}

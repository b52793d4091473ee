//! From tokens to a tree; all that Go's parser refuses is refused here, in its words.

use super::TemplateError;
use super::constant::unquote;
use super::lexer::{Kind, Token, lex};
use super::tree::{List, Node, Tree};
use std::collections::HashMap;

/// Deepest nesting of actions and parentheses.
pub(super) const MAX_DEPTH: usize = 100;

pub(super) struct Parser<'a> {
    pub(super) source: &'a str,
    pub(super) tokens: Vec<Token>,
    pub(super) next: usize,
    pub(super) variables: Vec<String>,
    defined: HashMap<String, List>,
    ranges: usize,
    pub(super) depth: usize,
}

/// How a list ended.
#[derive(PartialEq)]
enum Stop {
    End,
    Else,
    EndOfText,
}

/// Parses a template.
pub(super) fn parse(source: &str) -> Result<Tree, TemplateError> {
    let tokens = lex(source)?;
    let mut parser = Parser {
        source,
        tokens,
        next: 0,
        variables: vec!["$".to_owned()],
        defined: HashMap::new(),
        ranges: 0,
        depth: 0,
    };
    let (root, stop) = parser.list(true)?;
    match stop {
        Stop::EndOfText => Ok(Tree { root, defined: parser.defined }),
        Stop::End => Err(parser.fail("unexpected {{end}}")),
        Stop::Else => Err(parser.fail("unexpected {{else}}")),
    }
}

impl Parser<'_> {
    pub(super) fn fail(&self, message: impl Into<String>) -> TemplateError {
        let at = self.tokens.get(self.next).map_or(self.source.len(), |token| token.at);
        TemplateError::parse(self.source, at, message)
    }

    pub(super) fn peek(&self) -> &Token {
        // The last token is always `End`, and nothing consumes it.
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    pub(super) fn take(&mut self) -> Token {
        let token = self.peek().clone();
        if token.kind != Kind::End {
            self.next += 1;
        }
        token
    }

    pub(super) fn skip_space(&mut self) {
        while self.peek().kind == Kind::Space {
            self.next += 1;
        }
    }

    pub(super) fn is_sign(&self, sign: &str) -> bool {
        self.peek().kind == Kind::Sign && self.peek().text == sign
    }

    pub(super) fn unexpected(&self, context: &str) -> TemplateError {
        match self.peek().kind {
            Kind::End => self.fail("unexpected EOF"),
            _ => self.fail(format!("unexpected {:?} in {context}", self.peek().text)),
        }
    }

    fn close(&mut self, context: &str) -> Result<(), TemplateError> {
        self.skip_space();
        if self.peek().kind == Kind::Right {
            self.next += 1;
            return Ok(());
        }
        Err(self.unexpected(context))
    }

    /// Reads nodes until `{{end}}`, `{{else`, or the end of the text.
    fn list(&mut self, top: bool) -> Result<(List, Stop), TemplateError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.fail("actions are nested too deeply"));
        }
        let mut list = Vec::new();
        let stop = loop {
            let token = self.take();
            match token.kind {
                Kind::End => break Stop::EndOfText,
                Kind::Text => list.push(Node::Text(token.text)),
                _ => {
                    self.skip_space();
                    if self.peek().kind != Kind::Keyword {
                        list.push(Node::Action(self.statement("command")?));
                        continue;
                    }
                    match self.take().text.as_str() {
                        "end" => {
                            self.close("end")?;
                            break Stop::End;
                        }
                        "else" => break Stop::Else,
                        "define" if top => self.define()?,
                        keyword => list.push(self.keyword(keyword, token.at)?),
                    }
                }
            }
        };
        self.depth -= 1;
        Ok((list, stop))
    }

    fn keyword(&mut self, keyword: &str, at: usize) -> Result<Node, TemplateError> {
        match keyword {
            "if" | "with" => self.branch(keyword),
            "range" => self.range(),
            "template" => self.template(at),
            "block" => self.block(at),
            "break" | "continue" if self.ranges == 0 => {
                Err(self.fail(format!("{{{{{keyword}}}}} outside {{{{range}}}}")))
            }
            "break" => self.close("{{break}}").map(|()| Node::Break),
            "continue" => self.close("{{continue}}").map(|()| Node::Continue),
            _ => Err(self.fail(format!("unexpected {{{{{keyword}}}}}"))),
        }
    }

    /// Reads the body of a control structure and, if there is one, its `else`.
    fn bodies(&mut self, keyword: &str) -> Result<(List, List), TemplateError> {
        let (then, stop) = self.list(false)?;
        if stop == Stop::EndOfText {
            return Err(self.fail("unexpected EOF"));
        }
        if stop == Stop::End {
            return Ok((then, Vec::new()));
        }
        self.skip_space();
        // `{{else if x}}` is `{{else}}{{if x}}` with one `{{end}}` for both; `with` has the same form.
        if keyword != "range" && self.peek().kind == Kind::Keyword && self.peek().text == keyword {
            self.next += 1;
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(self.fail("actions are nested too deeply"));
            }
            let nested = self.branch(keyword)?;
            self.depth -= 1;
            return Ok((then, vec![nested]));
        }
        self.close("else")?;
        match self.list(false)? {
            (other, Stop::End) => Ok((then, other)),
            (_, Stop::Else) => Err(self.fail("unexpected {{else}}")),
            (_, Stop::EndOfText) => Err(self.fail("unexpected EOF")),
        }
    }

    fn branch(&mut self, keyword: &str) -> Result<Node, TemplateError> {
        let scope = self.variables.len();
        let pipe = self.statement(keyword)?;
        let (then, other) = self.bodies(keyword)?;
        self.variables.truncate(scope);
        Ok(Node::Branch { pipe, then, other, with: keyword == "with" })
    }

    fn range(&mut self) -> Result<Node, TemplateError> {
        let scope = self.variables.len();
        let pipe = self.statement("range")?;
        self.ranges += 1;
        let bodies = self.bodies("range");
        self.ranges -= 1;
        let (body, other) = bodies?;
        self.variables.truncate(scope);
        Ok(Node::Range { pipe, body, other })
    }

    fn name(&mut self, context: &str) -> Result<String, TemplateError> {
        self.skip_space();
        if self.peek().kind != Kind::Quoted {
            return Err(self.unexpected(context));
        }
        let token = self.take();
        unquote(&token.text).ok_or_else(|| self.fail(format!("invalid syntax: {}", token.text)))
    }

    fn template(&mut self, at: usize) -> Result<Node, TemplateError> {
        let name = self.name("template clause")?;
        self.skip_space();
        let start = self.next;
        let pipe = if self.peek().kind == Kind::Right {
            self.next += 1;
            None
        } else {
            Some(self.statement("template clause")?)
        };
        let end =
            self.tokens.get(self.next.max(start).saturating_sub(1)).map_or(self.source.len(), |token| token.at + 2);
        let text = self.source.get(at..end).unwrap_or_default().to_owned();
        Ok(Node::Template { at, text, name, pipe })
    }

    /// Reads the body of `define` and `block`, which sees no variables but `$` and no range around it.
    fn body(&mut self, name: &str) -> Result<(), TemplateError> {
        let variables = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let ranges = std::mem::replace(&mut self.ranges, 0);
        let (body, stop) = self.list(false)?;
        self.variables = variables;
        self.ranges = ranges;
        match stop {
            Stop::End => {
                self.defined.insert(name.to_owned(), body);
                Ok(())
            }
            Stop::Else => Err(self.fail("unexpected {{else}}")),
            Stop::EndOfText => Err(self.fail("unexpected EOF")),
        }
    }

    fn define(&mut self) -> Result<(), TemplateError> {
        let name = self.name("define clause")?;
        self.close("define clause")?;
        self.body(&name)
    }

    fn block(&mut self, at: usize) -> Result<Node, TemplateError> {
        let name = self.name("block clause")?;
        let pipe = self.statement("block clause")?;
        self.body(&name)?;
        Ok(Node::Template { at, text: format!("{{{{block {name:?}}}}}"), name, pipe: Some(pipe) })
    }
}

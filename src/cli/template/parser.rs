//! From tokens to a tree; all that Go's parser refuses is refused here, in its words.

use super::TemplateError;
use super::constant::{parse_number, unquote};
use super::funcs;
use super::lexer::{Kind, Token, lex};
use super::tree::{Call, List, Node, Operand, Pipe, Tree, What};
use std::collections::HashMap;

/// Deepest nesting of actions and parentheses.
const MAX_DEPTH: usize = 100;

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<Token>,
    next: usize,
    variables: Vec<String>,
    defined: HashMap<String, List>,
    ranges: usize,
    depth: usize,
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
    fn fail(&self, message: impl Into<String>) -> TemplateError {
        let at = self.tokens.get(self.next).map_or(self.source.len(), |token| token.at);
        TemplateError::parse(self.source, at, message)
    }

    fn peek(&self) -> &Token {
        // The last token is always `End`, and nothing consumes it.
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        if token.kind != Kind::End {
            self.next += 1;
        }
        token
    }

    fn skip_space(&mut self) {
        while self.peek().kind == Kind::Space {
            self.next += 1;
        }
    }

    fn is_sign(&self, sign: &str) -> bool {
        self.peek().kind == Kind::Sign && self.peek().text == sign
    }

    fn unexpected(&self, context: &str) -> TemplateError {
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

    /// Reads a pipeline up to `}}`.
    fn statement(&mut self, context: &str) -> Result<Pipe, TemplateError> {
        let pipe = self.pipeline(context)?;
        if self.peek().kind != Kind::Right {
            return Err(self.unexpected(context));
        }
        self.next += 1;
        Ok(pipe)
    }

    fn pipeline(&mut self, context: &str) -> Result<Pipe, TemplateError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.fail("parentheses are nested too deeply"));
        }
        self.skip_space();
        let (variables, assign) = self.declaration(context)?;
        let mut commands: Vec<Call> = Vec::new();
        loop {
            self.skip_space();
            let ends = self.peek().kind == Kind::Right || self.is_sign(")");
            if ends && commands.is_empty() {
                return Err(self.fail(format!("missing value for {context}")));
            }
            if ends
                && self.tokens[..self.next]
                    .iter()
                    .rev()
                    .find(|t| t.kind != Kind::Space)
                    .is_some_and(|t| t.text == "|" && t.kind == Kind::Sign)
            {
                return Err(self.fail(format!("missing value for {context}")));
            }
            if ends {
                break;
            }
            let command = self.command(context)?;
            if !commands.is_empty() && matches!(command.operands[0].what, What::Constant(_) | What::Nil | What::Dot) {
                return Err(self.fail(format!("non executable command in pipeline stage {}", commands.len() + 1)));
            }
            commands.push(command);
        }
        // A variable is known only behind the pipeline that declares it.
        if !assign {
            self.variables.extend(variables.iter().cloned());
        }
        self.depth -= 1;
        Ok(Pipe { variables, assign, commands })
    }

    /// Reads `$x :=`, `$x =`, or, in `range`, `$k, $v :=`.
    fn declaration(&mut self, context: &str) -> Result<(Vec<String>, bool), TemplateError> {
        let start = self.next;
        let mut names = Vec::new();
        while self.peek().kind == Kind::Variable {
            names.push(self.take().text);
            self.skip_space();
            let sign = if self.peek().kind == Kind::Sign { self.peek().text.as_str() } else { "" };
            match sign {
                ":=" | "=" => {
                    let assign = sign == "=";
                    self.next += 1;
                    if let Some(unknown) = names.iter().find(|name| assign && !self.variables.contains(name)) {
                        return Err(self.fail(format!("undefined variable {unknown:?}")));
                    }
                    return Ok((names, assign));
                }
                "," if context == "range" && names.len() < 2 => {
                    self.next += 1;
                    self.skip_space();
                }
                "," => return Err(self.fail(format!("too many declarations in {context}"))),
                _ => break,
            }
        }
        self.next = start;
        Ok((Vec::new(), false))
    }

    fn command(&mut self, context: &str) -> Result<Call, TemplateError> {
        let at = self.peek().at;
        let mut operands = Vec::new();
        loop {
            self.skip_space();
            if self.peek().kind == Kind::Right || self.is_sign(")") || self.is_sign("|") {
                break;
            }
            operands.push(self.operand(context)?);
            if !(self.peek().kind == Kind::Space
                || self.peek().kind == Kind::Right
                || self.is_sign(")")
                || self.is_sign("|"))
            {
                return Err(self.unexpected("operand"));
            }
        }
        let text = self.source[at..self.peek().at].trim_end().to_owned();
        if self.is_sign("|") {
            self.next += 1;
        }
        if operands.is_empty() {
            return Err(self.fail("empty command"));
        }
        Ok(Call { at, text, operands })
    }

    fn operand(&mut self, context: &str) -> Result<Operand, TemplateError> {
        let token = self.take();
        let mut at = token.at;
        let what = match token.kind {
            Kind::Identifier if funcs::exists(&token.text) => What::Function(token.text.clone()),
            Kind::Identifier => return Err(self.fail(format!("function {:?} not defined", token.text))),
            Kind::Dot => What::Dot,
            Kind::Nil => What::Nil,
            Kind::Bool => What::Constant((token.text == "true").into()),
            Kind::Number => What::Constant(parse_number(&token.text).ok_or_else(|| self.fail("bad number syntax"))?),
            Kind::Char | Kind::Quoted => {
                let text = unquote(&token.text).ok_or_else(|| self.fail(format!("invalid syntax: {}", token.text)))?;
                match (token.kind, text.chars().next()) {
                    (Kind::Char, Some(c)) if text.len() == c.len_utf8() => What::Constant(u32::from(c).into()),
                    (Kind::Char, _) => return Err(self.fail(format!("malformed character constant: {}", token.text))),
                    _ => What::Constant(text.into()),
                }
            }
            Kind::Field => What::Field(vec![token.text[1..].to_owned()]),
            Kind::Variable if self.variables.contains(&token.text) => What::Variable(token.text.clone(), Vec::new()),
            Kind::Variable => return Err(self.fail(format!("undefined variable {:?}", token.text))),
            Kind::Sign if token.text == "(" => {
                let pipe = self.pipeline("parenthesized pipeline")?;
                if !self.is_sign(")") {
                    return Err(self.unexpected("parenthesized pipeline"));
                }
                self.next += 1;
                What::Chain(Box::new(pipe), Vec::new())
            }
            _ => {
                self.next -= usize::from(token.kind != Kind::End);
                return Err(self.unexpected(context));
            }
        };
        let mut what = what;
        let mut first = true;
        while self.peek().kind == Kind::Field {
            let field = self.take();
            match &mut what {
                What::Field(path) | What::Variable(_, path) | What::Chain(_, path) => {
                    path.push(field.text[1..].to_owned())
                }
                _ => return Err(self.fail(format!("unexpected . after term {:?}", token.text))),
            }
            // Go names the place of the first chained field.
            if std::mem::take(&mut first) {
                at = field.at;
            }
        }
        let text = self.source[token.at..self.peek().at].to_owned();
        Ok(Operand { at, text, what })
    }
}

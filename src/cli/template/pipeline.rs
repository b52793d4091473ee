//! Pipelines of the parser: declarations, commands and their operands.

use super::TemplateError;
use super::constant::{parse_number, unquote};
use super::funcs;
use super::lexer::Kind;
use super::parser::{MAX_DEPTH, Parser};
use super::tree::{Call, Operand, Pipe, What};

impl Parser<'_> {
    /// Reads a pipeline up to `}}`.
    pub(super) fn statement(&mut self, context: &str) -> Result<Pipe, TemplateError> {
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

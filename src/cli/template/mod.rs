//! Go's template language over JSON values, for `--format`.
//!
//! Owns the whole language (actions, pipelines, variables, `range`, `define`) and the functions Docker adds. Data is
//! [`serde_json::Value`]; printing and messages are those of Go's `text/template`. Opens no file, prints nothing.

mod constant;
mod exec;
mod funcs;
mod lexer;
mod parser;
mod pipeline;
mod print;
mod tree;

#[cfg(test)]
mod tests;

pub(super) use print::quote;

use serde_json::Value;
use std::borrow::Cow;

/// A parsed template.
#[derive(Debug)]
pub(super) struct Template {
    source: String,
    tree: tree::Tree,
}

/// Why a template was refused, in Go's words and with the position.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub(super) struct TemplateError(String);

/// What to do about a field that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Fail as for a struct of this name; maps (objects with keys that are no Go fields) print `<no value>`.
    Field(&'static str),
    /// Fail as `inspect` does.
    Key,
}

/// A method of the data: receives the receiver, the name and the arguments; `None` when there is no such method.
pub(super) type Method<'a> = &'a dyn Fn(&Value, &str, &[Cow<'_, Value>]) -> Option<Result<Value, String>>;

/// How a template is carried out.
#[derive(Clone, Copy)]
pub(super) struct Options<'a> {
    /// About fields that do not exist.
    pub(super) missing: Missing,
    /// Methods of the data.
    pub(super) method: Method<'a>,
    /// Whether the functions leave their argument alone, for the header of a table.
    pub(super) header: bool,
}

impl Options<'_> {
    /// Options for data without methods.
    pub(super) fn plain(missing: Missing) -> Self {
        Options { missing, method: &|_, _, _| None, header: false }
    }
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// With Go's message and the line.
    pub(super) fn parse(source: &str) -> Result<Self, TemplateError> {
        Ok(Self { source: source.to_owned(), tree: parser::parse(source)? })
    }

    /// Carries the template out on a value.
    ///
    /// # Errors
    /// With Go's message and position, or when it writes more than 16 MiB or takes more than a million steps.
    pub(super) fn render(&self, data: &Value, options: Options<'_>) -> Result<String, TemplateError> {
        exec::run(&self.source, &self.tree, data, options)
    }
}

impl TemplateError {
    fn parse(source: &str, at: usize, message: impl Into<String>) -> Self {
        let line = source.get(..at).unwrap_or(source).matches('\n').count() + 1;
        Self(format!("template: :{line}: {}", message.into()))
    }

    fn exec(source: &str, at: usize, text: &str, message: impl Into<String>) -> Self {
        let before = source.get(..at).unwrap_or(source);
        let line = before.matches('\n').count() + 1;
        let column = before.rfind('\n').map_or(before.len(), |newline| before.len() - newline - 1);
        Self(format!("template: :{line}:{column}: executing \"\" at <{text}>: {}", message.into()))
    }
}

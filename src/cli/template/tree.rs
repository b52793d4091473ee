//! The tree of a parsed template.

use std::collections::HashMap;

/// A list of nodes.
pub(super) type List = Vec<Node>;

/// A part of a template.
#[derive(Debug)]
pub(super) enum Node {
    /// Text outside actions.
    Text(String),
    /// A pipeline whose value is printed.
    Action(Pipe),
    /// `if` and `with`.
    Branch { pipe: Pipe, then: List, other: List, with: bool },
    /// `range`.
    Range { pipe: Pipe, body: List, other: List },
    /// `template`.
    Template { at: usize, text: String, name: String, pipe: Option<Pipe> },
    /// `break`.
    Break,
    /// `continue`.
    Continue,
}

/// Commands joined by `|`.
#[derive(Debug)]
pub(super) struct Pipe {
    /// Variables declared or assigned.
    pub(super) variables: Vec<String>,
    /// Whether they are assigned (`=`) rather than declared (`:=`).
    pub(super) assign: bool,
    /// The commands.
    pub(super) commands: Vec<Call>,
}

/// An operand with its arguments.
#[derive(Debug)]
pub(super) struct Call {
    /// Offset in the template.
    pub(super) at: usize,
    /// Text as written, for messages.
    pub(super) text: String,
    /// Operand and arguments.
    pub(super) operands: Vec<Operand>,
}

/// An operand.
#[derive(Debug)]
pub(super) struct Operand {
    /// Offset in the template.
    pub(super) at: usize,
    /// Text as written, for messages.
    pub(super) text: String,
    /// What it is.
    pub(super) what: What,
}

/// What an operand is.
#[derive(Debug)]
pub(super) enum What {
    /// `.`.
    Dot,
    /// `nil`.
    Nil,
    /// A constant.
    Constant(serde_json::Value),
    /// `.A.B`.
    Field(Vec<String>),
    /// `$x.A.B`.
    Variable(String, Vec<String>),
    /// `(pipeline).A.B`.
    Chain(Box<Pipe>, Vec<String>),
    /// The name of a function.
    Function(String),
}

/// A parsed template: its own list and those it defines.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// The template itself.
    pub(super) root: List,
    /// Defined templates by name.
    pub(super) defined: HashMap<String, List>,
}

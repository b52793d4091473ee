//! The Dockerfile language: lines, parse tree, typed instructions, word expansion.
//!
//! Given text and lookups; opens no file and never panics on what it reads. Every node knows its lines, every error its
//! column. The rules are the *Dockerfile reference*; where it is silent, BuildKit's parser decides.

mod error;
mod expand;
mod flags;
mod instruction;
mod lexer;
mod mount;
mod parser;
mod pattern;
mod quote;
#[cfg(test)]
mod tests;
mod typed;
mod words;

pub use error::{DockerfileError, LineRange, Position, Problem, excerpt, nearest};
pub use expand::{ExpandError, Expanded, Mode, expand};
pub use instruction::{
    ArgDeclaration, CommandLine, Copy, CopySource, DeviceWish, Dockerfile, From, Healthcheck, Instruction, NameValue,
    Onbuild, Run, RunNetwork, RunSecurity, Stage, Statement, StepCall,
};
pub use lexer::{Directives, Heredoc};
pub use mount::{MountError, MountKind, MountText, RunMount};
pub use parser::{Node, Tree, parse_tree};
pub use quote::{go_quote, go_quote_list};
pub use typed::{parse, parse_trigger};

//! The command line: clap types one file per noun, tables, formats, progress; the only floor that prints.

mod container;
mod context;
mod error;
mod flags;
mod template;
mod verbs;

use std::process::ExitCode;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}

//! The command line: clap types one file per noun, tables, formats, progress; the only floor that prints.

use std::process::ExitCode;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}

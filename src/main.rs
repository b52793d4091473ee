//! Chooses the role of this start from argv, before any thread exists, and nothing else.

use bulkhead::cli::{self, Start};
use bulkhead::shim::{self, Seed};
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::start() {
        Start::Shim => match shim::role() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Start::Plain => cli::main(&mut shim::spawn_shim),
        // The seed is forked before anything is allocated; without one, shims are started by executing ourselves.
        Start::OneContainer => {
            let mut seed = Seed::fork_for_one().ok();
            cli::main(&mut || seed.take().map_or_else(shim::spawn_shim, Seed::become_shim))
        }
        Start::Containers => {
            let seed = Seed::fork().ok();
            cli::main(&mut || seed.as_ref().map_or_else(shim::spawn_shim, Seed::fork_shim))
        }
    }
}

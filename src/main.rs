//! Chooses the role of this start from argv, before any thread exists, and nothing else.

fn main() -> std::process::ExitCode {
    bulkhead::cli::main(&mut || bulkhead::shim::spawn_shim())
}

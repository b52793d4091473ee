//! What every verb is given.

use std::path::PathBuf;

/// What every verb is given.
pub(super) struct Context {
    /// `--root`.
    pub(super) root: PathBuf,
    /// `--run`.
    pub(super) run: PathBuf,
}

//! Fetching a file that the user named by its address, with a line about how that gets on.

use super::pull::Shown;
use crate::cli::container::code_byte;
use crate::cli::error::{Failure, exit};
use crate::cli::progress::ByteProgress;
use crate::cli::terminal::Signals;
use crate::engine::{Attention, Engine, EngineError, Fetched};
use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

/// Does something that waits for other machines; ends at once when the user wants it to. `what` is said then.
pub(in crate::cli) fn interruptible<T>(
    what: &str,
    act: impl FnOnce(BorrowedFd<'_>) -> Result<T, EngineError>,
) -> Result<T, Failure> {
    let signals = Signals::take_endings()?;
    act(signals.as_fd()).map_err(|error| match error {
        EngineError::Interrupted => {
            let number = signals.number().unwrap_or(2);
            Failure::new(code_byte(128 + number), format!("{what} was interrupted"))
        }
        other => Failure::of_engine(exit::FAILED, &other),
    })
}

/// Fetches a file; ends at once when the user wants it to.
pub(in crate::cli) fn download_now(engine: &Engine, address: &str, quiet: bool) -> Result<Fetched, Failure> {
    let stderr = std::io::stderr();
    let live = !quiet && stderr.is_terminal();
    let mut progress = ByteProgress::new(stderr, live, "Fetching", None);
    let said = Shown::plain();
    let fetched = interruptible("the download", |interrupt| {
        let attention = Attention { interrupt: Some(interrupt), tell: &|_| {}, notice: &|notice| said.say(&notice) };
        engine.fetch_file(address, attention, &mut |done, total| {
            progress.of(total);
            // A progress line nobody can read is no reason to stop.
            let _ = progress.at(done, Instant::now());
        })
    });
    let _ = progress.finish();
    fetched
}

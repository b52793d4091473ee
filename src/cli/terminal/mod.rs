//! The user's terminal: raw mode, size, and copying between it and an attached container in one thread.

mod frames;
mod raw;
mod session;
mod signals;

pub(super) use session::{Ending, Framing, Remote, Session};
pub(super) use signals::Signals;

use rustix::termios::{isatty, tcgetwinsize};

/// Returns rows and columns of the terminal of stdout or stdin.
pub(super) fn window_size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(std::io::stdout()).or_else(|_| tcgetwinsize(std::io::stdin())).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Returns the number of columns of stderr's terminal.
pub(super) fn stderr_columns() -> usize {
    tcgetwinsize(std::io::stderr()).map(|size| usize::from(size.ws_col)).ok().filter(|n| *n > 0).unwrap_or(80)
}

/// Tells whether stdin is a terminal.
pub(super) fn stdin_is_terminal() -> bool {
    isatty(std::io::stdin())
}

/// Tells whether stderr is a terminal that shows colours (`NO_COLOR`, `TERM=dumb`).
pub(super) fn stderr_has_colour() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    isatty(std::io::stderr()) && !set("NO_COLOR") && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

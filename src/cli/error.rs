//! Failures as the user sees them: one chain of messages, one hint, one exit code.

use crate::store::Paths;
use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Free bytes below which a file system counts as full once a write to it has failed for want of room.
const CROWDED: u64 = 1 << 20;

/// Exit codes (*facts: the same as Docker's*).
pub(super) mod exit {
    /// The command failed, or its arguments were too many or too few.
    pub(in crate::cli) const FAILED: u8 = 1;
    /// A flag was unknown or badly used; also everything of ours that keeps `run` from starting a container. (126 and
    /// 127 come from the engine.)
    pub(in crate::cli) const USAGE: u8 = 125;
}

/// Why a command ended without success.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Failure {
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    code: u8,
}

/// Result of a verb's function.
pub(super) type Outcome<T = u8> = Result<T, Failure>;

impl Failure {
    /// Makes a failure with an exit code.
    pub(super) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { message: message.into(), causes: Vec::new(), hint: None, code }
    }

    /// Makes a failure of the ordinary kind, exit code 1.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::new(exit::FAILED, message)
    }

    /// Makes a failure from an error and its sources; a source whose text the error already contains is left out.
    pub(super) fn from_error(code: u8, error: &(dyn Error + 'static)) -> Self {
        let mut failure = Self::new(code, error.to_string());
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            let last = failure.causes.last().unwrap_or(&failure.message);
            if !last.contains(&text) {
                failure.causes.push(text);
            }
            source = cause.source();
        }
        failure
    }

    /// Adds a hint on what to do next.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says which of our directories has no room left, and what makes some, when that is the cause.
    pub(super) fn name_full_disk(self, paths: &Paths) -> Self {
        let full = std::io::Error::from(rustix::io::Errno::NOSPC).to_string();
        if self.hint.is_some() || !self.causes.iter().chain([&self.message]).any(|text| text.contains(&full)) {
            return self;
        }
        let crowded = |path: &&PathBuf| {
            rustix::fs::statvfs(path.as_path()).is_ok_and(|found| {
                found.f_bavail.saturating_mul(found.f_frsize) < CROWDED || (found.f_files > 0 && found.f_favail == 0)
            })
        };
        match [&paths.root, &paths.run].into_iter().find(crowded) {
            Some(path) => self.hint(format!(
                "the file system of {} is full: 'bulkhead container prune', 'bulkhead image prune' and 'bulkhead builder prune' make room",
                path.display()
            )),
            None => self,
        }
    }

    /// Says first what it is about.
    pub(super) fn about(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Replaces the exit code.
    pub(super) fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// Tells whether it is the end the user asked for with a signal.
    pub(super) fn is_interruption(&self) -> bool {
        (129..=192).contains(&self.code)
    }

    /// Returns the exit code.
    pub(super) fn exit_code(&self) -> u8 {
        self.code
    }

    /// Tells whether there is nothing to say (the exit code says it all).
    pub(super) fn is_silent(&self) -> bool {
        self.message.is_empty()
    }

    /// Returns the text for stderr, coloured when `colour` is set.
    pub(super) fn render(&self, colour: bool) -> String {
        let paint =
            |word: &str, code: &str| if colour { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() };
        let mut text = format!("{} {}\n", paint("error:", "1;31"), clean(&self.message));
        for cause in &self.causes {
            let _ = writeln!(text, "{} {}", paint("caused by:", "31"), clean(cause));
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "{} {}", paint("hint:", "36"), clean(hint));
        }
        text
    }
}

/// Removes control characters, which messages may carry from images and archives, so that they cannot move the cursor.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        // The reader of our output has gone: that is its wish, not a failure worth words.
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::default()
        } else {
            Self::from_error(exit::FAILED, &error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("open {path}")]
    struct Outer {
        path: &'static str,
        #[source]
        source: std::io::Error,
    }

    #[test]
    fn a_chain_is_printed_once_and_in_order() {
        let error = Outer { path: "/x", source: std::io::Error::from_raw_os_error(2) };
        let text = Failure::from_error(1, &error).hint("make it").render(false);
        assert_eq!(text, "error: open /x\ncaused by: No such file or directory (os error 2)\nhint: make it\n");
    }

    #[test]
    fn escape_sequences_from_outside_do_not_reach_the_terminal() {
        assert_eq!(Failure::failed("bad name \x1b[2J").render(false), "error: bad name \u{fffd}[2J\n");
    }

    #[test]
    fn a_closed_pipe_is_silent_success() {
        let failure = Failure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(failure.is_silent());
        assert_eq!(failure.exit_code(), 0);
    }
}

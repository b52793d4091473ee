//! What is shown while a build runs.

use super::live::Live;
use super::plain::Plain;
use super::raw::Raw;
use crate::base::Timestamp;
use crate::build::BuildEvent;
use crate::cli::error::Failure;
use crate::cli::flags::Parsed;
use crate::cli::terminal::{stderr_columns, stderr_has_colour};
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// Between two drawings of the times of running steps.
const TICK: Duration = Duration::from_millis(200);

/// A form of it.
pub(super) enum Progress {
    Quiet,
    Plain(Plain<std::io::Stderr>),
    Live(Live<std::io::Stderr>),
    Raw(Raw<std::io::Stderr>),
}

impl Progress {
    /// Chooses as the flags say, else as fits stderr.
    pub(super) fn of(parsed: &Parsed) -> Result<Self, Failure> {
        let stderr = std::io::stderr;
        let live = || Self::Live(Live::new(stderr(), stderr_has_colour(), stderr_columns));
        let plain = || Self::Plain(Plain::new(stderr()));
        if parsed.switch("quiet")? {
            return Ok(Self::Quiet);
        }
        match parsed.text("progress").unwrap_or("auto") {
            "auto" | "" if stderr().is_terminal() => Ok(live()),
            "auto" | "" | "plain" => Ok(plain()),
            "tty" => Ok(live()),
            "quiet" => Ok(Self::Quiet),
            "rawjson" => Ok(Self::Raw(Raw::new(stderr()))),
            other => Err(parsed.invalid("progress", other, "it is auto, plain, tty, rawjson or quiet")),
        }
    }

    /// Shows what happened.
    pub(super) fn event(&mut self, event: BuildEvent<'_>) {
        let now = Instant::now();
        // Progress that cannot be written is no reason to stop.
        let _ = match self {
            Self::Quiet => Ok(()),
            Self::Plain(plain) => plain.event(event, now),
            Self::Live(live) => live.event(event, now),
            Self::Raw(raw) => raw.event(event, Timestamp::now()),
        };
    }

    /// Runs `work`, which shows what happens through the function it is given; on a terminal the times go on meanwhile.
    pub(super) fn during<T>(&mut self, work: impl FnOnce(&mut (dyn FnMut(BuildEvent<'_>) + Send)) -> T) -> T {
        if !matches!(self, Self::Live(_)) {
            return work(&mut |event| self.event(event));
        }
        let shared = Mutex::new(self);
        let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
        let (end, ended) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while ended.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                    if let Self::Live(live) = &mut **lock() {
                        let _ = live.tick(Instant::now());
                    }
                }
            });
            let result = work(&mut |event| lock().event(event));
            drop(end);
            result
        })
    }

    /// Tells whether the output of steps has been shown in full.
    pub(super) fn shows_output(&self) -> bool {
        matches!(self, Self::Plain(_) | Self::Raw(_))
    }

    /// Tells whether programs read it.
    pub(super) fn is_for_programs(&self) -> bool {
        matches!(self, Self::Raw(_))
    }

    /// Tells whether nothing is shown.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self, Self::Quiet)
    }

    /// Removes what would be drawn over.
    pub(super) fn finish(&mut self) {
        if let Self::Live(live) = self {
            let _ = live.erase();
        }
    }
}

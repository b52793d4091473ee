//! Progress of work on bytes (`load`, `import`, `save`): a line that is rewritten on a terminal, silence elsewhere.

use crate::base::human_size;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Least time between two writings of the line.
const PAUSE: Duration = Duration::from_millis(100);

/// A line about bytes done.
pub(super) struct ByteProgress<W: Write> {
    out: W,
    live: bool,
    label: String,
    total: Option<u64>,
    written: Option<Instant>,
    shown: bool,
}

impl<W: Write> ByteProgress<W> {
    /// Starts a line; nothing is written unless `live`. `total` is the number of bytes when it is known.
    pub(super) fn new(out: W, live: bool, label: &str, total: Option<u64>) -> Self {
        Self { out, live, label: label.to_owned(), total, written: None, shown: false }
    }

    /// Says how many bytes there are, once that is known.
    pub(super) fn of(&mut self, total: Option<u64>) {
        self.total = total;
    }

    /// Says how many bytes are done.
    ///
    /// # Errors
    /// When the line cannot be written.
    pub(super) fn at(&mut self, done: u64, now: Instant) -> io::Result<()> {
        if !self.live || self.written.is_some_and(|then| now.duration_since(then) < PAUSE) {
            return Ok(());
        }
        self.written = Some(now);
        self.shown = true;
        write!(self.out, "\r\x1b[2K{} {}", self.label, bar(done, self.total))?;
        self.out.flush()
    }

    /// Removes the line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.shown {
            write!(self.out, "\r\x1b[2K")?;
            self.out.flush()?;
        }
        Ok(())
    }
}

/// Draws done and total as Docker does: `[=====>     ]  3.1MB/6.2MB`.
pub(super) fn bar(done: u64, total: Option<u64>) -> String {
    const WIDTH: usize = 50;
    let Some(total) = total.filter(|total| *total > 0) else { return human_size(done) };
    let done = done.min(total);
    let filled = (u128::from(done) * WIDTH as u128 / u128::from(total)) as usize;
    let arrow = if filled < WIDTH { ">" } else { "" };
    let blanks = WIDTH - filled - arrow.len();
    format!("[{}{arrow}{}] {}/{}", "=".repeat(filled), " ".repeat(blanks), human_size(done), human_size(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills() {
        assert_eq!(bar(0, Some(10)), format!("[>{}] 0B/10B", " ".repeat(49)));
        assert_eq!(bar(5, Some(10)), format!("[{}>{}] 5B/10B", "=".repeat(25), " ".repeat(24)));
        assert_eq!(bar(20, Some(10)), format!("[{}] 10B/10B", "=".repeat(50)));
        assert_eq!(bar(1500, None), "1.5kB");
    }

    #[test]
    fn nothing_is_written_where_nobody_looks() {
        let mut out = Vec::new();
        let mut progress = ByteProgress::new(&mut out, false, "load", None);
        progress.at(1, Instant::now()).unwrap();
        progress.finish().unwrap();
        assert!(out.is_empty());
    }

    #[test]
    fn the_line_is_not_rewritten_too_often_and_goes_in_the_end() {
        let (mut out, start) = (Vec::new(), Instant::now());
        let mut progress = ByteProgress::new(&mut out, true, "load", None);
        progress.at(1, start).unwrap();
        progress.at(2, start + Duration::from_millis(1)).unwrap();
        progress.finish().unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "\r\x1b[2Kload 1B\r\x1b[2K");
    }
}

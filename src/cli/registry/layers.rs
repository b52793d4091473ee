//! How a pull or a push gets on: a line for each layer that is drawn over on a terminal, plain lines elsewhere.

use crate::base::{Digest, human_size};
use crate::cli::progress::bar;
use crate::image::registry::LayerEvent;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Least time between two drawings.
const PAUSE: Duration = Duration::from_millis(80);
/// Most lines that are drawn over; the others wait until there is room.
const ROWS: usize = 20;

/// What is said about layers in their states.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Words {
    /// Nothing has happened yet.
    pub(in crate::cli) pending: &'static str,
    /// Bytes are on their way.
    pub(in crate::cli) coming: &'static str,
    /// All bytes are there, and something is still to do.
    pub(in crate::cli) ending: &'static str,
    /// It was there.
    pub(in crate::cli) exists: &'static str,
    /// It is there now.
    pub(in crate::cli) done: &'static str,
}

/// What a layer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Pending,
    Waiting,
    Coming,
    Exists,
    Done,
}

struct Row {
    digest: Digest,
    total: u64,
    bytes: u64,
    state: State,
}

impl Row {
    /// Returns its line; a narrow one has no room for a bar.
    fn text(&self, words: &Words, wide: bool) -> String {
        let what = match self.state {
            State::Pending => words.pending.to_owned(),
            State::Waiting => "Waiting".to_owned(),
            // All bytes are here, and what they hold is still being written.
            State::Coming if self.bytes >= self.total => words.ending.to_owned(),
            State::Coming if !wide => {
                format!("{} {}/{}", words.coming, human_size(self.bytes), human_size(self.total))
            }
            State::Coming => format!("{} {}", words.coming, bar(self.bytes, Some(self.total))),
            State::Exists => words.exists.to_owned(),
            State::Done => words.done.to_owned(),
        };
        format!("{}: {what}", self.digest.short())
    }
}

/// Shows layers.
pub(in crate::cli) struct Layers<W: Write> {
    out: W,
    live: bool,
    columns: fn() -> usize,
    words: Words,
    rows: Vec<Row>,
    /// Lines that will be drawn over.
    drawn: usize,
    drawn_at: Option<Instant>,
}

impl<W: Write> Layers<W> {
    /// Shows nothing yet; `columns` tells the terminal's width.
    pub(in crate::cli) fn new(out: W, live: bool, columns: fn() -> usize, words: Words) -> Self {
        Self { out, live, columns, words, rows: Vec::new(), drawn: 0, drawn_at: None }
    }

    /// Shows what happened.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(in crate::cli) fn event(&mut self, event: LayerEvent<'_>, now: Instant) -> io::Result<()> {
        let (digest, state) = match event {
            LayerEvent::Layers(layers) => {
                let row = |(digest, total): &(Digest, u64)| Row {
                    digest: digest.clone(),
                    total: *total,
                    bytes: 0,
                    state: State::Pending,
                };
                self.rows = layers.iter().map(row).collect();
                return self.draw(now, true);
            }
            LayerEvent::Exists(digest) => (digest, State::Exists),
            LayerEvent::Waiting(digest) => (digest, State::Waiting),
            LayerEvent::Again(digest) => (digest, State::Pending),
            LayerEvent::Bytes(digest, _) => (digest, State::Coming),
            LayerEvent::Done(digest) => (digest, State::Done),
        };
        // One blob may be several layers: the first that is not finished is meant.
        let finished = |row: &&mut Row| matches!(row.state, State::Exists | State::Done);
        let Some(row) = self.rows.iter_mut().find(|row| row.digest == *digest && !finished(row)) else { return Ok(()) };
        row.bytes = match event {
            LayerEvent::Bytes(_, count) => row.bytes + count,
            LayerEvent::Again(_) => 0,
            _ => row.bytes,
        };
        let changed = std::mem::replace(&mut row.state, state) != state;
        if self.live {
            return self.draw(now, false);
        }
        let size = human_size(row.total);
        match state {
            State::Coming if changed => writeln!(self.out, "{}: {} {size}", digest.short(), self.words.coming),
            State::Exists | State::Done => {
                let text = row.text(&self.words, false);
                writeln!(self.out, "{text}")
            }
            _ => Ok(()),
        }
    }

    /// Says something besides the layers.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(in crate::cli) fn say(&mut self, text: &str) -> io::Result<()> {
        self.erase()?;
        writeln!(self.out, "{text}")?;
        if self.live { self.draw(Instant::now(), true) } else { Ok(()) }
    }

    /// Leaves the last state on the screen; after a failure nothing.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(in crate::cli) fn finish(&mut self, whole: bool) -> io::Result<()> {
        if !self.live {
            return Ok(());
        }
        self.erase()?;
        if whole {
            for row in &self.rows {
                writeln!(self.out, "{}", row.text(&self.words, self.is_wide()))?;
            }
        }
        self.rows.clear();
        self.out.flush()
    }

    /// Returns the lines to draw: those in work first where there is not room for all.
    fn lines(&self, rows: usize) -> Vec<String> {
        if self.rows.len() <= rows {
            return self.rows.iter().map(|row| row.text(&self.words, self.is_wide())).collect();
        }
        let active = |row: &&Row| matches!(row.state, State::Coming | State::Waiting);
        let done = self.rows.iter().filter(|row| matches!(row.state, State::Exists | State::Done)).count();
        let mut lines = vec![format!("{done} of {} layers complete", self.rows.len())];
        lines.extend(self.rows.iter().filter(active).take(rows - 1).map(|row| row.text(&self.words, self.is_wide())));
        lines
    }

    /// Tells whether a line has room for a bar, as Docker does.
    fn is_wide(&self) -> bool {
        (self.columns)() > 110
    }

    fn draw(&mut self, now: Instant, at_once: bool) -> io::Result<()> {
        if !self.live || (!at_once && self.drawn_at.is_some_and(|then| now.duration_since(then) < PAUSE)) {
            return Ok(());
        }
        self.erase()?;
        self.drawn_at = Some(now);
        let (width, lines) = ((self.columns)().max(20) - 1, self.lines(ROWS));
        self.drawn = lines.len();
        for line in lines {
            let line: String = line.chars().take(width).collect();
            writeln!(self.out, "{line}")?;
        }
        self.out.flush()
    }

    fn erase(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.drawn) {
            0 => Ok(()),
            lines => write!(self.out, "\x1b[{lines}A\r\x1b[J"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::registry::pull::WORDS;

    fn shown(live: bool, columns: fn() -> usize, act: impl Fn(&mut Layers<&mut Vec<u8>>, &[Digest])) -> String {
        let mut out = Vec::new();
        let digests = [Digest::of(b"a"), Digest::of(b"b")];
        let mut layers = Layers::new(&mut out, live, columns, WORDS);
        let named: Vec<_> = digests.iter().map(|digest| (digest.clone(), 1000)).collect();
        layers.event(LayerEvent::Layers(&named), Instant::now()).unwrap();
        act(&mut layers, &digests);
        let text = String::from_utf8(out).unwrap();
        text.replace(digests[0].short(), "A").replace(digests[1].short(), "B")
    }

    #[test]
    fn plain_lines_say_what_matters() {
        let text = shown(
            false,
            || 80,
            |layers, digests| {
                let now = Instant::now();
                layers.event(LayerEvent::Exists(&digests[0]), now).unwrap();
                for _ in 0..2 {
                    layers.event(LayerEvent::Bytes(&digests[1], 500), now).unwrap();
                }
                layers.say("something else").unwrap();
                layers.event(LayerEvent::Done(&digests[1]), now).unwrap();
                layers.finish(true).unwrap();
            },
        );
        assert_eq!(text, "A: Already exists\nB: Downloading 1kB\nsomething else\nB: Pull complete\n");
    }

    #[test]
    fn a_terminal_is_drawn_over_and_left_whole() {
        for (columns, expected) in [(80, "A: Downloading 500B/1kB\nB: "), (120, "] 500B/1kB\nB: ")] {
            let width: fn() -> usize = if columns == 80 { || 80 } else { || 120 };
            let text = shown(true, width, |layers, digests| {
                let later = Instant::now() + PAUSE;
                layers.event(LayerEvent::Bytes(&digests[0], 500), later).unwrap();
                layers.event(LayerEvent::Bytes(&digests[0], 500), later).unwrap();
                layers.event(LayerEvent::Done(&digests[0]), later).unwrap();
                layers.finish(true).unwrap();
            });
            let frames: Vec<&str> = text.split("\x1b[2A\r\x1b[J").collect();
            assert_eq!(frames.len(), 3, "{text:?}");
            assert_eq!(frames[0], "A: Pulling fs layer\nB: Pulling fs layer\n");
            assert!(frames[1].contains(expected), "{text:?}");
            assert_eq!(frames[2], "A: Pull complete\nB: Pulling fs layer\n");
        }
    }

    #[test]
    fn many_layers_are_summed_up() {
        let mut layers = Layers::new(Vec::new(), true, || 80, WORDS);
        let named: Vec<_> = (0..30_u8).map(|at| (Digest::of(&[at]), 1000)).collect();
        layers.event(LayerEvent::Layers(&named), Instant::now()).unwrap();
        layers.event(LayerEvent::Done(&named[3].0), Instant::now()).unwrap();
        layers.event(LayerEvent::Bytes(&named[9].0, 1000), Instant::now()).unwrap();
        let lines = layers.lines(ROWS);
        assert_eq!(lines, ["1 of 30 layers complete".to_owned(), format!("{}: Extracting", named[9].0.short())]);
    }
}

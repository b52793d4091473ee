//! Progress of a build on a terminal: a line for each finished step, and below them those that run with their last output.

use super::plain::{complete, step_text, visible};
use crate::base::human_size;
use crate::build::BuildEvent;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Lines of output that are shown, of all running steps.
const SHOWN: usize = 6;
/// Lines of a running step's output that are shown beside others.
const LEAST: usize = 2;
/// Least time between two drawings.
const PAUSE: Duration = Duration::from_millis(50);
/// Columns for the time at the end of a line.
const TIME: usize = 9;

/// A step that runs.
struct Running {
    text: String,
    started: Instant,
    lines: VecDeque<String>,
    partial: Vec<u8>,
    /// Bytes that were fetched or copied, and all there will be where that is known.
    moved: Option<(u64, Option<u64>)>,
}

/// Draws a build.
pub(super) struct Live<W: Write> {
    out: W,
    colour: bool,
    columns: fn() -> usize,
    begun: Instant,
    steps: u32,
    done: u32,
    /// By number.
    running: BTreeMap<u32, Running>,
    /// Lines that will be drawn over.
    drawn: usize,
    drawn_at: Option<Instant>,
}

impl<W: Write> Live<W> {
    /// Starts before the first step; `columns` tells the terminal's width.
    pub(super) fn new(out: W, colour: bool, columns: fn() -> usize) -> Self {
        let begun = Instant::now();
        Self { out, colour, columns, begun, steps: 0, done: 0, running: BTreeMap::new(), drawn: 0, drawn_at: None }
    }

    /// Draws what happened.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn event(&mut self, event: BuildEvent<'_>, now: Instant) -> io::Result<()> {
        match event {
            BuildEvent::Explained { .. } => Ok(()),
            BuildEvent::Planned { steps } => {
                self.steps = steps;
                Ok(())
            }
            BuildEvent::Warning { text } => self.settle(&format!(" WARNING: {text}"), None, "33"),
            BuildEvent::StepStarted(label) => {
                let (lines, partial, moved) = (VecDeque::new(), Vec::new(), None);
                self.running.insert(label.id, Running { text: step_text(label), started: now, lines, partial, moved });
                // What is cached is done before anybody could read it.
                if now.duration_since(self.begun) > PAUSE { self.draw(now) } else { Ok(()) }
            }
            BuildEvent::Cached { id } => self.end(id, "CACHED ", None, "36", now),
            BuildEvent::Output { id, bytes } => {
                if let Some(running) = self.running.get_mut(&id) {
                    running.take(bytes);
                }
                self.draw(now)
            }
            BuildEvent::Moved { id, bytes, of } => {
                if let Some(running) = self.running.get_mut(&id) {
                    running.moved = Some((bytes, of));
                }
                self.draw(now)
            }
            BuildEvent::StepDone { id, elapsed } => self.end(id, "", Some(elapsed), "34", now),
            BuildEvent::StepFailed { id } => self.end(id, "ERROR ", self.elapsed(id, now), "31", now),
            BuildEvent::StepCanceled { id } => self.end(id, "CANCELED ", self.elapsed(id, now), "33", now),
            BuildEvent::Finished { image, tags } => {
                self.settle(&format!(" => writing image {image}"), None, "34")?;
                for tag in tags {
                    self.settle(&format!(" => naming to {}", complete(tag)), None, "34")?;
                }
                let total = now.duration_since(self.begun).as_secs_f64();
                self.settle(&format!("[+] Built in {total:.1}s ({0}/{0})", self.steps), None, "32")
            }
        }
    }

    /// Removes what would be drawn over.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn erase(&mut self) -> io::Result<()> {
        if self.drawn > 0 {
            write!(self.out, "\x1b[{}A\x1b[J", self.drawn)?;
            self.drawn = 0;
        }
        self.out.flush()
    }

    /// Draws the times of running steps anew.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn tick(&mut self, now: Instant) -> io::Result<()> {
        if self.running.is_empty() { Ok(()) } else { self.draw(now) }
    }

    fn elapsed(&self, id: u32, now: Instant) -> Option<Duration> {
        self.running.get(&id).map(|running| now.duration_since(running.started))
    }

    /// Leaves a line about a step for good, and draws those that still run.
    fn end(&mut self, id: u32, mark: &str, elapsed: Option<Duration>, colour: &str, now: Instant) -> io::Result<()> {
        self.done += 1;
        let Some(running) = self.running.remove(&id) else { return Ok(()) };
        self.settle(&format!(" => {mark}{}{}", running.text, running.bytes()), elapsed, colour)?;
        self.drawn_at = None;
        if self.running.is_empty() { Ok(()) } else { self.draw(now) }
    }

    fn settle(&mut self, text: &str, elapsed: Option<Duration>, colour: &str) -> io::Result<()> {
        self.erase()?;
        let line = self.line(text, elapsed, colour);
        self.out.write_all(line.as_bytes())?;
        self.out.flush()
    }

    /// Draws the running steps anew.
    fn draw(&mut self, now: Instant) -> io::Result<()> {
        if self.drawn_at.is_some_and(|at| now.duration_since(at) < PAUSE) {
            return Ok(());
        }
        self.drawn_at = Some(now);
        let shown = (SHOWN / self.running.len().max(1)).max(LEAST);
        let (mut text, mut count) = (String::new(), 0);
        for running in self.running.values() {
            let elapsed = Some(now.duration_since(running.started));
            text.push_str(&self.line(&format!(" => {}{}", running.text, running.bytes()), elapsed, "1"));
            let skip = running.lines.len().saturating_sub(shown);
            for line in running.lines.iter().skip(skip) {
                text.push_str(&self.line(&format!(" => => # {line}"), None, "2"));
            }
            count += 1 + running.lines.len() - skip;
        }
        let total = now.duration_since(self.begun).as_secs_f64();
        text.push_str(&self.line(&format!("[+] Building {total:.1}s ({}/{})", self.done, self.steps), None, "1"));
        self.erase()?;
        self.drawn = count + 1;
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Makes a line that fits, with the time at its end.
    fn line(&self, text: &str, elapsed: Option<Duration>, colour: &str) -> String {
        let columns = (self.columns)().clamp(20, 200) - 1;
        let room = columns - if elapsed.is_some() { TIME } else { 0 };
        let (text, width) = fit(text, room);
        let end = elapsed.map_or_else(String::new, |time| {
            let time = format!("{:.1}s", time.as_secs_f64());
            format!("{}{time:>TIME$}", " ".repeat(room - width))
        });
        match self.colour {
            true => format!("\x1b[{colour}m{text}{end}\x1b[0m\n"),
            false => format!("{text}{end}\n"),
        }
    }
}

impl Running {
    /// How much was fetched or copied: ` 1.2MB / 3.4MB`.
    fn bytes(&self) -> String {
        match self.moved {
            None => String::new(),
            Some((bytes, None)) => format!("  {}", human_size(bytes)),
            Some((bytes, Some(of))) if bytes >= of => format!("  {}", human_size(of)),
            Some((bytes, Some(of))) => format!("  {} / {}", human_size(bytes), human_size(of)),
        }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(&bytes[..end]);
            if self.lines.len() == SHOWN {
                self.lines.pop_front();
            }
            self.lines.push_back(visible(&self.partial));
            self.partial.clear();
            bytes = &bytes[end + 1..];
        }
        self.partial.extend_from_slice(bytes);
        // A line without end is cut: it is only looked at.
        self.partial.truncate(64 << 10);
    }
}

/// Cuts a text to a number of columns; returns it with the columns it takes.
fn fit(text: &str, room: usize) -> (String, usize) {
    let width = |c: char| if ('\u{1100}'..='\u{ffdc}').contains(&c) || c > '\u{1f000}' { 2 } else { 1 };
    let (mut fitted, mut used) = (String::new(), 0);
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if used + width(c) > room {
            break;
        }
        used += width(c);
        fitted.push(c);
    }
    (fitted, used)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::StepLabel;

    #[test]
    fn finished_steps_stay_and_the_running_one_is_drawn_over() {
        let mut text = Vec::new();
        let mut live = Live::new(&mut text, false, || 41);
        let start = live.begun;
        let label = StepLabel {
            id: 1,
            stage: "",
            number: 1,
            total: 1,
            text: "RUN make all of it and more",
            lines: Default::default(),
        };
        let second = start + Duration::from_secs(1);
        live.event(BuildEvent::Planned { steps: 1 }, start).unwrap();
        live.event(BuildEvent::StepStarted(&label), start).unwrap();
        live.event(BuildEvent::Output { id: 1, bytes: b"a\nb\n" }, second).unwrap();
        live.event(BuildEvent::StepDone { id: 1, elapsed: Duration::from_millis(1200) }, second).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            " => [1/1] RUN make all of it an     1.0s\n => => # a\n => => # b\n[+] Building 1.0s (0/1)\n\
             \x1b[4A\x1b[J => [1/1] RUN make all of it an     1.2s\n"
        );
    }
}

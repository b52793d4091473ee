//! Progress of a build as lines, in BuildKit's form: for logs and pipes.

use crate::base::human_size;
use crate::build::BuildEvent;
use crate::cli::error::clean;
use crate::oci::Reference;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Longest line kept before it is shown, bytes.
const MAX_LINE: usize = 64 << 10;
/// Least time between two lines about how much was fetched.
const LULL: Duration = Duration::from_secs(2);

/// Writes a line for everything that happens. Lines of steps that go side by side stand as they come, each with its number.
pub(super) struct Plain<W: Write> {
    out: W,
    /// Steps that are under way, by number.
    steps: BTreeMap<u32, Step>,
    /// Number of the last step.
    last: u32,
}

/// A step under way.
struct Step {
    started: Instant,
    /// Output after its last line end.
    partial: Vec<u8>,
    /// When it was last said how much was fetched.
    said: Option<Instant>,
}

impl<W: Write> Plain<W> {
    /// Starts before the first step.
    pub(super) fn new(out: W) -> Self {
        Self { out, steps: BTreeMap::new(), last: 0 }
    }

    /// Writes what happened.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn event(&mut self, event: BuildEvent<'_>, now: Instant) -> io::Result<()> {
        match event {
            BuildEvent::Planned { .. } | BuildEvent::Explained { .. } => Ok(()),
            BuildEvent::Moved { id, bytes, of } => self.moved(id, bytes, of, now),
            BuildEvent::Warning { text } => writeln!(self.out, "WARNING: {}", clean(text)),
            BuildEvent::StepStarted(label) => {
                let gap = if self.last == 0 { "" } else { "\n" };
                self.steps.insert(label.id, Step { started: now, partial: Vec::new(), said: None });
                self.last = label.id;
                writeln!(self.out, "{gap}#{} {}", label.id, step_text(label))
            }
            BuildEvent::Cached { id } => self.end(id, now, "CACHED"),
            BuildEvent::Output { id, bytes } => self.output(id, bytes, now),
            BuildEvent::StepDone { id, elapsed } => self.end(id, now, &format!("DONE {:.1}s", elapsed.as_secs_f64())),
            BuildEvent::StepFailed { id } => self.end(id, now, "ERROR"),
            BuildEvent::StepCanceled { id } => self.end(id, now, "CANCELED"),
            BuildEvent::Finished { image, tags } => {
                let id = self.last + 1;
                write!(self.out, "\n#{id} exporting to image\n#{id} writing image {image} done\n")?;
                for tag in tags {
                    writeln!(self.out, "#{id} naming to {} done", complete(tag))?;
                }
                writeln!(self.out, "#{id} DONE 0.0s")
            }
        }
    }

    /// Says how much was fetched: in the end, and now and then before.
    fn moved(&mut self, id: u32, bytes: u64, of: Option<u64>, now: Instant) -> io::Result<()> {
        let Some(step) = self.steps.get_mut(&id) else { return Ok(()) };
        let due = now.duration_since(step.said.unwrap_or(step.started)) >= LULL;
        if of != Some(bytes) && !due {
            return Ok(());
        }
        step.said = Some(now);
        let seconds = now.duration_since(step.started).as_secs_f64();
        let all = of.map_or_else(String::new, |of| format!(" / {}", human_size(of)));
        writeln!(self.out, "#{id} {seconds:.3} {}{all}", human_size(bytes))
    }

    fn output(&mut self, id: u32, mut bytes: &[u8], now: Instant) -> io::Result<()> {
        let Some(step) = self.steps.get_mut(&id) else { return Ok(()) };
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            step.partial.extend_from_slice(&bytes[..end]);
            step.line(&mut self.out, id, now)?;
            bytes = &bytes[end + 1..];
        }
        step.partial.extend_from_slice(bytes);
        if step.partial.len() > MAX_LINE { step.line(&mut self.out, id, now) } else { Ok(()) }
    }

    /// Writes what is left of a step's output, and how it ended.
    fn end(&mut self, id: u32, now: Instant, how: &str) -> io::Result<()> {
        if let Some(mut step) = self.steps.remove(&id)
            && !step.partial.is_empty()
        {
            step.line(&mut self.out, id, now)?;
        }
        writeln!(self.out, "#{id} {how}")
    }
}

impl Step {
    fn line(&mut self, out: &mut impl Write, id: u32, now: Instant) -> io::Result<()> {
        let seconds = now.duration_since(self.started).as_secs_f64();
        let text = visible(&self.partial);
        self.partial.clear();
        writeln!(out, "#{id} {seconds:.3} {text}")
    }
}

/// Names a step: `[build 2/5] RUN make`.
pub(super) fn step_text(label: &crate::build::StepLabel<'_>) -> String {
    let stage = if label.stage.is_empty() { String::new() } else { format!("{} ", label.stage) };
    format!("[{stage}{}/{}] {}", label.number, label.total, clean(label.text).replace('\n', " "))
}

/// Writes a name in full: `docker.io/library/app:latest`.
pub(super) fn complete(tag: &str) -> String {
    tag.parse::<Reference>().map_or_else(|_| tag.to_owned(), |reference| reference.to_string())
}

/// What a terminal would show of a line in the end: the text after the last carriage return, without escape sequences.
pub(super) fn visible(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let start = line.iter().rposition(|byte| *byte == b'\r').map_or(0, |at| at + 1);
    let text = String::from_utf8_lossy(&line[start..]);
    let mut shown = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' if chars.peek() == Some(&'[') => {
                // A control sequence ends with a letter or the like.
                chars.next();
                while chars.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {}
            }
            '\t' => shown.push('\t'),
            c if c.is_control() => {}
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Digest;
    use crate::build::StepLabel;

    #[test]
    fn a_build_reads_as_buildkits_does() {
        let (mut text, start) = (Vec::new(), Instant::now());
        let mut plain = Plain::new(&mut text);
        let label = |id, stage, text| StepLabel { id, stage, number: id, total: 3, text, lines: Default::default() };
        let image = Digest::of(b"");
        let tags = ["app".to_owned()];
        let later = start + Duration::from_millis(310);
        for (event, at) in [
            (BuildEvent::StepStarted(&label(1, "", "FROM base")), start),
            (BuildEvent::Cached { id: 1 }, start),
            (BuildEvent::StepStarted(&label(2, "web", "RUN make\x1b[2J")), start),
            (BuildEvent::Output { id: 2, bytes: b"one\ntw" }, later),
            (BuildEvent::Output { id: 2, bytes: b"" }, later),
            (BuildEvent::Output { id: 2, bytes: b"o\r\x1b[31m50%\r100%\nlast" }, later),
            (BuildEvent::StepStarted(&label(3, "", "RUN side")), start),
            (BuildEvent::Output { id: 3, bytes: b"half" }, start),
            (BuildEvent::Output { id: 2, bytes: b", and more" }, later),
            (BuildEvent::StepDone { id: 2, elapsed: Duration::from_millis(420) }, later),
            (BuildEvent::StepCanceled { id: 3 }, later),
            (BuildEvent::Finished { image: &image, tags: &tags }, later),
        ] {
            plain.event(event, at).unwrap();
        }
        assert_eq!(
            String::from_utf8(text).unwrap(),
            format!(
                "#1 [1/3] FROM base\n#1 CACHED\n\n#2 [web 2/3] RUN make\u{fffd}[2J\n#2 0.310 one\n#2 0.310 100%\n\n\
                 #3 [3/3] RUN side\n#2 0.310 last, and more\n#2 DONE 0.4s\n#3 0.310 half\n#3 CANCELED\n\n\
                 #4 exporting to image\n#4 writing image {image} done\n\
                 #4 naming to docker.io/library/app:latest done\n#4 DONE 0.0s\n"
            )
        );
    }
}

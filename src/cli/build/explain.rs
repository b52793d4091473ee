//! `build --explain`: for each step, why the cache had it or not.

use super::plain::step_text;
use crate::build::{BuildEvent, Reason};
use crate::cli::context::out;
use crate::cli::error::clean;
use std::collections::BTreeMap;
use std::io;

/// What was said of the steps, by number.
#[derive(Default)]
pub(super) struct Explanation {
    steps: BTreeMap<u32, (String, u32, Option<Reason>)>,
}

impl Explanation {
    /// Notes an event.
    pub(super) fn event(&mut self, event: &BuildEvent<'_>) {
        match event {
            BuildEvent::StepStarted(label) => {
                self.steps.insert(label.id, (step_text(label), label.lines.first, None));
            }
            BuildEvent::Explained { id, reason } => {
                if let Some(step) = self.steps.get_mut(id) {
                    step.2 = Some((*reason).clone());
                }
            }
            _ => {}
        }
    }

    /// Writes it to stdout; a line for each step, or a JSON object on each line.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(super) fn write(&self, json: bool) -> io::Result<()> {
        out(if json { self.json() } else { self.text() })
    }

    fn told(&self) -> impl Iterator<Item = (&String, u32, &Reason)> {
        self.steps.values().filter_map(|(text, line, reason)| Some((text, *line, reason.as_ref()?)))
    }

    fn text(&self) -> String {
        let line = |(step, _, reason): (&String, u32, &Reason)| {
            let mark = if reason.is_cached() { "cached" } else { "done  " };
            format!("{mark}  {step}\n        {}\n", clean(&reason.to_string()))
        };
        self.told().map(line).collect()
    }

    fn json(&self) -> String {
        let line = |(step, line, reason): (&String, u32, &Reason)| {
            let object = serde_json::json!({
                "step": step, "line": line, "cached": reason.is_cached(), "reasons": reason.json(),
            });
            format!("{object}\n")
        };
        self.told().map(line).collect()
    }
}

//! Progress of a build as JSON, a line for each thing that happened: BuildKit's `--progress rawjson`.

use super::plain::step_text;
use crate::base::{Digest, Timestamp};
use crate::build::BuildEvent;
use crate::cli::error::clean;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Writes BuildKit's status objects.
pub(super) struct Raw<W: Write> {
    out: W,
    /// Steps by number: their object.
    steps: BTreeMap<u32, Value>,
}

impl<W: Write> Raw<W> {
    /// Starts before the first step.
    pub(super) fn new(out: W) -> Self {
        Self { out, steps: BTreeMap::new() }
    }

    /// Writes what happened.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn event(&mut self, event: BuildEvent<'_>, now: Timestamp) -> io::Result<()> {
        let time = now.to_string();
        match event {
            BuildEvent::Planned { .. } | BuildEvent::Explained { .. } | BuildEvent::Finished { .. } => Ok(()),
            BuildEvent::Warning { text } => {
                self.line(&json!({ "warnings": [{ "short": STANDARD.encode(clean(text)) }] }))
            }
            BuildEvent::StepStarted(label) => {
                let name = step_text(label);
                let digest = Digest::of(format!("{} {name}", label.id).as_bytes());
                self.steps.insert(label.id, json!({ "digest": digest, "name": name, "started": time }));
                self.vertex(label.id)
            }
            BuildEvent::Cached { id } => {
                self.set(id, "cached", json!(true));
                self.end(id, &time)
            }
            BuildEvent::Moved { id, bytes, of } => {
                let (vertex, started) = match self.steps.get(&id) {
                    Some(step) => (step["digest"].clone(), step["started"].clone()),
                    None => return Ok(()),
                };
                let mut status = json!({ "id": "transfer", "vertex": vertex, "name": "transfer", "current": bytes });
                (status["timestamp"], status["started"]) = (json!(time), started);
                if let Some(of) = of {
                    status["total"] = json!(of);
                }
                self.line(&json!({ "statuses": [status] }))
            }
            BuildEvent::Output { bytes: [], .. } => Ok(()),
            BuildEvent::Output { id, bytes } => {
                let vertex = self.steps.get(&id).map(|step| step["digest"].clone());
                let data = STANDARD.encode(bytes);
                self.line(&json!({ "logs": [{ "vertex": vertex, "stream": 1, "data": data, "timestamp": time }] }))
            }
            BuildEvent::StepDone { id, .. } => self.end(id, &time),
            BuildEvent::StepFailed { id } => {
                self.set(id, "error", json!("the step failed"));
                self.end(id, &time)
            }
            BuildEvent::StepCanceled { id } => {
                self.set(id, "error", json!("canceled: another step failed"));
                self.end(id, &time)
            }
        }
    }

    fn set(&mut self, id: u32, name: &str, value: Value) {
        if let Some(step) = self.steps.get_mut(&id) {
            step[name] = value;
        }
    }

    fn end(&mut self, id: u32, time: &str) -> io::Result<()> {
        self.set(id, "completed", json!(time));
        self.vertex(id)
    }

    fn vertex(&mut self, id: u32) -> io::Result<()> {
        let line = json!({ "vertexes": [self.steps.get(&id)] });
        self.line(&line)
    }

    fn line(&mut self, line: &Value) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::StepLabel;

    #[test]
    fn each_line_is_a_status_of_buildkits() {
        let mut text = Vec::new();
        let mut raw = Raw::new(&mut text);
        let label = StepLabel { id: 1, stage: "", number: 1, total: 1, text: "RUN x", lines: Default::default() };
        for event in [
            BuildEvent::StepStarted(&label),
            BuildEvent::Output { id: 1, bytes: b"hi\n" },
            BuildEvent::Output { id: 1, bytes: b"" },
            BuildEvent::StepDone { id: 1, elapsed: std::time::Duration::ZERO },
        ] {
            raw.event(event, Timestamp(0)).unwrap();
        }
        let lines: Vec<Value> =
            String::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let digest = &lines[0]["vertexes"][0]["digest"];
        assert_eq!(
            lines[0],
            json!({ "vertexes": [{ "digest": digest, "name": "[1/1] RUN x", "started": "1970-01-01T00:00:00Z" }] })
        );
        assert_eq!((&lines[1]["logs"][0]["vertex"], &lines[1]["logs"][0]["data"]), (digest, &json!("aGkK")));
        assert_eq!(lines[2]["vertexes"][0]["completed"], "1970-01-01T00:00:00Z");
        assert_eq!(lines.len(), 3);
    }
}

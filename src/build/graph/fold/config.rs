//! Instructions that change the configuration alone: `ENV`, `ARG`, `EXPOSE`, `HEALTHCHECK`, and what a signal may be called.

use super::super::select::{given, lookup};
use super::super::{PlanError, PlanProblem, history};
use super::Fold;
use crate::build::dockerfile::*;
use crate::oci::{Empty, HealthConfig};
use std::time::Duration;

/// Largest range of `EXPOSE`, so that a line cannot fill the configuration.
const MAX_PORTS: usize = 65_536;

impl Fold<'_> {
    pub(super) fn env(&mut self, pairs: &[NameValue], lines: LineRange) -> Result<(), PlanError> {
        // All values see the environment as it was before this instruction.
        let mut expanded = Vec::new();
        for pair in pairs {
            expanded.push((self.expand(&pair.name, lines)?, self.expand(&pair.value, lines)?));
        }
        let mut text = "ENV".to_owned();
        for (name, value) in expanded {
            text.push_str(&format!(" {name}={value}"));
            let env = &mut self.config.config.env;
            let entry = format!("{name}={value}");
            match env.iter_mut().find(|e| e.split_once('=').map_or(e.as_str(), |(n, _)| n) == name) {
                Some(old) => *old = entry,
                None => env.push(entry),
            }
        }
        self.note(text);
        Ok(())
    }

    pub(super) fn arg(&mut self, declarations: &[ArgDeclaration], lines: LineRange) -> Result<(), PlanError> {
        let mut text = "ARG".to_owned();
        for declaration in declarations {
            let name = self.expand(&declaration.name, lines)?;
            let value = match (given(self.settings, &name), &declaration.default) {
                (Some(value), _) => Some(value.to_owned()),
                (None, Some(default)) => Some(self.expand(default, lines)?),
                (None, None) => lookup(&self.selection.globals)(&name),
            };
            text.push_str(&format!(" {name}"));
            if let Some(value) = value {
                text.push_str(&format!("={value}"));
                self.args.retain(|(n, _)| *n != name);
                self.args.push((name, value));
            }
        }
        self.note(text);
        Ok(())
    }

    pub(super) fn expose(&mut self, words: &[String], lines: LineRange) -> Result<(), PlanError> {
        let mut ports = Vec::new();
        for word in words {
            for spec in self.words(word, lines)? {
                let expected = "a port is written 80, 80/udp or 8000-8010/tcp";
                ports.extend(port_range(&spec).ok_or_else(|| {
                    PlanProblem::Value { instruction: "EXPOSE", value: spec.clone(), expected }.at(lines)
                })?);
                if ports.len() > MAX_PORTS * 2 {
                    return Err(
                        PlanProblem::Value { instruction: "EXPOSE", value: spec, expected: "too many ports" }.at(lines)
                    );
                }
            }
        }
        self.note(history::expose(&ports));
        self.config.config.exposed_ports.extend(ports.into_iter().map(|p| (p, Empty {})));
        Ok(())
    }

    pub(super) fn healthcheck(&self, check: &Healthcheck) -> HealthConfig {
        let Healthcheck::Command { command, interval, timeout, start_period, start_interval, retries } = check else {
            return HealthConfig { test: vec!["NONE".into()], ..HealthConfig::default() };
        };
        let test = match command {
            CommandLine::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
            CommandLine::Exec(args) => std::iter::once("CMD".to_owned()).chain(args.iter().cloned()).collect(),
        };
        let nanos = |time: &Option<Duration>| time.map_or(0, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX));
        HealthConfig {
            test,
            interval: nanos(interval),
            timeout: nanos(timeout),
            start_period: nanos(start_period),
            start_interval: nanos(start_interval),
            retries: retries.unwrap_or(0),
        }
    }
}

/// Reads `[ip:][host:]port[-port][/proto]`; addresses and host ports are dropped, as in Docker.
fn port_range(spec: &str) -> Option<Vec<String>> {
    let (ports, protocol) = spec.split_once('/').unwrap_or((spec, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return None;
    }
    let ports = ports.rsplit(':').next()?;
    let (low, high) = ports.split_once('-').unwrap_or((ports, ports));
    let (low, high): (u16, u16) = (low.parse().ok()?, high.parse().ok()?);
    (low <= high).then(|| (low..=high).map(|port| format!("{port}/{protocol}")).collect())
}

/// Tells whether `STOPSIGNAL` may name this: a number, or a name with or without `SIG`.
pub(super) fn is_signal(text: &str) -> bool {
    const NAMES: [&str; 35] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "IOT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "POLL", "PWR", "SYS", "RTMAX",
    ];
    if let Ok(number) = text.parse::<u32>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES.contains(&name)
        || name == "RTMIN"
        || name
            .strip_prefix("RTMIN+")
            .or_else(|| name.strip_prefix("RTMAX-"))
            .is_some_and(|n| n.parse::<u8>().is_ok_and(|n| n < 31))
}

//! The texts of history entries, as BuildKit writes them.

use super::{CopyPlan, PlannedSource};
use crate::base::format_go_duration;
use crate::build::dockerfile::{go_quote, go_quote_list};
use crate::oci::HealthConfig;
use crate::step::RemoteWish;
use std::time::Duration;

/// `RUN |1 A=b /bin/sh -c make # buildkit`.
pub(super) fn run(args: &[String], build_args: &[(String, String)]) -> String {
    let mut words = Vec::new();
    if !build_args.is_empty() {
        words.push(format!("|{}", build_args.len()));
        words.extend(build_args.iter().map(|(name, value)| format!("{name}={value}")));
    }
    words.extend_from_slice(args);
    format!("RUN {} # buildkit", words.join(" "))
}

/// `COPY --chown=1:1 a b /c/ # buildkit`.
pub(super) fn copy(plan: &CopyPlan, destination: &str) -> String {
    let mut text = if plan.add { "ADD".to_owned() } else { "COPY".to_owned() };
    if let Some(chown) = &plan.chown {
        text.push_str(&format!(" --chown={chown}"));
    }
    if let Some(chmod) = &plan.chmod {
        text.push_str(&format!(" --chmod={chmod}"));
    }
    if let Some(checksum) = plan.sources.iter().find_map(checksum) {
        text.push_str(&format!(" --checksum={checksum}"));
    }
    if plan.link {
        text.push_str(" --link");
    }
    if plan.parents {
        text.push_str(" --parents");
    }
    for source in &plan.sources {
        text.push(' ');
        match source {
            PlannedSource::Path(path) => text.push_str(path),
            PlannedSource::Remote(wish) => text.push_str(&wish.shown()),
            PlannedSource::Inline { name, .. } => text.push_str(&format!("<<{name}")),
        }
    }
    format!("{text} {destination} # buildkit")
}

fn checksum(source: &PlannedSource) -> Option<String> {
    match source {
        PlannedSource::Remote(RemoteWish::File(file)) => file.checksum.as_ref().map(ToString::to_string),
        PlannedSource::Remote(RemoteWish::Repository(repository)) => repository.checksum.clone(),
        _ => None,
    }
}

/// `CMD ["a" "b"]`.
pub(super) fn list(keyword: &str, words: &[String]) -> String {
    format!("{keyword} {}", go_quote_list(words))
}

/// `VOLUME [/a /b]`.
pub(super) fn plain_list(keyword: &str, words: &[String]) -> String {
    format!("{keyword} [{}]", words.join(" "))
}

/// `EXPOSE map[80/tcp:{}]`; ports are sorted as Go prints a map.
pub(super) fn expose(ports: &[String]) -> String {
    let mut ports = ports.to_vec();
    ports.sort();
    ports.dedup();
    let ports: Vec<String> = ports.iter().map(|p| format!("{p}:{{}}")).collect();
    format!("EXPOSE map[{}]", ports.join(" "))
}

/// `HEALTHCHECK &{["CMD-SHELL" "true"] "30s" "0s" "0s" "0s" '\x03'}`: Go's `%q` of the structure.
pub(super) fn healthcheck(health: &HealthConfig) -> String {
    let time = |nanos: u64| go_quote(&format_go_duration(Duration::from_nanos(nanos)));
    let retries = match char::from_u32(health.retries) {
        Some(c @ ('\'' | '\\')) => format!("\\{c}"),
        Some(c) => {
            let quoted = go_quote(&c.to_string());
            quoted.trim_matches('"').replace("\\\"", "\"")
        }
        None => "\u{fffd}".to_owned(),
    };
    format!(
        "HEALTHCHECK &{{{} {} {} {} {} '{retries}'}}",
        go_quote_list(&health.test),
        time(health.interval),
        time(health.timeout),
        time(health.start_period),
        time(health.start_interval),
    )
}

//! Verbs about networks: those every installation has.

use super::container::{confirmed, inspect_flags, inspect_kinds, prune_flags};
use super::context::{Context, out};
use super::error::{Failure, Outcome};
use super::flags::{Flags, Parsed, switch, value};
use super::format::{Listing, Row};
use super::inspect;
use super::verbs::{ANY, Verb};
use crate::engine::Engine;
use crate::shim::Status;
use serde_json::Value;

/// The networks that are always there and their drivers.
const BUILT_IN: [(&str, &str); 3] = [("bridge", "bridge"), ("host", "host"), ("none", "null")];

/// The verbs of this file.
pub(super) static VERBS: &[Verb] = &[
    Verb {
        names: &["network ls", "network list"],
        usage: "network ls [OPTIONS]",
        about: "List networks",
        count: (0, 0),
        interspersed: true,
        flags: ls_flags,
        run: ls,
    },
    Verb {
        names: &["network inspect"],
        usage: "network inspect [OPTIONS] NETWORK [NETWORK...]",
        about: "Display detailed information on one or more networks",
        count: (1, ANY),
        interspersed: true,
        flags: inspect_flags,
        run: |context, parsed| inspect_kinds(context, &parsed, &["network"]),
    },
    Verb {
        names: &["network prune"],
        usage: "network prune [OPTIONS]",
        about: "Remove the bridges and rules of networks without containers",
        count: (0, 0),
        interspersed: true,
        flags: prune_flags,
        run: prune,
    },
];

fn ls_flags(flags: Flags) -> Flags {
    flags
        .arg(value("format", "string", "Format output: 'table', 'table TEMPLATE', 'json' or a Go template"))
        .arg(switch("no-trunc", "Do not truncate the output"))
        .arg(switch("quiet", "Only display network IDs").short('q'))
}

fn ls(_: &Context<'_>, parsed: Parsed) -> Outcome {
    const HEADERS: &[(&str, &str)] = &[
        ("CreatedAt", "CREATED AT"),
        ("Driver", "DRIVER"),
        ("ID", "NETWORK ID"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("Name", "NAME"),
        ("Scope", "SCOPE"),
    ];
    let whole = parsed.switch("no-trunc")?;
    let id = |name: &str| inspect::network_id(name)[..if whole { 64 } else { 12 }].to_owned();
    if parsed.switch("quiet")? && !parsed.given("format") {
        out(BUILT_IN.iter().map(|(name, _)| format!("{}\n", id(name))).collect::<String>())?;
        return Ok(0);
    }
    let row = |(name, driver): &(&str, &str)| {
        Row::new([
            ("CreatedAt", "0001-01-01 00:00:00 +0000 UTC".to_owned()),
            ("Driver", (*driver).to_owned()),
            ("ID", id(name)),
            ("IPv4", "true".to_owned()),
            ("IPv6", "false".to_owned()),
            ("Internal", "false".to_owned()),
            ("Labels", String::new()),
            ("Name", (*name).to_owned()),
            ("Scope", "local".to_owned()),
        ])
    };
    let columns = vec!["ID", "Name", "Driver", "Scope"];
    let listing = Listing {
        kind: "*formatter.networkContext",
        headers: HEADERS,
        columns,
        rows: BUILT_IN.iter().map(row).collect(),
    };
    out(listing.render(parsed.text("format"))?)?;
    Ok(0)
}

fn prune(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let what =
        "the bridges and rules of all networks not used by at least one container; the next start makes them again";
    if !confirmed(&parsed, &format!("This will remove {what}."))? {
        return Ok(0);
    }
    let names = context.engine()?.prune_networks()?;
    if !names.is_empty() {
        out(format!("Deleted Networks:\n{}\n", names.join("\n")))?;
    }
    Ok(0)
}

/// Writes a network by name or id, with the containers on it.
pub(super) fn object(engine: &Engine, name: &str) -> Result<Option<Value>, Failure> {
    let is = |known: &str| known == name || (name.len() >= 3 && inspect::network_id(known).starts_with(name));
    let Some((known, driver)) = BUILT_IN.into_iter().find(|(known, _)| is(known)) else { return Ok(None) };
    let all = engine.list()?;
    let running = |status| matches!(status, Status::Running | Status::Paused);
    let members: Vec<_> = all
        .iter()
        .filter(|container| container.record.network.name == known && running(container.state.status))
        .collect();
    Ok(Some(inspect::network(known, driver, engine.network(known)?.as_ref(), &members)))
}

//! Verbs about volumes.

use super::container::{confirmed, inspect_flags, inspect_kinds, parse_label, parse_pair, prune_flags};
use super::context::{Context, each, out, talk};
use super::error::{Failure, Outcome};
use super::flags::{Flags, Parsed, list, switch, value};
use super::format::{Listing, Row};
use super::verbs::{ANY, Verb, verb};
use crate::engine::VolumeEntry;
use std::collections::BTreeMap;

/// The verbs of this file.
pub(super) static VERBS: &[Verb] = &[
    verb(&["volume create"], "volume create [OPTIONS] [VOLUME]", "Create a volume", (0, 1), create_flags, create),
    verb(&["volume ls", "volume list"], "volume ls [OPTIONS]", "List volumes", (0, 0), ls_flags, ls),
    verb(
        &["volume inspect"],
        "volume inspect [OPTIONS] VOLUME [VOLUME...]",
        "Display detailed information on one or more volumes",
        (1, ANY),
        inspect_flags,
        |context, parsed| inspect_kinds(context, &parsed, &["volume"]),
    ),
    verb(
        &["volume rm", "volume remove"],
        "volume rm [OPTIONS] VOLUME [VOLUME...]",
        "Remove one or more volumes",
        (1, ANY),
        rm_flags,
        rm,
    ),
    verb(&["volume prune"], "volume prune [OPTIONS]", "Remove unused local volumes", (0, 0), volume_prune_flags, prune),
];

fn create_flags(flags: Flags) -> Flags {
    flags
        .arg(value("driver", "string", "Specify volume driver name (local)").short('d'))
        .arg(list("label", "Set metadata for a volume"))
        .arg(value("name", "string", "Specify volume name").hide(true))
}

fn ls_flags(flags: Flags) -> Flags {
    flags
        .arg(list("filter", "Provide filter values (e.g. \"dangling=true\")").short('f'))
        .arg(value("format", "string", "Format output: 'table', 'table TEMPLATE', 'json' or a Go template"))
        .arg(switch("quiet", "Only display volume names").short('q'))
}

fn rm_flags(flags: Flags) -> Flags {
    flags.arg(switch("force", "Force the removal of one or more volumes").short('f'))
}

fn volume_prune_flags(flags: Flags) -> Flags {
    prune_flags(flags).arg(switch("all", "Remove all unused volumes, not just anonymous ones").short('a'))
}

fn create(context: &Context<'_>, parsed: Parsed) -> Outcome {
    if let Some(driver) = parsed.filled("driver").filter(|driver| driver != "local") {
        return Err(parsed.invalid("driver", &driver, "the only driver is local"));
    }
    let labels: BTreeMap<String, String> =
        parsed.read_all("label", |text| parse_label(text).map(|label| vec![label]))?.into_iter().collect();
    let name = parsed.arguments.first().cloned().or_else(|| parsed.filled("name"));
    let volume = context.engine()?.create_volume(name.as_deref(), &labels)?;
    out(format!("{}\n", volume.record.name))?;
    Ok(0)
}

fn ls(context: &Context<'_>, parsed: Parsed) -> Outcome {
    const HEADERS: &[(&str, &str)] = &[
        ("Availability", "AVAILABILITY"),
        ("Driver", "DRIVER"),
        ("Group", "GROUP"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Name", "VOLUME NAME"),
        ("Scope", "SCOPE"),
        ("Size", "SIZE"),
        ("Status", "STATUS"),
    ];
    let filters = parsed.read_all("filter", |text| parse_pair(text).map(|pair| vec![pair]))?;
    let engine = context.engine()?;
    let mut chosen = Vec::new();
    for entry in engine.volumes()? {
        let volume = &entry.record;
        let mut passes = true;
        for (key, wanted) in &filters {
            passes &= match key.as_str() {
                "name" => volume.name.contains(wanted.as_str()),
                "driver" => wanted == "local",
                "label" => {
                    let (key, value) =
                        wanted.split_once('=').map_or((wanted.as_str(), None), |(key, value)| (key, Some(value)));
                    volume.labels.get(key).is_some_and(|found| value.is_none_or(|value| value == found))
                }
                "dangling" => (wanted == "true" || wanted == "1") == engine.volume_users(&volume.name)?.is_empty(),
                _ => return Err(Failure::failed(format!("invalid filter '{key}'"))),
            };
        }
        if passes {
            chosen.push(entry);
        }
    }
    if parsed.switch("quiet")? && !parsed.given("format") {
        out(chosen.iter().map(|entry| format!("{}\n", entry.record.name)).collect::<String>())?;
        return Ok(0);
    }
    let row = |entry: &VolumeEntry| {
        let volume = &entry.record;
        let labels: Vec<String> = volume.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let not_known = || "N/A".to_owned();
        let mut row = Row::new([
            ("Availability", not_known()),
            ("Driver", "local".to_owned()),
            ("Group", not_known()),
            ("Labels", labels.join(",")),
            ("Links", not_known()),
            ("Mountpoint", entry.mountpoint.display().to_string()),
            ("Name", volume.name.clone()),
            ("Scope", "local".to_owned()),
            ("Size", not_known()),
            ("Status", not_known()),
        ]);
        row.labels = volume.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        row
    };
    let rows = chosen.iter().map(row).collect();
    let listing = Listing { kind: "*formatter.volumeContext", headers: HEADERS, columns: vec!["Driver", "Name"], rows };
    out(listing.render(parsed.text("format"))?)?;
    Ok(0)
}

fn rm(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let force = parsed.switch("force")?;
    let engine = context.engine()?;
    each(&parsed.arguments, |name| {
        engine.remove_volume(name, force)?;
        Ok(out(format!("{name}\n"))?)
    })
}

fn prune(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let all = parsed.switch("all")?;
    let what = if all { "all local volumes" } else { "anonymous local volumes" };
    if !confirmed(&parsed, &format!("This will remove {what} not used by at least one container."))? {
        return Ok(0);
    }
    let engine = context.engine()?;
    let mut unused = Vec::new();
    for VolumeEntry { record: volume, .. } in engine.volumes()? {
        if (all || volume.anonymous) && engine.volume_users(&volume.name)?.is_empty() {
            unused.push(volume.name);
        }
    }
    if unused.is_empty() {
        talk("No volume is unused.\n");
        return Ok(0);
    }
    out("Deleted Volumes:\n")?;
    each(&unused, |name| {
        engine.remove_volume(name, false)?;
        Ok(out(format!("{name}\n"))?)
    })
}

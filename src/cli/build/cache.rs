//! `builder prune` and `builder du`.

use crate::base::{Bytes, Digest, Timestamp, human_size};
use crate::build::{self, BuildCache, CacheUse, Entry, Policy, PruneError};
use crate::cli::container::parse_pair;
use crate::cli::context::{Context, out};
use crate::cli::error::{Failure, Outcome, clean, exit};
use crate::cli::flags::{Flags, Parsed, list, switch, value};
use crate::cli::format::{Listing, Row};
use crate::cli::time::{ago, parse_time};
use crate::engine::{CacheMount, Engine};

impl From<PruneError> for Failure {
    fn from(error: PruneError) -> Self {
        Self::from_error(exit::FAILED, &error)
    }
}

/// Flags of `builder prune`.
pub(super) fn prune_flags(flags: Flags) -> Flags {
    flags
        .arg(switch("all", "Remove all build cache, not just what no image needs").short('a'))
        .arg(list("filter", "Provide filter values (e.g. \"until=24h\")"))
        .arg(switch("force", "Do not prompt for confirmation").short('f'))
        .arg(value("keep-storage", "bytes", "Amount of disk space to keep for cache"))
}

/// Flags of `builder du`.
pub(super) fn du_flags(flags: Flags) -> Flags {
    flags
        .arg(list("filter", "Provide filter values (e.g. \"until=24h\")"))
        .arg(value("format", "string", "Format output: 'table', 'table TEMPLATE', 'json' or a Go template"))
        .arg(switch("verbose", "Also show the instructions, and when they were done"))
}

/// Reads the filters; the latest `until` of several counts.
fn unused_since(parsed: &Parsed) -> Result<Option<Timestamp>, Failure> {
    let mut since: Option<Timestamp> = None;
    for (key, value) in parsed.read_all("filter", |text| parse_pair(text).map(|pair| vec![pair]))? {
        if key != "until" && key != "unused-for" {
            return Err(Failure::failed(format!("invalid filter '{key}'")).hint("the filter is until=24h, or a time"));
        }
        let at = parse_time(&value).map_err(|why| parsed.invalid("filter", &format!("{key}={value}"), why))?;
        since = Some(since.map_or(at, |other| other.min(at)));
    }
    Ok(since)
}

fn open(engine: &Engine) -> BuildCache {
    BuildCache::new(&engine.paths.root.join("build/cache"))
}

/// `builder prune`.
pub(super) fn prune(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let all = parsed.switch("all")?;
    let keep = parsed.read("keep-storage", str::parse::<Bytes>)?.map(|bytes| bytes.0);
    let policy = Policy { all, unused_since: unused_since(&parsed)?, keep };
    let what = if all { "all build cache" } else { "all dangling build cache" };
    if !crate::cli::container::confirmed(&parsed, &format!("This will remove {what}."))? {
        return Ok(0);
    }
    let engine = context.engine()?;
    engine.settle_if_possible();
    let pruned = build::prune(&engine, &open(&engine), &policy)?;
    if !pruned.keys.is_empty() || !pruned.mounts.is_empty() {
        out("Deleted build cache objects:\n")?;
        out(pruned.keys.iter().map(|key| format!("{}\n", key.short())).collect::<String>())?;
        out(pruned.mounts.iter().map(|id| format!("cache mount {}\n", clean(id))).collect::<String>())?;
    }
    out(format!("Total reclaimed space: {}\n", human_size(pruned.bytes)))?;
    Ok(0)
}

const HEADERS: &[(&str, &str)] = &[
    ("CreatedSince", "CREATED"),
    ("Description", "DESCRIPTION"),
    ("ID", "ID"),
    ("LastUsedSince", "LAST ACCESSED"),
    ("Parent", "PARENT"),
    ("Reclaimable", "RECLAIMABLE"),
    ("Shared", "SHARED"),
    ("Size", "SIZE"),
];

fn row(entry: &Entry, usage: &CacheUse) -> Row {
    let shared = entry.is_shared(&usage.layers);
    let layer = entry.record.layer.as_ref().and_then(|layer| usage.layers.get(&layer.chain_id));
    Row::new([
        ("CreatedSince", ago(entry.record.created)),
        ("Description", entry.record.title.clone()),
        ("ID", entry.key.short().to_owned()),
        ("LastUsedSince", ago(entry.last_used)),
        ("Parent", entry.record.parent.as_ref().map_or_else(String::new, |id| id.short().to_owned())),
        ("Reclaimable", (!shared).to_string()),
        ("Shared", shared.to_string()),
        ("Size", human_size(layer.map_or(0, |layer| layer.size))),
    ])
}

fn mount_row(mount: &CacheMount) -> Row {
    let id = mount.place.parent().and_then(|key| key.file_name()).unwrap_or_default().to_string_lossy();
    Row::new([
        ("CreatedSince", String::new()),
        ("Description", format!("RUN --mount=type=cache,id={}", mount.id)),
        ("ID", id.chars().take(12).collect()),
        ("LastUsedSince", ago(mount.last_used)),
        ("Parent", String::new()),
        ("Reclaimable", true.to_string()),
        ("Shared", false.to_string()),
        ("Size", human_size(mount.size.0)),
    ])
}

/// `builder du`.
pub(super) fn du(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let since = unused_since(&parsed)?;
    let engine = context.engine()?;
    let cache = open(&engine);
    let mut usage = build::usage(&engine, &cache)?;
    usage.entries.retain(|entry| since.is_none_or(|since| entry.last_used < since));
    usage.entries.sort_by(|a, b| (b.last_used, &a.key).cmp(&(a.last_used, &b.key)));
    let mut columns = vec!["ID", "Reclaimable", "Size", "LastUsedSince"];
    if parsed.switch("verbose")? {
        columns.extend(["CreatedSince", "Shared", "Description"]);
    }
    let mut mounts = engine.cache_mounts().map_err(PruneError::from)?;
    mounts.retain(|mount| since.is_none_or(|since| mount.last_used < since));
    let rows = usage.entries.iter().map(|entry| row(entry, &usage)).chain(mounts.iter().map(mount_row)).collect();
    out(Listing { kind: "*formatter.buildCacheContext", headers: HEADERS, columns, rows }
        .render(parsed.text("format"))?)?;
    if parsed.given("format") {
        return Ok(0);
    }
    let reclaimable = build::held(&usage.entries, &usage.layers) + mounts.iter().map(|mount| mount.size.0).sum::<u64>();
    let ids: std::collections::BTreeSet<&Digest> =
        usage.entries.iter().filter(|entry| entry.is_shared(&usage.layers)).filter_map(Entry::top).collect();
    let shared: u64 = ids.iter().filter_map(|id| usage.layers.get(*id)).map(|layer| layer.size).sum();
    out(format!(
        "\nShared:       {}\nReclaimable:  {}\nTotal:        {}\nLimit:        {}\n",
        human_size(shared),
        human_size(reclaimable),
        human_size(shared + reclaimable),
        human_size(engine.build_cache_limit()?)
    ))?;
    Ok(0)
}

//! Verbs about images.

use super::container::{confirmed, inspect_flags, inspect_kinds, prune_flags};
use super::context::{Context, each, out, talk};
use super::error::{Failure, Outcome, exit};
use super::flags::{Parsed, list, switch, value};
use super::format::{Listing, Row};
use super::progress::ByteProgress;
use super::table::ellipsis;
use super::time::{ago, long_time};
use super::verbs::{ANY, Verb};
use crate::base::{Timestamp, human_size};
use crate::build::{BuildCache, changed_config};
use crate::image::{Image, ImageError, Images, ImportOptions, Removed};
use crate::oci::{ContainerConfig, Reference};
use clap::Command;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::Instant;

/// The verbs of this file.
pub(super) static VERBS: &[Verb] = &[
    verb(
        &["images", "image ls", "image list"],
        "images [OPTIONS] [REPOSITORY[:TAG]]",
        "List images",
        (0, 1),
        images_flags,
        images,
    ),
    verb(
        &["rmi", "image rm", "image remove"],
        "rmi [OPTIONS] IMAGE [IMAGE...]",
        "Remove one or more images",
        (1, ANY),
        rmi_flags,
        rmi,
    ),
    verb(
        &["tag", "image tag"],
        "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
        "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
        (2, 2),
        |command| command,
        tag,
    ),
    verb(
        &["history", "image history"],
        "history [OPTIONS] IMAGE",
        "Show the history of an image",
        (1, 1),
        history_flags,
        history,
    ),
    verb(
        &["image inspect"],
        "image inspect [OPTIONS] IMAGE [IMAGE...]",
        "Display detailed information on one or more images",
        (1, ANY),
        inspect_flags,
        |context, parsed| inspect_kinds(context, &parsed, &["image"]),
    ),
    verb(
        &["load", "image load"],
        "load [OPTIONS]",
        "Load an image from a tar archive or STDIN",
        (0, 0),
        load_flags,
        load,
    ),
    verb(
        &["save", "image save"],
        "save [OPTIONS] IMAGE [IMAGE...]",
        "Save one or more images to a tar archive (streamed to STDOUT by default)",
        (1, ANY),
        save_flags,
        save,
    ),
    verb(
        &["import", "image import"],
        "import [OPTIONS] file|- [REPOSITORY[:TAG]]",
        "Import the contents from a tarball to create a filesystem image",
        (1, 2),
        import_flags,
        import,
    ),
    verb(&["image prune"], "image prune [OPTIONS]", "Remove unused images", (0, 0), image_prune_flags, prune),
];

const fn verb(
    names: &'static [&'static str],
    usage: &'static str,
    about: &'static str,
    count: (usize, usize),
    flags: fn(Command) -> Command,
    run: fn(&Context<'_>, Parsed) -> Outcome,
) -> Verb {
    Verb { names, usage, about, count, interspersed: true, flags, run }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        Self::from_error(exit::FAILED, &error)
    }
}

fn images_flags(command: Command) -> Command {
    command
        .arg(switch("all", "Show all images").short('a'))
        .arg(switch("digests", "Show digests"))
        .arg(list("filter", "Filter output based on conditions provided").short('f'))
        .arg(value("format", "string", "Format output: 'table', 'table TEMPLATE', 'json' or a Go template"))
        .arg(switch("no-trunc", "Don't truncate output"))
        .arg(switch("quiet", "Only show image IDs").short('q'))
}

fn rmi_flags(command: Command) -> Command {
    command.arg(switch("force", "Force removal of the image").short('f'))
}

fn history_flags(command: Command) -> Command {
    command
        .arg(value("format", "string", "Format output: 'table', 'table TEMPLATE', 'json' or a Go template"))
        .arg(switch("human", "Print sizes and dates in human readable format (default true)").short('H'))
        .arg(switch("no-trunc", "Don't truncate output"))
        .arg(switch("quiet", "Only show image IDs").short('q'))
}

fn load_flags(command: Command) -> Command {
    command
        .arg(value("input", "string", "Read from tar archive file, instead of STDIN").short('i'))
        .arg(switch("quiet", "Suppress the load output").short('q'))
}

fn save_flags(command: Command) -> Command {
    command.arg(value("output", "string", "Write to a file, instead of STDOUT").short('o'))
}

fn import_flags(command: Command) -> Command {
    command
        .arg(list("change", "Apply Dockerfile instruction to the created image").short('c'))
        .arg(value("message", "string", "Set commit message for imported image").short('m'))
}

fn image_prune_flags(command: Command) -> Command {
    prune_flags(command).arg(switch("all", "Remove all unused images, not just dangling ones").short('a'))
}

const HEADERS: &[(&str, &str)] = &[
    ("Containers", "CONTAINERS"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedSince", "CREATED"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("SharedSize", "SHARED SIZE"),
    ("Size", "SIZE"),
    ("Tag", "TAG"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("VirtualSize", "VIRTUAL SIZE"),
];

const NONE: &str = "<none>";

/// One name of an image, or an image without a name.
struct Named<'i> {
    image: &'i Image,
    reference: Option<&'i Reference>,
}

impl Named<'_> {
    fn row(&self, whole: bool) -> Row {
        let created = self.image.config.created.unwrap_or(Timestamp::NEVER);
        let since = if created == Timestamp::NEVER { "N/A".to_owned() } else { ago(created) };
        let text = |found: Option<String>| found.unwrap_or_else(|| NONE.to_owned());
        let size = human_size(self.image.size);
        let mut row = Row::new([
            ("Containers", "N/A".to_owned()),
            ("CreatedAt", long_time(created)),
            ("CreatedSince", since),
            ("Digest", if self.reference.is_some() { self.image.manifest.to_string() } else { NONE.to_owned() }),
            ("ID", if whole { self.image.id.to_string() } else { self.image.id.short().to_owned() }),
            ("Repository", text(self.reference.map(Reference::familiar_name))),
            ("SharedSize", "N/A".to_owned()),
            ("Size", size.clone()),
            ("Tag", text(self.reference.and_then(|reference| reference.tag.clone()))),
            ("UniqueSize", "N/A".to_owned()),
            ("VirtualSize", size),
        ]);
        row.labels = self.image.config.config.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        row
    }
}

/// Matches `repository[:tag]` with `*` for any run of letters but `/`.
fn name_matches(pattern: &str, reference: &Reference) -> bool {
    let (name, tag) = (reference.familiar_name(), reference.tag.as_deref().unwrap_or_default());
    let last = pattern.rfind('/').map_or(0, |slash| slash + 1);
    match pattern[last..].split_once(':') {
        Some((short, wanted)) => glob(&format!("{}{short}", &pattern[..last]), &name) && glob(wanted, tag),
        None => glob(pattern, &name),
    }
}

fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p).is_some_and(|c| *c == text[t] || (*c == b'?' && text[t] != b'/')) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((at, from)) = star.filter(|(_, from)| text[*from] != b'/') {
            (p, t) = (at + 1, from + 1);
            star = Some((at, from + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// Tells whether a row passes all `--filter`.
fn passes(named: &Named<'_>, filters: &[(String, String)], all: &[Image]) -> Result<bool, Failure> {
    let created = |name: &str| {
        let bare = name.strip_prefix("sha256:").unwrap_or(name);
        let found = all.iter().find(|image| {
            image.references.iter().any(|reference| reference.familiar() == name || name_matches(name, reference))
                || image.id.hex().starts_with(bare)
        });
        found.map(|image| image.config.created).ok_or_else(|| Failure::failed(format!("No such image: {name}")))
    };
    for (key, value) in filters {
        let holds = match key.as_str() {
            "dangling" => (value == "true" || value == "1") == named.reference.is_none(),
            "reference" => named.reference.is_some_and(|reference| name_matches(value, reference)),
            "label" => {
                let (key, wanted) =
                    value.split_once('=').map_or((value.as_str(), None), |(key, value)| (key, Some(value)));
                let found = named.image.config.config.labels.get(key);
                found.is_some_and(|found| wanted.is_none_or(|wanted| wanted == found))
            }
            "before" => named.image.config.created < created(value)?,
            "since" => named.image.config.created > created(value)?,
            _ => return Err(Failure::failed(format!("invalid filter '{key}'"))),
        };
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
}

fn images(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let filters = parsed.read_all("filter", |text| super::container::parse_pair(text).map(|pair| vec![pair]))?;
    let whole = parsed.switch("no-trunc")?;
    let digests = parsed.switch("digests")?;
    let quiet = parsed.switch("quiet")? && !parsed.given("format");
    let engine = context.engine()?;
    engine.settle_if_possible();
    let all = Images::open(&engine.paths)?.list()?;
    let mut rows = Vec::new();
    let mut ids: Vec<String> = Vec::new();
    for image in &all {
        let references: Vec<Option<&Reference>> =
            if image.references.is_empty() { vec![None] } else { image.references.iter().map(Some).collect() };
        for reference in references {
            let named = Named { image, reference };
            let asked = parsed
                .arguments
                .first()
                .is_none_or(|pattern| reference.is_some_and(|name| name_matches(pattern, name)));
            if !asked || !passes(&named, &filters, &all)? {
                continue;
            }
            let id = if whole { image.id.to_string() } else { image.id.short().to_owned() };
            ids.push(id);
            rows.push(named.row(whole));
        }
    }
    if quiet {
        out(ids.iter().map(|id| format!("{id}\n")).collect::<String>())?;
        return Ok(0);
    }
    let columns = match digests {
        true => vec!["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"],
        false => vec!["Repository", "Tag", "ID", "CreatedSince", "Size"],
    };
    out(Listing { kind: "*formatter.imageContext", headers: HEADERS, columns, rows }.render(parsed.text("format"))?)?;
    Ok(0)
}

fn rmi(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let force = parsed.switch("force")?;
    let engine = context.engine()?;
    each(&parsed.arguments, |name| {
        for removed in engine.remove_image(name, force)? {
            match removed {
                Removed::Untagged(reference) => out(format!("Untagged: {}\n", reference.familiar()))?,
                Removed::Deleted(digest) => out(format!("Deleted: {digest}\n"))?,
            }
        }
        Ok(())
    })
}

pub(super) fn reference(text: &str) -> Result<Reference, Failure> {
    text.parse().map_err(|error| Failure::failed(format!("{text:?} is not an image name: {error}")))
}

fn tag(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let target = reference(&parsed.arguments[1])?;
    let images = Images::open(context.paths())?;
    images.tag(&images.resolve(&parsed.arguments[0])?, &target)?;
    Ok(0)
}

fn history(context: &Context<'_>, parsed: Parsed) -> Outcome {
    const HEADERS: &[(&str, &str)] = &[
        ("Comment", "COMMENT"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("CreatedSince", "CREATED"),
        ("ID", "IMAGE"),
        ("Size", "SIZE"),
    ];
    let whole = parsed.switch("no-trunc")?;
    let human = !parsed.given("human") || parsed.switch("human")?;
    let images = Images::open(context.paths())?;
    let image = images.resolve(&parsed.arguments[0])?;
    let mut rows = Vec::new();
    for (step, size) in images.history(&image) {
        let id = match (rows.is_empty(), whole) {
            (true, true) => image.id.to_string(),
            (true, false) => image.id.short().to_owned(),
            (false, _) => "<missing>".to_owned(),
        };
        let created = step.created.unwrap_or(Timestamp::NEVER);
        let by = step.created_by.replace('\t', " ");
        rows.push(Row::new([
            ("Comment", step.comment),
            ("CreatedAt", created.to_string()),
            ("CreatedBy", if whole { by } else { ellipsis(&by, 45) }),
            (
                "CreatedSince",
                if !human {
                    created.to_string()
                } else if created == Timestamp::NEVER {
                    "N/A".to_owned()
                } else {
                    ago(created)
                },
            ),
            ("ID", id),
            ("Size", if human { human_size(size) } else { size.to_string() }),
        ]));
    }
    if parsed.switch("quiet")? {
        out(rows.iter().filter_map(|row| Some(format!("{}\n", row.fields.get("ID")?.as_str()?))).collect::<String>())?;
        return Ok(0);
    }
    let columns = vec!["ID", "CreatedSince", "CreatedBy", "Size", "Comment"];
    out(Listing { kind: "*formatter.historyContext", headers: HEADERS, columns, rows }.render(parsed.text("format"))?)?;
    Ok(0)
}

/// Opens an archive by name, or stdin.
fn archive(name: Option<&str>, what: &str) -> Result<File, Failure> {
    match name.filter(|name| *name != "-") {
        Some(path) => File::open(path).map_err(|error| Failure::failed(format!("open {path}: {error}"))),
        None => {
            let stdin = std::io::stdin();
            if stdin.is_terminal() {
                return Err(Failure::failed(format!("requested {what} from stdin, but stdin is empty")));
            }
            Ok(File::from(stdin.as_fd().try_clone_to_owned()?))
        }
    }
}

fn load(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let quiet = parsed.switch("quiet")?;
    let file = archive(parsed.text("input"), "load")?;
    let stderr = std::io::stderr();
    let live = !quiet && stderr.is_terminal();
    let mut done = 0;
    let mut progress = ByteProgress::new(stderr, live, "Loading layers", None);
    let loaded = Images::open(context.paths())?.load(&file, &mut |layer| {
        done += layer.bytes;
        // A progress line nobody can read is no reason to stop.
        let _ = progress.at(done, Instant::now());
    });
    let _ = progress.finish();
    let named = |error: ImageError| {
        let failure = Failure::from(error);
        match parsed.text("input").filter(|name| *name != "-") {
            Some(path) => failure.about(&format!("load {path}")),
            None => failure,
        }
    };
    for image in loaded.map_err(named)? {
        for reference in &image.references {
            out(format!("Loaded image: {}\n", reference.familiar()))?;
        }
        if image.references.is_empty() {
            out(format!("Loaded image ID: {}\n", image.image.id))?;
        }
    }
    Ok(0)
}

fn save(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let images = Images::open(context.paths())?;
    let Some(path) = parsed.filled("output") else {
        let stdout = std::io::stdout();
        if stdout.is_terminal() {
            return Err(Failure::failed("cowardly refusing to save to a terminal. Use the -o flag or redirect"));
        }
        let mut writer = BufWriter::with_capacity(1 << 20, stdout.lock());
        images.save(&parsed.arguments, &mut writer)?;
        writer.flush()?;
        return Ok(0);
    };
    // Written beside its place and moved there at the end: a failed save leaves the old file.
    let draft = format!("{path}.tmp{}", std::process::id());
    let write = || -> Result<(), Failure> {
        let file = File::create(&draft).map_err(|error| Failure::failed(format!("create {draft}: {error}")))?;
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        images.save(&parsed.arguments, &mut writer)?;
        writer.flush()?;
        Ok(std::fs::rename(&draft, &path)?)
    };
    write().inspect_err(|_| {
        let _ = std::fs::remove_file(&draft);
    })?;
    Ok(0)
}

fn import(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let source = &parsed.arguments[0];
    if source.starts_with("http://") || source.starts_with("https://") {
        return Err(
            Failure::failed("cannot import from an address").hint(format!("curl -L {source} | bulkhead import - NAME"))
        );
    }
    let name = parsed.arguments.get(1).map(|text| reference(text)).transpose()?;
    let changes: Vec<String> = parsed.all("change").map(str::to_owned).collect();
    let config = changed_config(&ContainerConfig::default(), &changes)
        .map_err(|error| Failure::failed(format!("--change {error}")))?;
    let file = archive(Some(source), "import")?;
    let message = parsed.filled("message").unwrap_or_else(|| format!("Imported from {source}"));
    let options = ImportOptions { reference: name, message, config, platform: None };
    let images = Images::open(context.paths())?;
    let image =
        images.import(&file, &options).map_err(|error| Failure::from(error).about(&format!("import {source}")))?;
    out(format!("{}\n", image.id))?;
    Ok(0)
}

fn prune(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let all = parsed.switch("all")?;
    let what = if all { "all images without at least one container associated to them" } else { "all dangling images" };
    if !confirmed(&parsed, &format!("This will remove {what}."))? {
        return Ok(0);
    }
    let engine = context.engine()?;
    let (mut freed, mut told) = (0, false);
    for image in Images::open(context.paths())?.list()? {
        if (!all && !image.references.is_empty()) || !engine.image_users(&image.id)?.is_empty() {
            continue;
        }
        if !std::mem::replace(&mut told, true) {
            out("Deleted Images:\n")?;
        }
        for removed in engine.remove_image(&image.id.to_string(), true)? {
            match removed {
                Removed::Untagged(reference) => out(format!("untagged: {}\n", reference.familiar()))?,
                Removed::Deleted(digest) => out(format!("deleted: {digest}\n"))?,
            }
        }
        freed += image.size;
    }
    // What the build cache stands on is not unused.
    let roots = BuildCache::new(&context.paths().root.join("build/cache")).roots();
    let roots = roots.map_err(|error| Failure::from_error(exit::FAILED, &error))?;
    freed += engine.collect_images(&roots)?.bytes;
    talk(format!("Total reclaimed space: {}\n", human_size(freed)));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_patterns_with_and_without_a_tag() {
        for (pattern, name, wanted) in [
            ("python", "python:3", true),
            ("python:3", "python:3", true),
            ("python:4", "python:3", false),
            ("py*", "python:3", true),
            ("*", "team/app:1", false),
            ("team/*", "team/app:1", true),
            ("*/app:1", "team/app:1", true),
            ("localhost:5000/app", "localhost:5000/app:1", true),
            ("pyth", "python:3", false),
        ] {
            assert_eq!(name_matches(pattern, &name.parse().unwrap()), wanted, "{pattern} {name}");
        }
    }
}

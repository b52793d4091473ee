//! `images` and `history`.

use crate::base::{Timestamp, human_size};
use crate::cli::context::{Context, out};
use crate::cli::error::{Failure, Outcome};
use crate::cli::flags::{Flags, Parsed, list, switch, value};
use crate::cli::format::{Listing, Row};
use crate::cli::table::ellipsis;
use crate::cli::time::{ago, long_time};
use crate::image::{Image, Images};
use crate::oci::Reference;

pub(super) fn images_flags(flags: Flags) -> Flags {
    flags
        .arg(switch("all", "Show all images").short('a'))
        .arg(switch("digests", "Show digests"))
        .arg(list("filter", "Filter output based on conditions provided").short('f'))
        .arg(value("format", "string", "Format output: 'table', 'table TEMPLATE', 'json' or a Go template"))
        .arg(switch("no-trunc", "Don't truncate output"))
        .arg(switch("quiet", "Only show image IDs").short('q'))
}

pub(super) fn history_flags(flags: Flags) -> Flags {
    flags
        .arg(value("format", "string", "Format output: 'table', 'table TEMPLATE', 'json' or a Go template"))
        .arg(switch("human", "Print sizes and dates in human readable format (default true)").short('H'))
        .arg(switch("no-trunc", "Don't truncate output"))
        .arg(switch("quiet", "Only show image IDs").short('q'))
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
            ("Digest", self.digest().map_or_else(|| NONE.to_owned(), |digest| digest.to_string())),
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

impl Named<'_> {
    /// What the registry of its name calls it.
    fn digest(&self) -> Option<&crate::base::Digest> {
        let reference = self.reference?;
        let known = self.image.digests.iter().find(|known| known.name() == reference.name());
        reference.digest.as_ref().or(known.and_then(|known| known.digest.as_ref()))
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

pub(super) fn images(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let filters = parsed.read_all("filter", |text| crate::cli::container::parse_pair(text).map(|pair| vec![pair]))?;
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

pub(super) fn history(context: &Context<'_>, parsed: Parsed) -> Outcome {
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

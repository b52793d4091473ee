//! `--provenance`, `--sbom`, `--attest`: what is said about a result beside it (*docker buildx build*).

use super::output::Output;
use super::place::Place;
use crate::base::{ContainerId, Digest, Timestamp};
use crate::build::{BuildRequest, Built, PREDICATE, Provenance, provenance, sbom};
use crate::cli::error::{Failure, exit};
use crate::cli::flags::Parsed;
use crate::engine::Builder;
use crate::image::Attestation;
use crate::step::{BuildHost, Tree};
use std::path::Path;

/// Who vouches for a provenance where `builder-id` says nobody else.
const BUILDER: &str = "urn:bulkhead:local";

/// The provenance that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    max: bool,
    builder: String,
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    provenance: Option<Wish>,
    list: bool,
}

/// Reads the value of `--provenance`, or what stands behind `type=provenance`: `true`, `false`, or fields.
fn parse(text: &str) -> Result<Option<Wish>, String> {
    let mut wish = Some(Wish { max: false, builder: BUILDER.to_owned() });
    for field in text.split(',').filter(|field| !field.is_empty()) {
        match (field.split_once('=').unwrap_or((field, "")), &mut wish) {
            (("false" | "0" | "disabled", "") | ("disabled", "true"), _) => wish = None,
            (("true" | "1" | "min", "") | ("disabled", "false") | ("mode", "min") | ("version", "v1"), _) => {}
            (("max", "") | ("mode", "max"), Some(wish)) => wish.max = true,
            (("builder-id", id), Some(wish)) if !id.is_empty() => wish.builder = id.to_owned(),
            (_, None) => {}
            _ => {
                return Err(format!("{field:?} is none of true, false, mode=min|max, builder-id=URI, version=v1"));
            }
        }
    }
    Ok(wish)
}

/// Reads the value of `--sbom`, or what stands behind `type=sbom`.
fn parse_list(text: &str) -> Result<bool, String> {
    match text {
        "" | "true" | "1" | "disabled=false" => Ok(true),
        "false" | "0" | "disabled" | "disabled=true" => Ok(false),
        _ if text.contains("generator=") => {
            Err("the list is made without an image that makes it; true or false".into())
        }
        _ => Err("it is neither true nor false".into()),
    }
}

/// Reads the flags.
pub(super) fn wishes(parsed: &Parsed, outputs: &[Output]) -> Result<Wishes, Failure> {
    let mut wishes = Wishes {
        provenance: parsed.read("provenance", parse)?.flatten(),
        list: parsed.read("sbom", parse_list)?.unwrap_or_default(),
    };
    for text in parsed.all("attest") {
        let refused = |why| parsed.invalid("attest", text, why);
        match text.split_once(',').unwrap_or((text, "")) {
            ("type=provenance", fields) => wishes.provenance = parse(fields).map_err(refused)?,
            ("type=sbom", fields) => wishes.list = parse_list(fields).map_err(refused)?,
            _ => return Err(refused("it is written type=provenance[,mode=min|max] or type=sbom".to_owned())),
        }
    }
    let goes = |output: &Output| match output {
        Output::Archive { .. } | Output::Local { .. } | Output::Tar { .. } => true,
        Output::Image { push, .. } => push.is_some(),
        Output::CacheOnly => false,
    };
    if wishes != Wishes::default() && !outputs.iter().any(goes) {
        return Err(parsed.conflict(
            "--provenance, --sbom: this is said beside an image that is pushed or archived, or beside files, not in the \
             store: add --push, -o type=oci,dest=FILE, or -o DIRECTORY",
        ));
    }
    Ok(wishes)
}

/// Makes what is said about a result.
pub(super) fn said(
    wishes: &Wishes,
    (request, built): (&BuildRequest, &Built),
    (place, builder): (&Place, &Builder<'_>),
    began: Timestamp,
) -> Result<Vec<Attestation>, Failure> {
    let mut said = Vec::new();
    if let Some(Wish { max, builder: id }) = &wishes.provenance {
        let path = place.files.dockerfile_path.as_path();
        // Where it lies on this machine is nobody's business.
        let path = if path.is_absolute() { path.file_name().map_or(path, Path::new) } else { path };
        let materials: Vec<_> = place.materials.iter().cloned().chain(builder.materials()).collect();
        let predicate = provenance(&Provenance {
            max: *max,
            builder: id,
            request,
            built,
            dockerfile: (&path.to_string_lossy(), &place.files.dockerfile),
            source: place.source.as_ref(),
            materials: &materials,
            invocation: ContainerId::generate().as_str(),
            times: (began, Timestamp::now()),
        });
        said.push(Attestation { predicate_type: PREDICATE.to_owned(), predicate });
    }
    if wishes.list {
        // Files without an image are those of its topmost layer.
        let nothing = Digest::of(b"");
        let image = built.image.as_ref().or(built.chain.last()).unwrap_or(&nothing);
        let view = builder.view(&built.chain)?;
        let listed = sbom::packages(view.root()?);
        let (packages, system) =
            listed.map_err(|error| Failure::from_error(exit::FAILED, &error).about("list what is in the result"))?;
        let created =
            request.epoch.map_or_else(Timestamp::now, |seconds| Timestamp(seconds.saturating_mul(1_000_000_000)));
        let name = request.tags.first().map_or(image.as_str(), String::as_str);
        let predicate = sbom::document(&sbom::Document { name, image, system: &system, packages: &packages, created });
        said.push(Attestation { predicate_type: sbom::SPDX.to_owned(), predicate });
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provenance_is_asked_for_as_in_buildx() {
        let wish = |max, builder: &str| Ok(Some(Wish { max, builder: builder.to_owned() }));
        for (text, expected) in [
            ("true", wish(false, BUILDER)),
            ("", wish(false, BUILDER)),
            ("mode=min", wish(false, BUILDER)),
            ("mode=max", wish(true, BUILDER)),
            ("max", wish(true, BUILDER)),
            ("mode=max,builder-id=https://ci.example,version=v1", wish(true, "https://ci.example")),
            ("false", Ok(None)),
            ("mode=max,disabled=true", Ok(None)),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        for text in ["maybe", "mode=most", "builder-id=", "version=v0.2"] {
            assert!(parse(text).is_err_and(|why| why.contains("mode=min|max")), "{text}");
        }
    }
}

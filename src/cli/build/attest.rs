//! `--provenance`, `--sbom`, `--attest`: what is said about an image beside it (*docker buildx build*).

use super::output::Output;
use super::place::Place;
use crate::base::{ContainerId, Timestamp};
use crate::build::{BuildRequest, Built, PREDICATE, Provenance, provenance};
use crate::cli::error::Failure;
use crate::cli::flags::Parsed;
use crate::engine::Builder;
use crate::image::Attestation;
use std::path::Path;

/// Who vouches for a provenance where `builder-id` says nobody else.
const BUILDER: &str = "urn:bulkhead:local";

/// The provenance that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    max: bool,
    builder: String,
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

/// Reads the flags.
pub(super) fn wish(parsed: &Parsed, outputs: &[Output]) -> Result<Option<Wish>, Failure> {
    let no_list = || {
        Failure::failed("--sbom: a list of what is in the image is not made by this version")
            .hint("leave the flag out, or --sbom=false")
    };
    if !matches!(parsed.text("sbom"), None | Some("" | "false" | "disabled" | "0")) {
        return Err(no_list());
    }
    let mut wish = parsed.read("provenance", parse)?.flatten();
    for text in parsed.all("attest") {
        match text.split_once(',').unwrap_or((text, "")) {
            ("type=provenance", fields) => {
                wish = parse(fields).map_err(|why| parsed.invalid("attest", text, why))?;
            }
            ("type=sbom", "disabled=true") => {}
            ("type=sbom", _) => return Err(no_list()),
            _ => return Err(parsed.invalid("attest", text, "it is written type=provenance[,mode=min|max]")),
        }
    }
    let goes = outputs.iter().any(|output| output.pushes().is_some() || matches!(output, Output::Archive { .. }));
    if wish.is_some() && !goes {
        let what = "how an image was made is said beside one that is pushed or archived, not in the store";
        return Err(parsed.conflict(format!("--provenance: {what}: add --push, or -o type=oci,dest=FILE")));
    }
    Ok(wish)
}

/// Makes what is said about an image.
pub(super) fn said(
    wish: Option<&Wish>,
    (request, built): (&BuildRequest, &Built),
    (place, builder): (&Place, &Builder<'_>),
    began: Timestamp,
) -> Vec<Attestation> {
    let Some(Wish { max, builder: id }) = wish else { return Vec::new() };
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
    vec![Attestation { predicate_type: PREDICATE.to_owned(), predicate }]
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

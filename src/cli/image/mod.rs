//! Verbs about images.

mod list;
mod transfer;
mod tree;

use super::container::{confirmed, inspect_flags, inspect_kinds, prune_flags};
use super::context::{Context, NO_IMAGE, each, out, talk};
use super::error::{Failure, Outcome, exit};
use super::flags::{Flags, Parsed, switch};
use super::verbs::{ANY, Verb, verb};
use crate::base::human_size;
use crate::build::BuildCache;
use crate::image::{ImageError, Images, Removed};
use crate::oci::Reference;
use list::{history, history_flags, images, images_flags};
use transfer::{import, import_flags, load, load_flags, save, save_flags};

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
        |flags| flags,
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
        "import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
        "Import the contents from a tarball to create a filesystem image",
        (1, 2),
        import_flags,
        import,
    ),
    verb(
        &["image tree"],
        "image tree [IMAGE...]",
        "Draw the layers of images, and which of them are shared",
        (0, ANY),
        |flags| flags,
        tree::tree,
    ),
    verb(&["image prune"], "image prune [OPTIONS]", "Remove unused images", (0, 0), image_prune_flags, prune),
];

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        let failure = Self::from_error(exit::FAILED, &error);
        match error {
            ImageError::Registry(error) => super::registry::failure(&error),
            ImageError::NotFound(_) => failure.hint(NO_IMAGE),
            _ => failure,
        }
    }
}

fn rmi_flags(flags: Flags) -> Flags {
    flags.arg(switch("force", "Force removal of the image").short('f'))
}

fn image_prune_flags(flags: Flags) -> Flags {
    prune_flags(flags).arg(switch("all", "Remove all unused images, not just dangling ones").short('a'))
}

fn rmi(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let force = parsed.switch("force")?;
    let engine = context.engine()?;
    let cache = build_cache(context);
    each(&parsed.arguments, |name| {
        for removed in engine.remove_image(name, force, &|| cache.roots())? {
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

/// Opens the build cache, whose layers stay when images go.
fn build_cache(context: &Context<'_>) -> BuildCache {
    BuildCache::new(&context.paths().root.join("build/cache"))
}

fn prune(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let all = parsed.switch("all")?;
    let what = if all { "all images without at least one container associated to them" } else { "all dangling images" };
    if !confirmed(&parsed, &format!("This will remove {what}."))? {
        return Ok(0);
    }
    let engine = context.engine()?;
    let (mut freed, mut told) = (0, false);
    let cache = build_cache(context);
    for image in Images::open(context.paths())?.list()? {
        if (!all && !image.references.is_empty()) || !engine.image_users(&image.id)?.is_empty() {
            continue;
        }
        if !std::mem::replace(&mut told, true) {
            out("Deleted Images:\n")?;
        }
        for removed in engine.remove_image(&image.id.to_string(), true, &|| cache.roots())? {
            match removed {
                Removed::Untagged(reference) => out(format!("untagged: {}\n", reference.familiar()))?,
                Removed::Deleted(digest) => {
                    let layer = image.layers.iter().find(|layer| layer.chain_id == digest);
                    freed += layer.map_or(0, |layer| layer.size);
                    out(format!("deleted: {digest}\n"))?;
                }
            }
        }
    }
    freed += engine.collect_images(&|| cache.roots())?.bytes;
    talk(format!("Total reclaimed space: {}\n", human_size(freed)));
    Ok(0)
}

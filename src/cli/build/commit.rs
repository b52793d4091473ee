//! `commit`: an image of a container.

use crate::build::changed_config;
use crate::cli::context::{Context, out};
use crate::cli::error::{Failure, Outcome};
use crate::cli::flags::{Flags, Parsed, list, switch, value};
use crate::cli::image::reference;
use crate::engine::CommitRequest;

/// Flags of `commit`.
pub(super) fn flags(flags: Flags) -> Flags {
    flags
        .arg(value("author", "string", "Author (e.g., \"Jane Doe <jane@example.org>\")").short('a'))
        .arg(list("change", "Apply Dockerfile instruction to the created image").short('c'))
        .arg(value("message", "string", "Commit message").short('m'))
        .arg(switch("pause", "Pause container during commit (default true)").short('p'))
}

/// `commit`.
pub(super) fn run(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let name = parsed.arguments.get(1).map(|text| reference(text)).transpose()?;
    let changes: Vec<String> = parsed.all("change").map(str::to_owned).collect();
    let pause = !parsed.given("pause") || parsed.switch("pause")?;
    let engine = context.engine()?;
    let id = engine.find(&parsed.arguments[0])?;
    let config = changed_config(&engine.commit_config(&id)?, &changes)
        .map_err(|error| Failure::failed(format!("--change {error}")))?;
    let image = engine.commit(
        &id,
        CommitRequest {
            reference: name,
            author: parsed.filled("author").unwrap_or_default(),
            message: parsed.filled("message").unwrap_or_default(),
            config,
            pause,
        },
    )?;
    out(format!("{}\n", image.id))?;
    Ok(0)
}

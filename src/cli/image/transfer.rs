//! Images in and out of archives: `load`, `save`, `import`.

use super::reference;
use crate::build::changed_config;
use crate::cli::context::{Context, out};
use crate::cli::error::{Failure, Outcome};
use crate::cli::flags::{Flags, Parsed, list, switch, value};
use crate::cli::progress::ByteProgress;
use crate::cli::registry::download_now;
use crate::image::{ImageError, Images, ImportOptions};
use crate::oci::ContainerConfig;
use crate::step::is_file_address;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::Instant;

pub(super) fn load_flags(flags: Flags) -> Flags {
    flags
        .arg(value("input", "string", "Read from tar archive file, instead of STDIN").short('i'))
        .arg(switch("quiet", "Suppress the load output").short('q'))
}

pub(super) fn save_flags(flags: Flags) -> Flags {
    flags.arg(value("output", "string", "Write to a file, instead of STDOUT").short('o'))
}

pub(super) fn import_flags(flags: Flags) -> Flags {
    flags
        .arg(list("change", "Apply Dockerfile instruction to the created image").short('c'))
        .arg(value("message", "string", "Set commit message for imported image").short('m'))
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

pub(super) fn load(context: &Context<'_>, parsed: Parsed) -> Outcome {
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

pub(super) fn save(context: &Context<'_>, parsed: Parsed) -> Outcome {
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

pub(super) fn import(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let source = &parsed.arguments[0];
    let name = parsed.arguments.get(1).map(|text| reference(text)).transpose()?;
    let changes: Vec<String> = parsed.all("change").map(str::to_owned).collect();
    let config = changed_config(&ContainerConfig::default(), &changes)
        .map_err(|error| Failure::failed(format!("--change {error}")))?;
    let mut fetched = None;
    let file = match is_file_address(source) {
        true => &fetched.insert(download_now(&context.engine()?, source, false)?).file,
        false => &archive(Some(source), "import")?,
    };
    let message = parsed.filled("message").unwrap_or_else(|| format!("Imported from {source}"));
    let options = ImportOptions { reference: name, message, config, platform: None };
    let images = Images::open(context.paths())?;
    let image =
        images.import(file, &options).map_err(|error| Failure::from(error).about(&format!("import {source}")))?;
    out(format!("{}\n", image.id))?;
    Ok(0)
}

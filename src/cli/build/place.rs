//! The build context that the argument and `-f` name: a directory, a repository, an address, a Dockerfile or an archive on
//! stdin.

use crate::build::{Context as Files, ContextError};
use crate::cli::error::{Failure, exit};
use crate::cli::flags::Parsed;
use crate::cli::registry::{download_now, interruptible};
use crate::engine::{Engine, Fetched, NamedLayout};
use crate::image::{Extracted, Images, may_be_archive};
use crate::step::{Material, Repository, bare_address, is_file_address};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Largest Dockerfile on stdin or behind an address, bytes.
const MAX_STDIN: u64 = 16 << 20;
/// So many bytes tell what something is.
const HEAD: u64 = 512;

/// A context, and what its parts lie in for the length of the build.
pub(super) struct Place {
    pub(super) files: Files,
    pub(super) kept: Vec<Extracted>,
    /// Where the context is from, if it is from elsewhere.
    pub(super) source: Option<Material>,
    /// Images of layouts that stand for names.
    pub(super) layouts: Vec<NamedLayout>,
    /// What further contexts are from elsewhere.
    pub(super) materials: Vec<Material>,
}

/// Where the Dockerfile is.
enum Recipe {
    /// In the context, or, where that is a directory, at a path; by its usual names without one.
    File(Option<String>),
    /// It came from elsewhere.
    Text(String),
}

/// Opens the context.
pub(super) fn open(engine: &Engine, parsed: &Parsed) -> Result<Place, Failure> {
    let cache = engine.paths.root.join("build/cache");
    let place = parsed.arguments[0].as_str();
    let quiet = parsed.switch("quiet")?;
    let recipe = match parsed.filled("file") {
        Some(file) if file == "-" && place == "-" => {
            return Err(parsed.conflict("only one of the context and the Dockerfile can be on stdin"));
        }
        Some(file) if file == "-" => {
            let mut bytes = Vec::new();
            std::io::stdin().lock().take(MAX_STDIN).read_to_end(&mut bytes)?;
            Recipe::Text(text(bytes, "what stands on stdin")?)
        }
        Some(file) if is_file_address(&file) => Recipe::Text(fetched_text(download_now(engine, &file, quiet)?)?),
        file => Recipe::File(file),
    };
    if place == "-" {
        return stdin(engine, recipe, &cache);
    }
    if !Path::new(place).exists() {
        if let Some((root, kept, source)) = repository(engine, place)? {
            return of_tree(root, recipe, kept, Some(source));
        }
        if is_file_address(place) {
            return of_file(engine, place, download_now(engine, place, quiet)?, recipe, &cache);
        }
        if place.contains("://") {
            return Err(Failure::failed(format!("{place}: this kind of address is no context"))
                .hint("a context is a directory, -, http(s)://ADDRESS of an archive, or a repository's URL.git"));
        }
    }
    let files = match recipe {
        Recipe::Text(text) => Files::with_dockerfile(Path::new(place), text, &cache),
        Recipe::File(file) => Files::open(Path::new(place), file.as_deref().map(Path::new), &cache),
    };
    Ok(Place::new(files.map_err(of_context)?))
}

impl Place {
    fn new(files: Files) -> Self {
        Self { files, kept: Vec::new(), source: None, layouts: Vec::new(), materials: Vec::new() }
    }
}

fn of_context(error: ContextError) -> Failure {
    Failure::from_error(exit::FAILED, &error)
}

fn of_tree(root: OwnedFd, recipe: Recipe, kept: Extracted, source: Option<Material>) -> Result<Place, Failure> {
    let files = match recipe {
        Recipe::File(file) => Files::of_tree(root, file.as_deref()),
        Recipe::Text(text) => Files::of_tree_with(root, text),
    };
    Ok(Place { kept: vec![kept], source, ..Place::new(files.map_err(of_context)?) })
}

/// Fetches what a text names where that is a repository.
fn repository(engine: &Engine, place: &str) -> Result<Option<(OwnedFd, Extracted, Material)>, Failure> {
    let refused = |error| Failure::from_error(exit::USAGE, &error).hint("it is written URL.git#REF:DIRECTORY");
    let Some(repository) = Repository::parse_context(place).map_err(refused)? else { return Ok(None) };
    let fetched = interruptible("the build", |interrupt| engine.fetch_context(&repository, Some(interrupt)));
    fetched.map(Some).map_err(|failure| failure.hint("it is written URL.git#REF:DIRECTORY"))
}

/// Fetches what a further context is named by: a repository, or an archive behind an address; `None` where it is neither.
pub(super) fn remote_tree(
    engine: &Engine,
    place: &str,
    quiet: bool,
) -> Result<Option<(OwnedFd, Extracted, Material)>, Failure> {
    if let Some(found) = repository(engine, place)? {
        return Ok(Some(found));
    }
    if !is_file_address(place) {
        return Ok(None);
    }
    let mut fetched = download_now(engine, place, quiet)?;
    if !may_be_archive(&head(&mut fetched)?) {
        return Err(Failure::failed(format!("{place}: what came is no archive (tar; plain, gzip, zstd, bzip2 or xz)")));
    }
    let (root, kept) = unpacked(engine, &fetched.file)?;
    Ok(Some((root, kept, material(place, &fetched))))
}

/// Takes a file that came from an address: an archive, or a Dockerfile without a context.
fn of_file(
    engine: &Engine,
    address: &str,
    mut fetched: Fetched,
    recipe: Recipe,
    cache: &Path,
) -> Result<Place, Failure> {
    let source = material(address, &fetched);
    if may_be_archive(&head(&mut fetched)?) {
        let (root, kept) = unpacked(engine, &fetched.file)?;
        return of_tree(root, recipe, kept, Some(source));
    }
    match recipe {
        Recipe::File(None) => {
            let place = without_context(engine, fetched_text(fetched)?, cache)?;
            Ok(Place { source: Some(source), ..place })
        }
        _ => Err(Failure::failed("what the address serves is no archive, so it is no context for -f")),
    }
}

fn material(address: &str, fetched: &Fetched) -> Material {
    Material::content(bare_address(address), &fetched.download.digest)
}

/// A Dockerfile alone.
fn without_context(engine: &Engine, text: String, cache: &Path) -> Result<Place, Failure> {
    let files = Files::with_dockerfile(&engine.empty_directory()?, text, cache);
    Ok(Place::new(files.map_err(of_context)?))
}

fn unpacked(engine: &Engine, archive: &File) -> Result<(OwnedFd, Extracted), Failure> {
    let kept = Images::open(&engine.paths)?.extract(archive);
    let kept = kept.map_err(|error| Failure::from(error).about("unpack the context"))?;
    Ok((kept.root().try_clone_to_owned()?, kept))
}

/// Reads the beginning of a file, and goes back there.
fn head(fetched: &mut Fetched) -> Result<Vec<u8>, Failure> {
    let mut head = Vec::new();
    (&fetched.file).take(HEAD).read_to_end(&mut head)?;
    fetched.file.rewind()?;
    Ok(head)
}

fn fetched_text(fetched: Fetched) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    (&fetched.file).take(MAX_STDIN + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_STDIN {
        return Err(Failure::failed("what the address serves is larger than 16 MiB, so it is no Dockerfile"));
    }
    text(bytes, "what the address serves")
}

/// Takes a Dockerfile, or an archive (tar; plain, gzip, zstd, bzip2 or xz) as context, from stdin.
fn stdin(engine: &Engine, recipe: Recipe, cache: &Path) -> Result<Place, Failure> {
    let mut stdin = std::io::stdin().lock();
    let mut head = Vec::new();
    stdin.by_ref().take(HEAD).read_to_end(&mut head)?;
    if !may_be_archive(&head) {
        if !matches!(recipe, Recipe::File(None)) {
            return Err(Failure::failed("what stands on stdin is no archive, so it holds no Dockerfile for -f"));
        }
        stdin.take(MAX_STDIN).read_to_end(&mut head)?;
        return without_context(engine, text(head, "what stands on stdin")?, cache);
    }
    let (read, write) = std::io::pipe()?;
    let (root, kept) = std::thread::scope(|scope| {
        // What was read already goes first. A reader that has gone is told of by the unpacker.
        scope.spawn(move || -> std::io::Result<()> {
            let mut write = write;
            write.write_all(&head)?;
            std::io::copy(&mut std::io::stdin().lock(), &mut write).map(drop)
        });
        drop(stdin);
        unpacked(engine, &File::from(OwnedFd::from(read)))
    })?;
    of_tree(root, recipe, kept, None)
}

fn text(bytes: Vec<u8>, what: &str) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|_| Failure::failed(format!("{what} is no text, so it is no Dockerfile")))
}

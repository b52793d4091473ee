//! The build context that the argument and `-f` name: a directory, a repository, a Dockerfile or an
//! archive on stdin.

use super::git::Repository;
use crate::build::{Context as Files, is_archive};
use crate::cli::error::{Failure, exit};
use crate::cli::flags::Parsed;
use crate::engine::Engine;
use crate::image::{Extracted, Images};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// Largest Dockerfile on stdin, bytes.
const MAX_STDIN: u64 = 16 << 20;
/// So many bytes tell what is on stdin.
const HEAD: usize = 512;

/// A context, and what it lies in for the length of the build.
pub(super) struct Place {
    pub(super) files: Files,
    _unpacked: Option<Extracted>,
}

/// Opens the context.
pub(super) fn open(engine: &Engine, parsed: &Parsed) -> Result<Place, Failure> {
    let cache = engine.paths.root.join("build/cache");
    let place = parsed.arguments[0].as_str();
    let file = parsed.filled("file");
    if !Path::new(place).exists() {
        if let Some(repository) = Repository::parse(place) {
            let (root, unpacked) = repository.fetch(&Images::open(&engine.paths)?)?;
            let files = Files::of_tree(root, file.as_deref());
            let files = files.map_err(|error| Failure::from_error(exit::FAILED, &error))?;
            return Ok(Place { files, _unpacked: Some(unpacked) });
        }
        if place.contains("://") {
            return Err(Failure::failed(format!("{place}: an address is no context; a repository's ends with .git"))
                .hint("curl -L ADDRESS | bulkhead build -"));
        }
    }
    let opened = match (place, file.as_deref()) {
        ("-", Some("-")) => {
            return Err(parsed.conflict("only one of the context and the Dockerfile can be on stdin"));
        }
        ("-", file) => return stdin(engine, file, &cache),
        (place, Some("-")) => {
            let mut bytes = Vec::new();
            std::io::stdin().lock().take(MAX_STDIN).read_to_end(&mut bytes)?;
            Files::with_dockerfile(Path::new(place), text(bytes)?, &cache)
        }
        (place, file) => Files::open(Path::new(place), file.map(Path::new), &cache),
    };
    let files = opened.map_err(|error| Failure::from_error(exit::FAILED, &error))?;
    Ok(Place { files, _unpacked: None })
}

/// Takes a Dockerfile, or an archive (tar; plain, gzip or zstd) as context, from stdin.
fn stdin(engine: &Engine, file: Option<&str>, cache: &Path) -> Result<Place, Failure> {
    let mut stdin = std::io::stdin().lock();
    let mut head = Vec::new();
    stdin.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    if !is_archive(&head) {
        if file.is_some() {
            return Err(Failure::failed("what stands on stdin is no archive, so it holds no Dockerfile for -f"));
        }
        stdin.take(MAX_STDIN).read_to_end(&mut head)?;
        let empty = engine.empty_directory()?;
        let files = Files::with_dockerfile(&empty, text(head)?, cache);
        let files = files.map_err(|error| Failure::from_error(exit::FAILED, &error))?;
        return Ok(Place { files, _unpacked: None });
    }
    let (read, write) = std::io::pipe()?;
    let images = Images::open(&engine.paths)?;
    let unpacked = std::thread::scope(|scope| {
        // What was read already goes first. A reader that has gone is told of by the unpacker.
        scope.spawn(move || -> std::io::Result<()> {
            let mut write = write;
            write.write_all(&head)?;
            std::io::copy(&mut std::io::stdin().lock(), &mut write).map(drop)
        });
        drop(stdin);
        let archive = File::from(std::os::fd::OwnedFd::from(read));
        images.extract(&archive)
    })
    .map_err(|error| Failure::from(error).about("unpack the context on stdin"))?;
    let root = unpacked.root().try_clone_to_owned()?;
    let files = Files::of_tree(root, file).map_err(|error| Failure::from_error(exit::FAILED, &error))?;
    Ok(Place { files, _unpacked: Some(unpacked) })
}

fn text(bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|_| Failure::failed("what stands on stdin is no text, so it is no Dockerfile"))
}

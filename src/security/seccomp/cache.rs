//! Compiled profiles on disk: a profile of the user's costs its compilation once.

use super::{ProfileOptions, ProfileSource, SeccompError, compile_profile, interpret, prebuilt};
use crate::base::Digest;
use crate::security::hardening::SeccompFilter;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Changes whenever the compiler or the tables change what a profile compiles to.
const FORMAT: &str = "bulkhead seccomp 1";

/// Returns the compiled filter of a profile, from `directory` when it was compiled before with the same text,
/// capabilities, kernel and compiler.
///
/// A file that is not exactly what was written is compiled anew, and a directory that cannot be written is no error: the
/// cache saves time and nothing else.
///
/// # Errors
/// As [`super::load_profile`].
pub fn load_cached(
    directory: &Path,
    source: ProfileSource<'_>,
    options: &ProfileOptions,
) -> Result<SeccompFilter, SeccompError> {
    let name = || source.name().to_owned();
    if let Some(instructions) = prebuilt::find(source, options) {
        return Ok(SeccompFilter { profile: name(), instructions });
    }
    let path = directory.join(key(source, options));
    if let Some(instructions) = fs::read(&path).ok().and_then(|bytes| decode(&bytes)) {
        return Ok(SeccompFilter { profile: name(), instructions });
    }
    let filter = compile_profile(source, options)?;
    // Compiled again next time when this fails.
    let _ = write(directory, &path, &encode(&filter.instructions));
    Ok(filter)
}

fn key(source: ProfileSource<'_>, options: &ProfileOptions) -> String {
    let ProfileOptions { capabilities, kernel, i386 } = options;
    let version = env!("CARGO_PKG_VERSION");
    let head = format!("{FORMAT} {version} {:x} {} {} {i386}\n", capabilities.0, kernel.0, kernel.1);
    Digest::of(&[head.as_bytes(), source.text().as_bytes()].concat()).hex().to_owned()
}

/// One line of format and digest, then the instructions, little-endian.
fn encode(instructions: &[u64]) -> Vec<u8> {
    let body: Vec<u8> = instructions.iter().flat_map(|word| word.to_le_bytes()).collect();
    [format!("{FORMAT} {}\n", Digest::of(&body).hex()).into_bytes(), body].concat()
}

fn decode(bytes: &[u8]) -> Option<Vec<u64>> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (head, body) = (bytes.get(..end)?, bytes.get(end + 1..)?);
    let digest = std::str::from_utf8(head).ok()?.strip_prefix(FORMAT)?.strip_prefix(' ')?;
    let (words, rest) = body.as_chunks::<8>();
    if !rest.is_empty() || words.len() > super::MAX_INSTRUCTIONS || Digest::of(body).hex() != digest {
        return None;
    }
    let instructions: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
    interpret::is_well_formed(&instructions).then_some(instructions)
}

fn write(directory: &Path, path: &PathBuf, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let temporary = path.with_extension(std::process::id().to_string());
    // Left over from a process of the same id that was killed.
    let _ = fs::remove_file(&temporary);
    let result = fs::File::create_new(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::CapabilitySet;

    const TEXT: &str =
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}"#;

    fn options() -> ProfileOptions {
        ProfileOptions { capabilities: CapabilitySet::DEFAULT, kernel: (6, 18), i386: false }
    }

    fn only_file(directory: &Path) -> PathBuf {
        let files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }

    #[test]
    fn a_second_load_reads_what_the_first_compiled() {
        let directory = tempfile::tempdir().unwrap();
        let source = ProfileSource::File { name: "f", text: TEXT };
        let first = load_cached(directory.path(), source, &options()).unwrap();
        let file = only_file(directory.path());
        assert_eq!(decode(&fs::read(&file).unwrap()), Some(first.instructions.clone()));
        // What is read counts: another well-formed program in its place is what comes back.
        let other = &[0x0006_0000_7fff_0000_u64];
        rewrite(&file, &encode(other));
        assert_eq!(load_cached(directory.path(), source, &options()).unwrap().instructions, other);
        assert!(load_cached(&directory.path().join("no/such"), source, &options()).is_ok());
    }

    #[expect(clippy::disallowed_methods, reason = "test file")]
    fn rewrite(path: &Path, bytes: &[u8]) {
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn a_corrupt_file_is_compiled_anew() {
        let directory = tempfile::tempdir().unwrap();
        let source = ProfileSource::File { name: "f", text: TEXT };
        let good = load_cached(directory.path(), source, &options()).unwrap();
        let file = only_file(directory.path());
        let bytes = fs::read(&file).unwrap();
        let mut flipped = bytes.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let endless = encode(&[0x0005_0000_0000_0009]);
        for bad in [&b""[..], b"\n", &bytes[..bytes.len() - 8], &flipped, &endless, &encode(&[]), &[0xff; 100]] {
            rewrite(&file, bad);
            assert_eq!(load_cached(directory.path(), source, &options()).unwrap(), good);
            assert_eq!(fs::read(&file).unwrap(), bytes, "repaired");
        }
    }

    #[test]
    fn everything_a_program_depends_on_is_in_the_key() {
        let source = ProfileSource::File { name: "f", text: TEXT };
        let base = key(source, &options());
        let other = ProfileSource::File { name: "f", text: &format!("{TEXT} ") };
        assert_ne!(key(other, &options()), base);
        assert_ne!(key(source, &ProfileOptions { kernel: (6, 17), ..options() }), base);
        assert_ne!(key(source, &ProfileOptions { capabilities: CapabilitySet::ALL, ..options() }), base);
        assert_ne!(key(source, &ProfileOptions { i386: true, ..options() }), base);
    }
}

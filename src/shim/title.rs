//! What `ps` shows of a shim.
//!
//! A shim is forked from the command line, so the kernel would show that command line for the shim's whole life, values
//! of `-e` included, to every user of the host. The words are overwritten where they lie.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// What stands there instead.
const TITLE: &[u8] = b"bulkhead-shim";

/// Overwrites this process's command line with our name.
///
/// # Errors
/// When the kernel does not tell where it lies, or refuses; the old words then stay.
pub(super) fn set() -> io::Result<()> {
    let mut stat = String::with_capacity(1024);
    File::open("/proc/self/stat")?.read_to_string(&mut stat)?;
    let (start, end) = range(&stat).ok_or(io::ErrorKind::InvalidData)?;
    let mut words = vec![0u8; usize::try_from(end - start).map_err(|_| io::ErrorKind::InvalidData)?];
    let shown = TITLE.len().min(words.len());
    words[..shown].copy_from_slice(&TITLE[..shown]);
    File::options().write(true).open("/proc/self/mem")?.write_all_at(&words, start)
}

/// Reads `arg_start` and `arg_end` (*proc_pid_stat(5)*, fields 48 and 49); the name in field 2 may hold anything.
fn range(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat.get(stat.rfind(')')? + 2..)?.split(' ').skip(45);
    let (start, end) = (fields.next()?.parse().ok()?, fields.next()?.trim().parse().ok()?);
    (start < end && end - start < 1 << 21).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_this_very_process_are_found() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let (start, end) = range(&stat).unwrap();
        let mut words = vec![0; (end - start) as usize];
        File::open("/proc/self/mem").unwrap().read_exact_at(&mut words, start).unwrap();
        assert_eq!(words, std::fs::read("/proc/self/cmdline").unwrap());
    }

    #[test]
    fn odd_names_and_short_texts_are_no_trouble() {
        assert_eq!(range("1 (a) b) c) S 1"), None);
        assert_eq!(range(""), None);
        assert_eq!(range(")"), None);
    }
}

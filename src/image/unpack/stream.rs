//! Moving the bytes of archives, and hashing them on the way; none of them is looked at.

use super::inflate::Inflater;
use super::{CHUNK, Compression, Limits, Region, Source, UnpackError, failed};
use crate::base::{Digest, Sha256};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, tee};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

/// Moves a stream to the unpacker and hashes it on the way. A reader that went away ends it early; its report says why.
pub(super) fn pump(mut from: &File, head: &[u8], to: OwnedFd) -> Result<(Digest, u64), UnpackError> {
    let mut hash = Sha256::new();
    let mut to = File::from(to);
    let mut buffer = vec![0; CHUNK];
    let mut head = Some(head);
    loop {
        let piece = match head.take() {
            Some(head) if !head.is_empty() => head,
            _ => match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => &buffer[..count],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed("read archive")(error)),
            },
        };
        match to.write_all(piece) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            other => other.map_err(failed("pass the archive on"))?,
        }
        hash.update(piece);
    }
    let length = hash.length;
    Ok((hash.finish(), length))
}

/// Moves what the inflater writes to the unpacker, both pipes, and hashes it on the way; `bound` is how much may become of how
/// many compressed bytes.
///
/// The pages themselves go on (*tee(2)*) and are read here once. That would be no place for a stream of just anybody, who
/// may put pages into a pipe and change them afterwards (*vmsplice(2)*): the inflater has no call for that.
pub(super) fn pump_pages(
    mut from: &File,
    to: OwnedFd,
    bound: Option<(u64, u64)>,
) -> Result<(Digest, u64), UnpackError> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let mut unread = match tee(from, &to, buffer.len(), SpliceFlags::empty()) {
            Ok(0) | Err(Errno::PIPE) => break,
            Err(Errno::INTR) => continue,
            passed => passed.map_err(|errno| failed("pass the archive on")(errno.into()))?,
        };
        while unread > 0 {
            match from.read(&mut buffer[..unread]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) => return Err(failed("read archive")(io::ErrorKind::UnexpectedEof.into())),
                count => {
                    let count = count.map_err(failed("read archive"))?;
                    hash.update(&buffer[..count]);
                    unread -= count;
                }
            }
        }
        if let Some((compressed, most)) = bound.filter(|(_, most)| hash.length > *most) {
            return Err(UnpackError::Bomb { compressed, inflated: most });
        }
    }
    let length = hash.length;
    Ok((hash.finish(), length))
}

/// Hashes a region while the unpacker reads it.
pub(super) fn hash(source: Source<'_>) -> Result<(Digest, u64), UnpackError> {
    let Source::Region { file, offset, length } = source else {
        return Err(failed("hash archive")(io::ErrorKind::InvalidInput.into()));
    };
    let mut hash = Sha256::new();
    let mut region = Region { file, offset, left: length };
    io::copy(&mut io::BufReader::with_capacity(CHUNK / 8, &mut region), &mut hash).map_err(failed("read archive"))?;
    let length = hash.length;
    Ok((hash.finish(), length))
}

/// Copies the uncompressed bytes of a source and returns their digest.
pub(in crate::image) fn copy_tar(
    source: Source<'_>,
    compression: Compression,
    out: &mut dyn Write,
) -> Result<Digest, UnpackError> {
    let mut hash = Sha256::new();
    let most = Limits::default().inflated(source);
    let mut copy = |from: &mut dyn Read| -> Result<(), UnpackError> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed("read archive")(error)),
            };
            hash.update(&buffer[..count]);
            if let Some(inflated) = most.filter(|most| compression != Compression::None && hash.length > *most) {
                return Err(UnpackError::Bomb { compressed: source.length(), inflated });
            }
            out.write_all(&buffer[..count]).map_err(failed("copy archive"))?;
        }
    };
    match (compression, source) {
        (Compression::None, Source::Region { file, offset, length }) => {
            copy(&mut Region { file, offset, left: length })?
        }
        (Compression::None, Source::Stream { file, head, .. }) => copy(&mut head.chain(file))?,
        _ => {
            let inflater = Inflater::start(source, compression)?;
            copy(&mut &inflater.output)?;
            inflater.finish(source)?;
        }
    }
    Ok(hash.finish())
}

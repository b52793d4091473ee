//! Two who pull the same layer: one does, the other waits and finds it.

use super::error::{RegistryError, Result};
use super::http::{Halt, rest};
use crate::base::Digest;
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// How often a waiting process looks again.
const LOOK: Duration = Duration::from_millis(50);

/// The right to pull one layer, until it is dropped or the process ends. A byte of one file is locked (*fcntl(2)*, "Open
/// file description locks"), at a place that the chain id names, so that no file is left for a layer.
#[derive(Debug)]
pub(super) struct Turn {
    _file: File,
}

impl Turn {
    /// Waits for the right to pull a layer.
    ///
    /// # Errors
    /// When the file cannot be opened or locked, or somebody wants it to end.
    pub(super) fn take(path: &Path, chain_id: &Digest, halt: &Halt<'_>) -> Result<Self> {
        let failed = |source| RegistryError::Io { action: "lock the layer to be pulled", source };
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        // 60 bits: a place that a signed offset can name.
        let place = i64::from_str_radix(&chain_id.hex()[..15], 16).unwrap_or(0);
        let lock = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: place,
            l_len: 1,
            l_pid: 0,
        };
        loop {
            match fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)) {
                Ok(_) => return Ok(Self { _file: file }),
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES | nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(failed(errno.into())),
            }
            if !rest(LOOK, halt).map_err(failed)? {
                return Err(RegistryError::Interrupted);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};
    use std::os::fd::AsFd;

    #[test]
    fn one_waits_for_the_other_and_not_for_another_layer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("turns");
        let stop = eventfd(1, EventfdFlags::CLOEXEC).unwrap();
        let (patient, stopped) = (Halt::new(None).unwrap(), Halt::new(Some(stop.as_fd())).unwrap());
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let held = Turn::take(&path, &one, &patient).unwrap();
        drop(Turn::take(&path, &two, &stopped).unwrap());
        assert!(matches!(Turn::take(&path, &one, &stopped), Err(RegistryError::Interrupted)));
        drop(held);
        drop(Turn::take(&path, &one, &stopped).unwrap());
    }
}

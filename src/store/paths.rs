//! Where things lie.

use super::record::StoreError;
use crate::base::{ContainerId, Digest};
use std::fs::{DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The layer of places, below the directory of snapshots, whose keys never begin with a dot.
const PLACES: &str = ".places/fs";

/// The two directories everything lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// What survives a reboot.
    pub root: PathBuf,
    /// What dies with the boot.
    pub run: PathBuf,
}

impl Paths {
    /// Makes the directories of the store that are missing (mode 0700).
    ///
    /// # Errors
    /// When the system refuses, naming the directory.
    pub fn create(&self) -> Result<(), StoreError> {
        let make = |path: &Path| {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(StoreError::io("create directory", path))
        };
        if self.root.join("version").exists() && self.run.join("locks").exists() {
            return Ok(());
        }
        const PARTS: [&str; 11] = [
            "content/blobs/sha256",
            "content/ingest",
            "images",
            "snapshots",
            "containers",
            "names",
            "volumes",
            "networks",
            "build/cache",
            "cache/seccomp",
            "leases",
        ];
        for part in PARTS {
            make(&self.root.join(part))?;
        }
        self.make_places()?;
        for part in ["locks", "ranges"] {
            make(&self.run.join(part))?;
        }
        super::write_bytes(&self.root.join("version"), b"1\n", super::Durability::Atomic)?;
        super::reserve::keep(self);
        Ok(())
    }

    /// Makes the layer of places ([`Self::places`]).
    fn make_places(&self) -> Result<(), StoreError> {
        let etc = self.snapshots().join(PLACES).join("etc");
        let failed = |action| StoreError::io(action, &etc);
        DirBuilder::new().recursive(true).create(&etc).map_err(failed("create directory"))?;
        std::fs::set_permissions(&etc, Permissions::from_mode(0o755)).map_err(failed("set mode of"))?;
        for name in ["hosts", "hostname", "resolv.conf"] {
            let file = File::create(etc.join(name)).map_err(failed("make a place in"))?;
            file.set_permissions(Permissions::from_mode(0o644)).map_err(failed("make a place in"))?;
        }
        Ok(())
    }

    /// Returns the layer that lies below those of every container, relative to [`Self::snapshots`]: the empty files that its
    /// `hosts`, `hostname` and `resolv.conf` are mounted over, which each would have to make in its own tree otherwise. What an
    /// image has in those places, or has removed, hides them. `None` where a power cut took it.
    pub fn places(&self) -> Option<PathBuf> {
        self.snapshots().join(PLACES).join("etc").exists().then(|| PLACES.into())
    }

    /// Returns the file of a named lock.
    pub fn lock(&self, name: &str) -> PathBuf {
        self.run.join("locks").join(name)
    }

    /// Returns the directory of a container's records.
    pub fn container(&self, id: &ContainerId) -> PathBuf {
        self.root.join("containers").join(id.as_str())
    }

    /// Returns the directory of a container's shim.
    pub fn container_run(&self, id: &ContainerId) -> PathBuf {
        self.run.join(id.as_str())
    }

    /// Returns the file of a blob.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("content/blobs/sha256").join(digest.hex())
    }

    /// Returns the directory that holds all snapshots.
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// Returns a volume's directory.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.root.join("volumes").join(name)
    }
}

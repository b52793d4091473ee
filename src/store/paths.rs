//! Where things lie.

use crate::base::{ContainerId, Digest};
use std::path::PathBuf;

/// The two directories everything lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// What survives a reboot.
    pub root: PathBuf,
    /// What dies with the boot.
    pub run: PathBuf,
}

impl Paths {
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

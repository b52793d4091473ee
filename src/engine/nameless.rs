//! What a container that is being removed leaves once its names are gone: blocks on the disk, until nobody holds them open.

use crate::base::ContainerId;
use crate::store::Paths;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, open};
use std::path::Path;

/// Opens the directories and the record that every container has, soon without names.
///
/// A file system gives blocks back when the last descriptor of a nameless file is closed (*unlink(2)*), and one that is
/// mounted with `discard` waits for the disk over each, a millisecond and more. Whoever removes a container hands these to
/// its shim, which ends when nobody waits for it any more. Contents of the container are not among them: the room that they
/// take is there when the removal is done.
pub(super) fn soon(paths: &Paths, id: &ContainerId) -> Vec<OwnedFd> {
    let (snapshot, own) = (paths.snapshots().join(id.as_str()), paths.container(id));
    let places = [
        snapshot.join("fs"),
        snapshot.join("work/work"),
        snapshot.join("work"),
        snapshot,
        own.join("config.json"),
        own,
    ];
    // What cannot be held is waited for.
    places.iter().filter_map(|place| hold(place)).collect()
}

fn hold(place: &Path) -> Option<OwnedFd> {
    open(place, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).ok()
}

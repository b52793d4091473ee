//! Addresses of networks: taken by exclusive create of `$RUN/network/ipam/<network>/<address>`, which names the
//! container. Whoever takes one goes on behind the last one taken, so that an address rests before it is used again.

use super::address::Subnet;
use super::error::NetworkError;
use crate::base::ContainerId;
use crate::store::{Paths, StoreError};
use crate::sys::fault::{self, Point};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

fn directory(paths: &Paths, network: &str) -> PathBuf {
    paths.run.join("network/ipam").join(network)
}

/// Takes the next free address; the first of the subnet names it, the second is the gateway's, the last broadcasts.
///
/// # Errors
/// When all are taken, or the directory cannot be used.
pub(super) fn reserve(
    paths: &Paths,
    network: &str,
    subnet: Subnet,
    id: &ContainerId,
) -> Result<Ipv4Addr, NetworkError> {
    let directory = directory(paths, network);
    let (first, last) = (u32::from(subnet.first()).saturating_add(2), u32::from(subnet.last()).saturating_sub(1));
    let cursor = directory.join("last");
    let before =
        std::fs::read_to_string(&cursor).ok().and_then(|text| text.trim().parse::<Ipv4Addr>().ok()).map(u32::from);
    let start = before.and_then(|n| n.checked_add(1)).filter(|n| (first..=last).contains(n)).unwrap_or(first);
    for number in (start..=last).chain(first..start) {
        let address = Ipv4Addr::from(number);
        if take(&directory.join(address.to_string()), id)? {
            // Only a hint: a lost one costs a search, never an address. Written over in place: truncating a file makes
            // some file systems flush it (0.5 ms on ext4).
            let _ = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&cursor)
                .and_then(|mut file| file.write_all(format!("{:<15}", address.to_string()).as_bytes()));
            return Ok(address);
        }
    }
    Err(NetworkError::NoAddress { network: network.to_owned(), subnet })
}

/// Creates the file of an address; false when somebody has it.
fn take(path: &Path, id: &ContainerId) -> Result<bool, NetworkError> {
    let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut made = create();
    if made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        && let Some(parent) = path.parent()
    {
        std::fs::create_dir_all(parent).map_err(StoreError::io("create directory", parent))?;
        made = create();
    }
    match made {
        Ok(mut file) => {
            fault::fail(Point::AddressTaken)
                .and_then(|()| file.write_all(id.as_str().as_bytes()))
                .inspect_err(|_| drop(std::fs::remove_file(path)))
                .map_err(StoreError::io("write", path))?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(StoreError::io("create", path)(error).into()),
    }
}

/// Frees an address if it still belongs to the container.
pub(super) fn release(paths: &Paths, network: &str, address: Ipv4Addr, id: &ContainerId) -> io::Result<()> {
    let path = directory(paths, network).join(address.to_string());
    match std::fs::read_to_string(&path) {
        // An empty file is one whose maker was killed between two calls.
        Ok(owner) if owner == id.as_str() || owner.is_empty() => std::fs::remove_file(&path),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// One address that is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reservation {
    pub network: String,
    pub address: Ipv4Addr,
    /// The container; `None` for one whose maker was killed in the middle.
    pub owner: Option<ContainerId>,
}

/// Returns every address that is taken.
pub(super) fn reservations(paths: &Paths) -> Result<Vec<Reservation>, NetworkError> {
    let root = paths.run.join("network/ipam");
    let mut all = Vec::new();
    for network in names(&root)? {
        let directory = root.join(&network);
        for name in names(&directory)? {
            let Ok(address) = name.parse() else { continue };
            let Ok(text) = std::fs::read_to_string(directory.join(&name)) else {
                continue;
            };
            all.push(Reservation { network: network.clone(), address, owner: ContainerId::try_from(text).ok() });
        }
    }
    Ok(all)
}

/// Removes what is known of a network's addresses.
pub(super) fn forget(paths: &Paths, network: &str) -> io::Result<()> {
    match std::fs::remove_dir_all(directory(paths, network)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn names(directory: &Path) -> Result<Vec<String>, NetworkError> {
    let failed = |source| NetworkError::List { path: directory.to_owned(), source };
    match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
        Ok(list) => list
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()).map_err(failed))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(dir: &tempfile::TempDir) -> Paths {
        Paths { root: dir.path().join("root"), run: dir.path().join("run") }
    }

    #[test]
    fn addresses_are_taken_once_rest_and_come_round() {
        let dir = tempfile::tempdir().unwrap();
        let (paths, id) = (paths(&dir), ContainerId::generate());
        let subnet: Subnet = "10.9.8.0/29".parse().unwrap();
        let take = || reserve(&paths, "n", subnet, &id).map(|a| a.octets()[3]);
        assert_eq!(take().unwrap(), 2);
        assert_eq!(take().unwrap(), 3);
        release(&paths, "n", Ipv4Addr::new(10, 9, 8, 2), &id).unwrap();
        for expected in [4, 5, 6, 2] {
            assert_eq!(take().unwrap(), expected);
        }
        assert!(matches!(take(), Err(NetworkError::NoAddress { .. })));
        assert_eq!(reservations(&paths).unwrap().len(), 5);
    }

    #[test]
    fn a_foreign_address_is_not_freed() {
        let dir = tempfile::tempdir().unwrap();
        let (paths, id) = (paths(&dir), ContainerId::generate());
        let address = reserve(&paths, "n", "10.9.8.0/29".parse().unwrap(), &id).unwrap();
        release(&paths, "n", address, &ContainerId::generate()).unwrap();
        assert_eq!(reservations(&paths).unwrap()[0].owner, Some(id));
    }
}

//! Objects in the shape of Docker's `inspect`, with one object of our own: `Enforced`, what holds on this kernel.

mod container;

pub(super) use container::{Places, container};

use crate::base::{ContainerId, Timestamp};
use crate::engine::VolumeEntry;
use crate::engine::record::{Container, NetworkRecord};
use crate::image::Image;
use serde_json::{Map, Value, json};

fn object<'a>(pairs: impl IntoIterator<Item = (&'a String, &'a String)>) -> Value {
    Value::Object(pairs.into_iter().map(|(key, value)| (key.clone(), value.clone().into())).collect())
}

/// Writes names as the keys of a set.
/// Returns an identifier for a network that has only a name, 64 digits as everywhere.
pub(super) fn network_id(name: &str) -> String {
    crate::base::Digest::of(format!("network {name}").as_bytes()).hex().to_owned()
}

/// Writes an image.
pub(super) fn image(image: &Image) -> Value {
    let tags: Vec<String> =
        image.references.iter().filter(|name| name.tag.is_some()).map(|name| name.familiar()).collect();
    let named = image.references.iter().filter(|name| name.digest.is_some());
    let mut digests: Vec<String> = image.digests.iter().chain(named).map(|name| name.familiar()).collect();
    digests.sort();
    digests.dedup();
    json!({
        "Id": image.id.to_string(),
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": "",
        "Comment": image.config.comment,
        "Created": image.config.created.unwrap_or(Timestamp::NEVER).to_string(),
        "DockerVersion": "",
        "Author": image.config.author,
        "Config": serde_json::to_value(&image.config.config).unwrap_or_default(),
        "Architecture": image.config.architecture,
        "Variant": image.config.variant,
        "Os": image.config.os,
        "Size": image.size,
        "GraphDriver": {"Name": "overlay2", "Data": {}},
        "RootFS": {"Type": "layers", "Layers": image.config.rootfs.diff_ids.iter().map(ToString::to_string).collect::<Vec<_>>()},
        "Metadata": {"LastTagTime": image.added.to_string()},
    })
}

/// Writes a volume.
pub(super) fn volume(entry: &VolumeEntry) -> Value {
    let volume = &entry.record;
    json!({
        "CreatedAt": volume.created.to_string(),
        "Driver": "local",
        "Labels": if volume.labels.is_empty() { Value::Null } else { object(&volume.labels) },
        "Mountpoint": entry.mountpoint.display().to_string(),
        "Name": volume.name,
        "Options": null,
        "Scope": "local",
    })
}

/// Writes a network with the containers on it.
pub(super) fn network(name: &str, driver: &str, defined: Option<&NetworkRecord>, members: &[&Container]) -> Value {
    let places: Vec<Value> = defined
        .and_then(|network| {
            Some(json!({"Subnet": network.subnet?.to_string(), "Gateway": network.gateway?.to_string()}))
        })
        .into_iter()
        .collect();
    let options: Map<String, Value> = defined
        .map(|network| ("com.docker.network.bridge.name".to_owned(), network.interface.clone().into()))
        .into_iter()
        .collect();
    let inside = |id: &ContainerId, container: &Container| {
        let network = &container.record.network;
        let address = network.address.map(|address| format!("{address}/{}", network.prefix)).unwrap_or_default();
        json!({
            "Name": container.record.name,
            "EndpointID": network_id(&format!("{name} {id}")),
            "MacAddress": network.mac,
            "IPv4Address": address,
            "IPv6Address": "",
        })
    };
    let containers: Map<String, Value> =
        members.iter().map(|member| (member.record.id.to_string(), inside(&member.record.id, member))).collect();
    json!({
        "Name": name,
        "Id": network_id(name),
        "Scope": "local",
        "Driver": driver,
        "EnableIPv6": false,
        "IPAM": {"Driver": "default", "Options": null, "Config": places},
        "Internal": false,
        "Attachable": false,
        "Ingress": false,
        "Containers": containers,
        "Options": options,
        "Labels": {},
    })
}

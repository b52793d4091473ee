//! Containers as rows of `ps`, and the filters of `ps`.

use super::ports::{ShownPort, ports_column};
use crate::base::{Timestamp, human_duration, human_size};
use crate::cli::error::{Failure, exit};
use crate::cli::format::Row;
use crate::cli::table::ellipsis;
use crate::cli::template::quote;
use crate::cli::time::{ago, long_time};
use crate::engine::record::{Container, MountKind};
use crate::shim::Status;
use regex::Regex;

/// All fields of a row and their headers.
pub(super) const HEADERS: &[(&str, &str)] = &[
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Labels", "LABELS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Mounts", "MOUNTS"),
    ("Names", "NAMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
    ("Ports", "PORTS"),
    ("RunningFor", "CREATED"),
    ("Size", "SIZE"),
    ("State", "STATE"),
    ("Status", "STATUS"),
];

/// Returns a status in Docker's word.
pub(in crate::cli) fn status_word(status: Status) -> &'static str {
    match status {
        Status::Created => "created",
        Status::Running => "running",
        Status::Paused => "paused",
        Status::Restarting => "restarting",
        Status::Exited => "exited",
        Status::Dead => "dead",
    }
}

/// Returns the health in Docker's word, `none` without a check.
fn health_word(container: &Container) -> &str {
    container.state.health.as_ref().map_or("none", |health| health.status.as_str())
}

/// Writes the column `STATUS`: `Up 3 minutes (healthy)`, `Exited (137) 5 seconds ago`.
pub(super) fn status_column(container: &Container) -> String {
    let state = &container.state;
    let since = |at: Timestamp| human_duration(at.age());
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Paused => format!("Up {} (Paused)", since(state.started_at)),
        Status::Restarting => format!("Restarting ({}) {} ago", state.exit_code, since(state.finished_at)),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, since(state.finished_at)),
        Status::Running => match health_word(container) {
            "none" => format!("Up {}", since(state.started_at)),
            "starting" => format!("Up {} (health: starting)", since(state.started_at)),
            word => format!("Up {} ({word})", since(state.started_at)),
        },
    }
}

/// Returns the ports of a container while it runs: published ones, and on a network of ours exposed ones.
pub(super) fn shown_ports(container: &Container) -> Vec<ShownPort> {
    use crate::engine::request::Protocol;
    if !matches!(container.state.status, Status::Running | Status::Paused) {
        return Vec::new();
    }
    let published = &container.record.network.published;
    let mut ports: Vec<ShownPort> = published
        .iter()
        .map(|port| ShownPort {
            address: Some(port.address),
            host_port: port.host_port,
            container_port: port.container_port,
            protocol: port.protocol,
        })
        .collect();
    let reachable = container.record.network.address.is_some();
    for exposed in container.record.exposed.iter().filter(|_| reachable) {
        let (number, protocol) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
        let protocol = if protocol == "udp" { Protocol::Udp } else { Protocol::Tcp };
        let Ok(number) = number.parse() else { continue };
        if !published.iter().any(|port| port.container_port == number && port.protocol == protocol) {
            ports.push(ShownPort { address: None, host_port: 0, container_port: number, protocol });
        }
    }
    ports
}

/// Joins program and arguments as Docker does: an argument with blanks stands in quotes.
fn command_line<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let quoted = |(place, word): (usize, &str)| {
        if place > 0 && word.contains(' ') { format!("'{word}'") } else { word.to_owned() }
    };
    words.enumerate().map(quoted).collect::<Vec<_>>().join(" ")
}

/// Makes the row of a container; `size` is what it wrote and what its image and that take together, in bytes.
pub(super) fn row(container: &Container, whole: bool, size: Option<(u64, u64)>) -> Row {
    let record = &container.record;
    let command = command_line(record.entrypoint.iter().chain(&record.command).map(String::as_str));
    let image = match (&record.image, &record.request.rootfs) {
        (Some(image), _) => image.name.clone(),
        (None, Some(directory)) => directory.display().to_string(),
        (None, None) => String::new(),
    };
    let labels: Vec<String> = record.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mounts: Vec<String> = record
        .mounts
        .iter()
        .filter(|mount| mount.kind != MountKind::Tmpfs)
        .map(|mount| {
            let name = if mount.name.is_empty() { mount.source.display().to_string() } else { mount.name.clone() };
            if whole { name } else { ellipsis(&name, 15) }
        })
        .collect();
    let volumes = record.mounts.iter().filter(|mount| mount.kind == MountKind::Volume).count();
    let mut row = Row::new([
        ("Command", quote(&if whole { command } else { ellipsis(&command, 20) })),
        ("CreatedAt", long_time(record.created)),
        ("ID", if whole { record.id.to_string() } else { record.id.short().to_owned() }),
        ("Image", image),
        ("Labels", labels.join(",")),
        ("LocalVolumes", volumes.to_string()),
        ("Mounts", mounts.join(",")),
        ("Names", record.name.clone()),
        ("Networks", record.network.name.clone()),
        ("Platform", record.request.platform.clone().unwrap_or_default()),
        ("Ports", ports_column(&shown_ports(container))),
        ("RunningFor", ago(record.created)),
        (
            "Size",
            size.map_or_else(
                || "0B".to_owned(),
                |(own, all)| format!("{} (virtual {})", human_size(own), human_size(all)),
            ),
        ),
        ("State", status_word(container.state.status).to_owned()),
        ("Status", status_column(container)),
    ]);
    row.labels = record.labels.clone();
    row
}

/// One `--filter` of `ps`, read and resolved.
#[derive(Debug)]
pub(super) enum Filter {
    /// Beginning of the id.
    Id(String),
    /// Found in the name with or without Docker's leading slash.
    Name(Regex),
    /// A label, with a value or with any.
    Label(String, Option<String>),
    /// A status.
    Status(String),
    /// An exit code.
    Exited(i32),
    /// An image: name, id or beginning of its id.
    Ancestor(String),
    /// Created before this container.
    Before(String),
    /// Created after this container.
    Since(String),
    /// Name of a volume or path of a mount.
    Volume(String),
    /// Name of a network.
    Network(String),
    /// A published or exposed port.
    Port(u16, String, bool),
    /// Health.
    Health(String),
    /// Whether it is a task of a swarm, which none is.
    Task(bool),
}

/// The keys of filters.
const KEYS: [&str; 14] = [
    "id", "name", "label", "status", "exited", "ancestor", "before", "since", "volume", "network", "publish", "expose",
    "health", "is-task",
];

impl Filter {
    /// Reads one `--filter key=value`.
    ///
    /// # Errors
    /// For unknown keys and values that cannot be.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let fail = |message: String| Failure::new(exit::FAILED, message);
        let (key, value) = text.split_once('=').ok_or_else(|| {
            Failure::new(
                exit::USAGE,
                format!(
                    "invalid argument {text:?} for \"-f, --filter\" flag: bad format of filter (expected name=value)"
                ),
            )
        })?;
        let owned = value.to_owned();
        let one_of = |words: &[&str]| {
            if words.contains(&value) {
                Ok(owned.clone())
            } else {
                Err(fail(format!("invalid filter '{key}={value}'")))
            }
        };
        Ok(match key {
            "id" => Self::Id(owned),
            "name" => {
                Self::Name(Regex::new(value).map_err(|why| fail(format!("invalid filter 'name={value}': {why}")))?)
            }
            "label" => match value.split_once('=') {
                Some((label, value)) => Self::Label(label.to_owned(), Some(value.to_owned())),
                None => Self::Label(owned, None),
            },
            "status" => {
                Self::Status(one_of(&["created", "running", "paused", "restarting", "removing", "exited", "dead"])?)
            }
            "exited" => Self::Exited(value.parse().map_err(|_| fail(format!("invalid filter 'exited={value}'")))?),
            "ancestor" => Self::Ancestor(owned),
            "before" => Self::Before(owned),
            "since" => Self::Since(owned),
            "volume" => Self::Volume(owned),
            "network" => Self::Network(owned),
            "publish" | "expose" => {
                let (port, protocol) = value.split_once('/').unwrap_or((value, "tcp"));
                let port = port.parse().map_err(|_| fail(format!("invalid filter '{key}={value}'")))?;
                Self::Port(port, protocol.to_owned(), key == "publish")
            }
            "is-task" => Self::Task(one_of(&["true", "false"])? == "true"),
            "health" => Self::Health(one_of(&["starting", "healthy", "unhealthy", "none"])?),
            _ => return Err(fail(format!("invalid filter '{key}'")).hint(format!("known are {}", KEYS.join(", ")))),
        })
    }

    /// Refuses a filter that compares with a container that is not there.
    ///
    /// # Errors
    /// In Docker's words.
    pub(super) fn check(&self, all: &[Container]) -> Result<(), Failure> {
        match self {
            Self::Before(name) | Self::Since(name) if created_of(name, all).is_none() => {
                Err(Failure::failed(format!("No such container: {name}")))
            }
            _ => Ok(()),
        }
    }

    /// Tells whether the filter needs containers that do not run.
    pub(super) fn wants_all(&self) -> bool {
        matches!(self, Self::Status(_) | Self::Exited(_))
    }

    /// Two filters of one kind are alternatives, different kinds must all hold.
    fn kind(&self) -> std::mem::Discriminant<Self> {
        std::mem::discriminant(self)
    }

    fn holds(&self, container: &Container, all: &[Container]) -> bool {
        let record = &container.record;
        match self {
            Self::Id(id) => record.id.as_str().starts_with(id.as_str()),
            Self::Name(pattern) => pattern.is_match(&record.name) || pattern.is_match(&format!("/{}", record.name)),
            Self::Label(label, value) => record
                .labels
                .iter()
                .any(|(key, found)| key == label && value.as_ref().is_none_or(|value| value == found)),
            Self::Status(status) => status_word(container.state.status) == status,
            Self::Exited(code) => container.state.status == Status::Exited && container.state.exit_code == *code,
            Self::Ancestor(name) => record.image.as_ref().is_some_and(|image| {
                let bare = name.strip_prefix("sha256:").unwrap_or(name);
                let tagged = |text: &str| {
                    if text.rsplit('/').next().is_some_and(|last| last.contains(':')) {
                        text.to_owned()
                    } else {
                        format!("{text}:latest")
                    }
                };
                tagged(&image.name) == tagged(name) || (bare.len() >= 3 && image.id.hex().starts_with(bare))
            }),
            Self::Before(name) => created_of(name, all).is_some_and(|at| record.created < at),
            Self::Since(name) => created_of(name, all).is_some_and(|at| record.created > at),
            Self::Volume(text) => record
                .mounts
                .iter()
                .any(|mount| mount.name == *text || mount.target == *text || mount.source.as_os_str() == text.as_str()),
            Self::Network(name) => record.network.name == *name,
            Self::Port(port, protocol, published) => shown_ports(container).iter().any(|shown| {
                let number = if *published { shown.host_port } else { shown.container_port };
                (shown.address.is_some() || !published)
                    && (number == *port || (*published && shown.container_port == *port))
                    && super::ports::protocol_name(shown.protocol) == protocol
            }),
            Self::Health(word) => health_word(container) == word,
            Self::Task(wanted) => !wanted,
        }
    }
}

/// Returns when the container with a name or the beginning of an id was created.
fn created_of(name: &str, all: &[Container]) -> Option<Timestamp> {
    let found = all.iter().find(|other| other.record.name == name || other.record.id.as_str().starts_with(name));
    found.map(|other| other.record.created)
}

/// Keeps the containers that pass: filters of one kind are alternatives, labels must all hold.
pub(super) fn select<'c>(all: &'c [Container], filters: &[Filter]) -> Vec<&'c Container> {
    let passes = |container: &Container| {
        filters.iter().all(|filter| match filter {
            Filter::Label(..) => filter.holds(container, all),
            _ => filters.iter().filter(|other| other.kind() == filter.kind()).any(|other| other.holds(container, all)),
        })
    };
    all.iter().filter(|container| passes(container)).collect()
}

//! `ps`, `inspect`, `port`.

use super::ports::protocol_name;
use super::show::{Filter, HEADERS, row, select};
use super::values::parse_integer;
use crate::cli::context::{Context, complain, out};
use crate::cli::error::{Failure, Outcome, exit};
use crate::cli::flags::{Flags, Parsed, list, switch, value};
use crate::cli::format::{Listing, inspect as write_objects};
use crate::cli::inspect::{self as shape, Places};
use crate::engine::record::Container;
use crate::engine::{Engine, EngineError};
use crate::image::{Images, Snapshotter};
use crate::shim::Status;
use serde_json::Value;

/// Flags of `ps`.
pub(super) fn ps_flags(flags: Flags) -> Flags {
    flags
        .arg(switch("all", "Show all containers (default shows just running)").short('a'))
        .arg(list("filter", "Filter output based on conditions provided").short('f'))
        .arg(value("format", "string", "Format output: 'table', 'table TEMPLATE', 'json' or a Go template"))
        .arg(value("last", "int", "Show n last created containers (includes all states)").short('n'))
        .arg(switch("latest", "Show the latest created container (includes all states)").short('l'))
        .arg(switch("no-trunc", "Don't truncate output"))
        .arg(switch("quiet", "Only display container IDs").short('q'))
        .arg(switch("size", "Display total file sizes").short('s'))
}

/// Flags of `inspect`.
pub(in crate::cli) fn inspect_flags(flags: Flags) -> Flags {
    flags
        .arg(value("format", "string", "Format output: 'json' or a Go template").short('f'))
        .arg(switch("size", "Display total file sizes if the type is container").short('s'))
        .arg(value("type", "string", "Only inspect objects of the given type (container|image|volume|network)"))
}

/// Returns what a container wrote and what it takes together with its image, in bytes.
fn sizes(engine: &Engine, container: &Container) -> (u64, u64) {
    let own = Snapshotter::new(&engine.paths).usage(container.record.id.as_str()).unwrap_or(0);
    let image =
        container.record.image.as_ref().and_then(|image| {
            Images::open(&engine.paths).and_then(|images| images.resolve(&image.id.to_string())).ok()
        });
    (own, own + image.map_or(0, |image| image.size))
}

/// `ps`.
pub(super) fn ps(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let filters = parsed.all("filter").map(Filter::parse).collect::<Result<Vec<_>, _>>()?;
    let last: Option<i64> = parsed.read("last", parse_integer)?.filter(|count| *count > 0);
    let last = if parsed.switch("latest")? { Some(1) } else { last };
    let whole = parsed.switch("no-trunc")?;
    let quiet = parsed.switch("quiet")?;
    let engine = context.engine()?;
    engine.settle_if_possible();
    let all = engine.list()?;
    filters.iter().try_for_each(|filter| filter.check(&all))?;
    let every = parsed.switch("all")? || last.is_some() || filters.iter().any(Filter::wants_all);
    let alive = |status| matches!(status, Status::Running | Status::Paused | Status::Restarting);
    let mut chosen: Vec<&Container> =
        select(&all, &filters).into_iter().filter(|container| every || alive(container.state.status)).collect();
    chosen.truncate(last.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX));
    if quiet && !parsed.given("format") {
        let id = |container: &&Container| {
            format!("{}\n", if whole { container.record.id.as_str() } else { container.record.id.short() })
        };
        out(chosen.iter().map(id).collect::<String>())?;
        return Ok(0);
    }
    let size = parsed.switch("size")? || parsed.text("format").is_some_and(|format| format.contains(".Size"));
    let mut columns = vec!["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"];
    if parsed.switch("size")? {
        columns.push("Size");
    }
    let rows = chosen.iter().map(|container| row(container, whole, size.then(|| sizes(&engine, container)))).collect();
    out(Listing { kind: "*formatter.ContainerContext", headers: HEADERS, columns, rows }
        .render(parsed.text("format"))?)?;
    Ok(0)
}

/// Writes one container.
fn container_object(engine: &Engine, name: &str, size: bool) -> Result<Value, EngineError> {
    let container = engine.observe(&engine.find(name)?)?;
    let overlay = Snapshotter::new(&engine.paths).mounts(container.record.id.as_str()).ok();
    let places = Places { overlay: overlay.as_ref(), size: size.then(|| sizes(engine, &container)) };
    Ok(shape::container(&container, &places))
}

/// Looks a name up as an object of a type; `None` when there is none of it.
fn object(engine: &Engine, kind: &str, name: &str, size: bool) -> Result<Option<Value>, Failure> {
    Ok(match kind {
        "container" => match container_object(engine, name, size) {
            Err(EngineError::NoContainer(_)) => None,
            other => Some(other?),
        },
        "image" => match Images::open(&engine.paths).and_then(|images| images.resolve(name)) {
            Err(crate::image::ImageError::NotFound(_)) => None,
            other => Some(shape::image(&other.map_err(|error| Failure::from_error(exit::FAILED, &error))?)),
        },
        "volume" => engine.find_volume(name)?.as_ref().map(shape::volume),
        "network" => crate::cli::network::object(engine, name)?,
        _ => return Err(Failure::new(exit::USAGE, format!("{kind:?} is not a valid value for --type"))),
    })
}

/// Inspects names as one of several types: the first that has such a name wins.
pub(in crate::cli) fn inspect_kinds(context: &Context<'_>, parsed: &Parsed, kinds: &[&str]) -> Outcome {
    let engine = context.engine()?;
    let size = parsed.given("size") && parsed.switch("size")?;
    let (mut objects, mut code) = (Vec::new(), 0);
    for name in &parsed.arguments {
        let mut found = None;
        for kind in kinds {
            found = object(&engine, kind, name, size)?;
            if found.is_some() {
                break;
            }
        }
        match found {
            Some(object) => objects.push(object),
            None => {
                code = exit::FAILED;
                let (said, lists) = match kinds {
                    ["container"] => (format!("No such container: {name}"), "'bulkhead ps -a'"),
                    ["image"] => (format!("No such image: {name}"), "'bulkhead images'"),
                    ["volume"] => (format!("get {name}: no such volume"), "'bulkhead volume ls'"),
                    ["network"] => (format!("network {name} not found"), "'bulkhead network ls'"),
                    _ => (format!("No such object: {name}"), "'bulkhead ps -a', 'images', 'volume ls' or 'network ls'"),
                };
                complain(&Failure::failed(said).hint(format!("{lists} lists what there is")));
            }
        }
    }
    out(write_objects(&objects, parsed.text("format"))?)?;
    Ok(code)
}

/// `inspect`.
pub(super) fn inspect(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let kind = parsed.filled("type");
    match &kind {
        Some(kind) => inspect_kinds(context, &parsed, &[kind]),
        None => inspect_kinds(context, &parsed, &["container", "image", "volume", "network"]),
    }
}

/// `container inspect`.
pub(super) fn inspect_container(context: &Context<'_>, parsed: Parsed) -> Outcome {
    inspect_kinds(context, &parsed, &["container"])
}

/// `port`.
pub(super) fn port(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let engine = context.engine()?;
    let container = engine.observe(&engine.find(&parsed.arguments[0])?)?;
    let mut published = container.record.network.published.clone();
    if !matches!(container.state.status, Status::Running | Status::Paused) {
        published.clear();
    }
    published.sort_by_key(|port| (port.container_port, port.protocol, port.address));
    let wanted =
        parsed.arguments.get(1).map(|text| if text.contains('/') { text.clone() } else { format!("{text}/tcp") });
    let mut text = String::new();
    for port in published {
        let inside = format!("{}/{}", port.container_port, protocol_name(port.protocol));
        let outside = std::net::SocketAddr::new(port.address, port.host_port);
        match &wanted {
            None => text.push_str(&format!("{inside} -> {outside}\n")),
            Some(wanted) if *wanted == inside => text.push_str(&format!("{outside}\n")),
            Some(_) => {}
        }
    }
    if let (Some(wanted), true) = (wanted, text.is_empty()) {
        return Err(Failure::failed(format!("no public port '{wanted}' published for {}", parsed.arguments[0])));
    }
    out(text)?;
    Ok(0)
}

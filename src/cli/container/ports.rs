//! Ports: `-p` and `--expose` as the command line spells them, and the column `PORTS`.

use super::values::Parse;
use crate::engine::request::{Protocol, PublishRequest};
use std::net::IpAddr;

/// Reads `80` or `80-82`.
fn parse_range(text: &str, what: &str) -> Parse<(u16, u16)> {
    let number = |part: &str| part.parse::<u16>().map_err(|_| format!("invalid {what}: {text}"));
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if first > last { Err(format!("invalid {what}: {text}: the range runs backwards")) } else { Ok((first, last)) }
}

/// Splits `PORTS[/PROTOCOL]`.
fn split_protocol(text: &str) -> Parse<(&str, Protocol)> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match protocol.to_ascii_lowercase().as_str() {
        "tcp" | "" => Ok((ports, Protocol::Tcp)),
        "udp" => Ok((ports, Protocol::Udp)),
        "sctp" => Err("sctp ports are not supported; use tcp or udp".to_owned()),
        _ => Err(format!("invalid proto: {protocol}")),
    }
}

/// Splits `[ADDRESS:][HOST:]CONTAINER` into its three parts; an IPv6 address stands in brackets.
fn split_address(text: &str) -> Parse<(Option<IpAddr>, &str, &str)> {
    let bad_address = |text: &str| format!("invalid IP address: {text}");
    if let Some(rest) = text.strip_prefix('[') {
        let (address, ports) = rest.split_once("]:").ok_or_else(|| bad_address(text))?;
        let (host, container) = ports.split_once(':').unwrap_or(("", ports));
        return Ok((Some(address.parse().map_err(|_| bad_address(address))?), host, container));
    }
    let parts: Vec<&str> = text.split(':').collect();
    match parts[..] {
        [container] => Ok((None, "", container)),
        [host, container] => Ok((None, host, container)),
        ["", host, container] => Ok((None, host, container)),
        [address, host, container] => Ok((Some(address.parse().map_err(|_| bad_address(address))?), host, container)),
        _ => Err(format!("invalid port specification: {text}; an IPv6 address stands in brackets")),
    }
}

/// Reads one `-p`: `80`, `8080:80`, `127.0.0.1:8080:80`, `127.0.0.1::80`, `[::1]:8080:80`, ranges, `/tcp` or `/udp`. A
/// range of host ports for one container port means any free port of it (*docker run reference "-p"*).
pub(in crate::cli) fn parse_publish(text: &str) -> Parse<Vec<PublishRequest>> {
    if text.contains('=') {
        return parse_publish_long(text);
    }
    let (ports, protocol) = split_protocol(text)?;
    let (address, host, container) = split_address(ports)?;
    pair_up(text, address, host, container, protocol)
}

/// Reads the long form: `target=80,published=8080,protocol=tcp,mode=ingress`.
fn parse_publish_long(text: &str) -> Parse<Vec<PublishRequest>> {
    let (mut target, mut published, mut protocol) = ("", "", Protocol::Tcp);
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("target", value)) => target = value,
            Some(("published", value)) => published = value,
            Some(("protocol", value)) => protocol = split_protocol(&format!("0/{value}"))?.1,
            Some(("mode", "host" | "ingress")) => {}
            _ => return Err(format!("invalid field {field:?} in a port in long form")),
        }
    }
    pair_up(text, None, published, target, protocol)
}

/// Pairs the ports of both ranges.
fn pair_up(
    text: &str,
    address: Option<IpAddr>,
    host: &str,
    container: &str,
    protocol: Protocol,
) -> Parse<Vec<PublishRequest>> {
    if container.is_empty() {
        return Err(format!("no port specified: {text}<empty>"));
    }
    let (first, last) = parse_range(container, "containerPort")?;
    if first == 0 {
        return Err(format!("invalid containerPort: {container}"));
    }
    let host_ports = if host.is_empty() { None } else { Some(parse_range(host, "hostPort")?) };
    // One container port takes any free port of the range.
    let choice = host_ports.filter(|(from, to)| first == last && from != to);
    if let Some((from, to)) = host_ports
        && choice.is_none()
        && to - from != last - first
        && !(from == 0 && to == 0)
    {
        return Err(format!("invalid ranges specified for container and host Ports: {container} and {host}"));
    }
    if choice.is_some_and(|(from, _)| from == 0) {
        return Err(format!("invalid hostPort: {host}: a range begins at 1 or later"));
    }
    Ok((first..=last)
        .map(|container_port| PublishRequest {
            address,
            host_port: match host_ports {
                Some((from, _)) if from != 0 => from + (container_port - first),
                _ => 0,
            },
            host_last: choice.map_or(0, |(_, to)| to),
            container_port,
            protocol,
        })
        .collect())
}

/// Reads one `--expose` into single ports: `80`, `80/udp`, `80-82`.
pub(super) fn parse_expose(text: &str) -> Parse<Vec<String>> {
    if text.contains(':') {
        return Err(format!("invalid port format for --expose: {text}"));
    }
    let (ports, protocol) = split_protocol(text)?;
    let (first, last) = parse_range(ports, "range format for --expose")?;
    if first == 0 {
        return Err(format!("invalid port format for --expose: {text}"));
    }
    Ok((first..=last).map(|port| format!("{port}/{}", protocol_name(protocol))).collect())
}

/// Returns `tcp` or `udp`.
pub(in crate::cli) fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// A port as the column shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) struct ShownPort {
    /// Address on the host; `None` when the port is exposed and not published.
    pub(in crate::cli) address: Option<IpAddr>,
    /// Port on the host.
    pub(in crate::cli) host_port: u16,
    /// Port inside.
    pub(in crate::cli) container_port: u16,
    /// Protocol.
    pub(in crate::cli) protocol: Protocol,
}

/// Ports in a row that are the same outside and inside, or outside not at all.
struct Run {
    first: ShownPort,
    last: u16,
}

impl Run {
    /// Tells whether a port is of the same kind; only then can it lengthen the run.
    fn is_like(&self, port: &ShownPort) -> bool {
        (self.first.protocol, self.first.address) == (port.protocol, port.address)
    }

    fn text(&self) -> String {
        let ports = match (self.first.container_port, self.last) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let inside = format!("{ports}/{}", protocol_name(self.first.protocol));
        match self.first.address {
            None => inside,
            Some(IpAddr::V4(address)) => format!("{address}:{ports}->{inside}"),
            Some(IpAddr::V6(address)) => format!("[{address}]:{ports}->{inside}"),
        }
    }
}

/// Writes the column `PORTS` in Docker's order: neighbours that are the same outside and inside joined to ranges
/// (`0.0.0.0:80-82->80-82/tcp, 443/tcp`), then those that are not, one by one.
pub(in crate::cli) fn ports_column(ports: &[ShownPort]) -> String {
    let mut sorted = ports.to_vec();
    sorted.sort_by_key(|port| (port.container_port, port.address, port.host_port, port.protocol));
    sorted.dedup();
    let (mut texts, mut single, mut open) = (Vec::new(), Vec::new(), Vec::<Run>::new());
    for port in sorted {
        let number = port.container_port;
        if let Some(address) = port.address
            && port.host_port != number
        {
            let outside = std::net::SocketAddr::new(address, port.host_port);
            single.push(format!("{outside}->{number}/{}", protocol_name(port.protocol)));
            continue;
        }
        match open.iter_mut().find(|run| run.is_like(&port)) {
            Some(run) if run.last.checked_add(1) == Some(number) => run.last = number,
            Some(run) => {
                texts.push(run.text());
                *run = Run { first: port, last: number };
            }
            None => open.push(Run { first: port, last: number }),
        }
    }
    texts.extend(open.iter().map(Run::text));
    texts.extend(single);
    texts.join(", ")
}

//! Parsers of the values of single flags: text in, typed value out, no system call.

use crate::base::{Bytes, parse_go_duration};
use crate::engine::request::NetworkMode;
use crate::shim::RestartPolicy;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Result of a value parser: the message says only what is wrong with the value, the flag is named by the caller.
pub(super) type Parse<T> = Result<T, String>;

/// Reads a whole number.
pub(in crate::cli) fn parse_integer<T: FromStr>(text: &str) -> Parse<T> {
    text.parse().map_err(|_| "not a whole number in range".to_owned())
}

/// Reads `KEY=VALUE`.
pub(in crate::cli) fn parse_pair(text: &str) -> Parse<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("not of the form KEY=VALUE".to_owned()),
    }
}

/// Reads `KEY` or `KEY=VALUE`.
pub(in crate::cli) fn parse_label(text: &str) -> Parse<(String, String)> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.trim().is_empty() {
        return Err("invalid label: the name is empty".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// Splits an `--env-file` into its entries: no comments, no empty lines, no quoting.
pub(super) fn env_lines(text: &str) -> impl Iterator<Item = &str> {
    text.strip_prefix('\u{feff}')
        .unwrap_or(text)
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Reads `NAME=value`, or `NAME`, which takes the value of our own environment and is left out when it has none.
pub(super) fn parse_env(
    text: &str,
    from_file: bool,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Parse<Option<String>> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    if name.is_empty() {
        return Err(format!("invalid environment variable: {text}"));
    }
    if from_file && name.contains(char::is_whitespace) {
        return Err(format!("poorly formatted environment: variable '{name}' contains whitespaces"));
    }
    if text.contains('\0') {
        return Err("invalid environment variable: it contains a NUL byte".to_owned());
    }
    Ok(match value {
        Some(_) => Some(text.to_owned()),
        None => variable(name).map(|value| format!("{name}={value}")),
    })
}

/// Reads a signal: `15`, `TERM`, `SIGTERM`, `RTMIN+3`, `rtmax-1`.
pub(in crate::cli) fn parse_signal(text: &str) -> Parse<i32> {
    crate::base::parse_signal(text).ok_or_else(|| format!("invalid signal: {text}"))
}

/// Reads a restart policy: `no`, `always`, `unless-stopped`, `on-failure[:N]`.
pub(super) fn parse_restart(text: &str) -> Parse<RestartPolicy> {
    let (name, count) = match text.split_once(':') {
        Some((name, count)) => (name, Some(count)),
        None => (text, None),
    };
    let policy = match name {
        "no" => RestartPolicy::No,
        "always" => RestartPolicy::Always,
        "unless-stopped" => RestartPolicy::UnlessStopped,
        "on-failure" => {
            let count = count.unwrap_or("0").parse();
            return count
                .map(RestartPolicy::OnFailure)
                .map_err(|_| "invalid restart policy format: maximum retry count must be an integer".to_owned());
        }
        _ => {
            return Err(format!(
                "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            ));
        }
    };
    match count {
        Some(_) => Err("invalid restart policy: maximum retry count can only be used with 'on-failure'".to_owned()),
        None => Ok(policy),
    }
}

/// Reads the network a container starts on.
pub(in crate::cli) fn parse_network(text: &str) -> Parse<NetworkMode> {
    // The long form `name=x,alias=y` of newer command lines: only the name is known here.
    let name = match text.split_once('=') {
        Some(("name", name)) if !name.contains(',') => name,
        Some(_) => return Err("only 'name=' is supported in the long form of --network".to_owned()),
        None => text,
    };
    Ok(match name.split_once(':') {
        Some(("container", "")) => return Err("container:NAME needs the name of a container".to_owned()),
        Some(("container", container)) => NetworkMode::Container(container.to_owned()),
        Some(_) => return Err("not the name of a network".to_owned()),
        None => match name {
            "default" | "bridge" => NetworkMode::Default,
            "none" => NetworkMode::None,
            "host" => NetworkMode::Host,
            _ => NetworkMode::Named(name.to_owned()),
        },
    })
}

/// Reads a namespace mode: one of `words`, or `container:NAME` where that is possible.
pub(super) fn parse_namespace(text: &str, words: &[&str], container: bool) -> Parse<String> {
    let known =
        words.contains(&text) || (container && text.strip_prefix("container:").is_some_and(|name| !name.is_empty()));
    if known {
        return Ok(text.to_owned());
    }
    let last = if container { ", container:NAME" } else { "" };
    Err(format!("unknown mode; use {}{last}", words.join(", ")))
}

/// Reads an IPC mode; every private one can be shared here, so `shareable` is `private`.
pub(super) fn parse_ipc(text: &str) -> Parse<String> {
    if text == "shareable" { Ok("private".to_owned()) } else { parse_namespace(text, &["host", "private"], true) }
}

/// Reads a log driver.
pub(super) fn parse_log_driver(text: &str) -> Parse<String> {
    match text {
        "json-file" | "local" | "none" => Ok(text.to_owned()),
        _ => Err("unknown log driver; use json-file, local or none".to_owned()),
    }
}

/// Reads an adjustment of the out-of-memory score.
pub(super) fn parse_oom_score_adj(text: &str) -> Parse<i32> {
    let value = parse_integer(text)?;
    if (-1000..=1000).contains(&value) { Ok(value) } else { Err("range for oom score adj is [-1000, 1000]".to_owned()) }
}

/// Reads an address of a host, IPv6 also in brackets.
pub(super) fn parse_address(text: &str) -> Parse<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| format!("{text} is not an ip address"))
}

/// Reads `host:ip` or `host=ip`; the address may be the word `host-gateway`.
pub(in crate::cli) fn parse_add_host(text: &str) -> Parse<(String, String)> {
    let at = text.find(['=', ':']).ok_or_else(|| format!("bad format for add-host: {text:?}"))?;
    let (name, address) = (&text[..at], &text[at + 1..]);
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(format!("bad format for add-host: {text:?}"));
    }
    if address == "host-gateway" {
        return Ok((name.to_owned(), address.to_owned()));
    }
    let address = parse_address(address).map_err(|_| format!("invalid IP address in add-host: {address:?}"))?;
    Ok((name.to_owned(), address.to_string()))
}

/// Reads `CONTAINER[:ALIAS]`.
pub(super) fn parse_link(text: &str) -> Parse<(String, String)> {
    let (name, alias) = text.split_once(':').unwrap_or((text, text));
    if name.is_empty() || alias.is_empty() || alias.contains(':') {
        return Err(format!("bad format for links: {text}"));
    }
    Ok((name.to_owned(), alias.to_owned()))
}

/// Reads `--memory-swap`: a size, or -1 for no limit.
pub(super) fn parse_memory_swap(text: &str) -> Parse<i64> {
    if text == "-1" {
        return Ok(-1);
    }
    let Bytes(bytes) = text.parse().map_err(|error: crate::base::SizeError| error.to_string())?;
    i64::try_from(bytes).map_err(|_| "the size is too large".to_owned())
}

/// Reads a decimal number of CPUs as billionths, exactly.
pub(super) fn parse_cpus(text: &str) -> Parse<u64> {
    let fail = || "not a decimal number of CPUs such as 1.5".to_owned();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return Err(fail());
    }
    if fraction.trim_end_matches('0').len() > 9 {
        return Err("value is too precise".to_owned());
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| fail())? };
    let fraction: u64 = format!("{:0<9.9}", fraction).parse().map_err(|_| fail())?;
    whole.checked_mul(1_000_000_000).and_then(|nanos| nanos.checked_add(fraction)).ok_or_else(fail)
}

/// Checks a list of numbers and ranges: `0-3,7`.
pub(super) fn parse_cpuset(text: &str) -> Parse<String> {
    let number = |part: &str| part.parse::<u16>().ok().filter(|n| *n < 8192);
    let good = text.split(',').all(|part| match part.split_once('-') {
        Some((from, to)) => matches!((number(from), number(to)), (Some(from), Some(to)) if from <= to),
        None => number(part).is_some(),
    });
    if good { Ok(text.to_owned()) } else { Err("not a list of numbers and ranges such as 0-3,7".to_owned()) }
}

/// Reads the name of a capability in any spelling and returns it upper-case without `CAP_`.
pub(super) fn parse_capability(text: &str) -> Parse<String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || b.is_ascii_digit());
    if good { Ok(name.to_owned()) } else { Err(format!("invalid capability: {text:?}")) }
}

/// Checks a security option; `key:value` is the old spelling of `key=value`. What there is nothing to switch off for
/// (`label=disable`, `apparmor=unconfined`) gives no entry.
pub(super) fn parse_security_option(text: &str) -> Parse<Vec<String>> {
    let at = text.find(['=', ':']);
    let (key, value) = at.map_or((text, None), |at| (&text[..at], Some(&text[at + 1..])));
    let spelled = match (key, value) {
        ("no-new-privileges", None | Some("true")) => "no-new-privileges".to_owned(),
        ("no-new-privileges", Some("false")) => "no-new-privileges=false".to_owned(),
        ("strict", None) => text.to_owned(),
        ("landlock", Some("off")) => "landlock=off".to_owned(),
        ("systempaths", Some("unconfined")) => "systempaths=unconfined".to_owned(),
        ("seccomp", Some(profile)) if !profile.is_empty() => format!("seccomp={profile}"),
        ("label", Some("disable")) | ("apparmor", Some("unconfined")) => return Ok(Vec::new()),
        ("label" | "apparmor", _) => {
            return Err(format!("{key} is not used here: the walls are seccomp, Landlock and user namespaces"));
        }
        _ => {
            return Err(format!(
                "invalid --security-opt: {text:?}; use no-new-privileges[=false], seccomp=FILE|strict|unconfined, \
                 landlock=off, systempaths=unconfined or strict"
            ));
        }
    };
    Ok(vec![spelled])
}

/// Names of resource limits as Docker spells them.
const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Reads `name=soft[:hard]`; -1 is no limit.
pub(in crate::cli) fn parse_ulimit(text: &str) -> Parse<(String, u64, u64)> {
    let (name, values) = text.split_once('=').ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
    if !ULIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number = |part: &str| match part {
        "-1" | "unlimited" => Ok(u64::MAX),
        _ => part.parse::<u64>().map_err(|_| format!("invalid ulimit value: {part:?}")),
    };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(values)?, number(values)?),
    };
    if soft > hard {
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
    }
    Ok((name.to_owned(), soft, hard))
}

/// Reads `/dev/a[:/dev/b][:rwm]`.
pub(in crate::cli) fn parse_device(text: &str) -> Parse<(PathBuf, String, String)> {
    let is_access = |part: &str| !part.is_empty() && part.bytes().all(|b| b"rwm".contains(&b));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, inside, access) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, access] if is_access(access) => (host, host, access),
        [host, inside] => (host, inside, "rwm"),
        [host, inside, access] if is_access(access) => (host, inside, access),
        [_, _, access] => return Err(format!("bad mode specified: {access}")),
        _ => return Err(format!("invalid device specification: {text}")),
    };
    if !host.starts_with('/') || !inside.starts_with('/') {
        return Err(format!("invalid device specification: {text}: both paths must be absolute"));
    }
    Ok((PathBuf::from(host), inside.to_owned(), access.to_owned()))
}

/// Reads a time of a health check: at least a millisecond.
pub(super) fn parse_health_time(text: &str) -> Parse<Duration> {
    let time = parse_go_duration(text).map_err(|error| error.to_string())?;
    if time.is_zero() || time >= Duration::from_millis(1) {
        Ok(time)
    } else {
        Err("cannot be less than 1ms".to_owned())
    }
}

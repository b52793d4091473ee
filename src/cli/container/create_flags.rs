//! The flags of `run` and `create`, and how they become a [`CreateRequest`].

use super::mounts::{parse_mount, parse_tmpfs, parse_volume};
use super::ports::{parse_expose, parse_publish};
use super::values::*;
use crate::base::Bytes;
use crate::cli::error::Failure;
use crate::cli::flags::{Flags, Parsed, list, switch, value};
use crate::engine::request::{CreateRequest, HardeningRequest, HealthRequest, LimitRequest, MountRequest, NetworkMode};
use crate::shim::RestartPolicy;
use std::path::{Path, PathBuf};

/// What the parser may ask of the process it runs in; tests give their own.
pub(in crate::cli) struct Surroundings<'a> {
    /// Looks up a variable of the environment.
    pub(in crate::cli) variable: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a text file (`--env-file`, `--label-file`).
    pub(in crate::cli) read: &'a dyn Fn(&Path) -> std::io::Result<Vec<u8>>,
    /// Returns the working directory, for relative bind sources.
    pub(in crate::cli) directory: &'a dyn Fn() -> PathBuf,
}

/// Adds the flags that `run` and `create` share.
pub(in crate::cli) fn create_flags(flags: Flags) -> Flags {
    let flags = flags
        .arg(list("add-host", "Add a custom host-to-IP mapping (host:ip)"))
        .arg(list("attach", "Attach to STDIN, STDOUT or STDERR").short('a'))
        .arg(list("cap-add", "Add Linux capabilities (NAME or ALL; with --network host, 'ping' needs NET_RAW)"))
        .arg(list("cap-drop", "Drop Linux capabilities (NAME or ALL)"))
        .arg(value("cgroupns", "string", "Cgroup namespace to use (host|private)"))
        .arg(value("cidfile", "string", "Write the container ID to the file"))
        .arg(value("cpu-period", "int", "Limit CPU CFS (Completely Fair Scheduler) period, microseconds"))
        .arg(value("cpu-quota", "int", "Limit CPU CFS (Completely Fair Scheduler) quota, microseconds"))
        .arg(value("cpu-shares", "int", "CPU shares (relative weight)").short('c'))
        .arg(value("cpus", "decimal", "Number of CPUs"))
        .arg(value("cpuset-cpus", "string", "CPUs in which to allow execution (0-3, 0,1)"))
        .arg(value("cpuset-mems", "string", "MEMs in which to allow execution (0-3, 0,1)"))
        .arg(list("device", "Add a host device to the container (PATH[:INSIDE][:rwm])"))
        .arg(list("dns", "Set custom DNS servers"))
        .arg(list("dns-option", "Set DNS options").alias("dns-opt"))
        .arg(list("dns-search", "Set custom DNS search domains"))
        .arg(value("domainname", "string", "Container NIS domain name"))
        .arg(value("entrypoint", "string", "Overwrite the default ENTRYPOINT of the image"))
        .arg(list("env", "Set environment variables (NAME=VALUE, or NAME for the caller's value)").short('e'))
        .arg(list("env-file", "Read in a file of environment variables"))
        .arg(list("expose", "Expose a port or a range of ports (80, 80/udp, 8000-8010)"))
        .arg(list("group-add", "Add additional groups to join"))
        .arg(value("health-cmd", "string", "Command to run to check health"))
        .arg(value("health-interval", "duration", "Time between running the check (ms|s|m|h)"))
        .arg(value("health-retries", "int", "Consecutive failures needed to report unhealthy"))
        .arg(value("health-start-interval", "duration", "Time between checks during the start period (ms|s|m|h)"))
        .arg(value("health-start-period", "duration", "Start period before failures count (ms|s|m|h)"))
        .arg(value("health-timeout", "duration", "Maximum time to allow one check to run (ms|s|m|h)"))
        .arg(value("hostname", "string", "Container host name").short('h'));
    more_create_flags(flags)
}

fn more_create_flags(flags: Flags) -> Flags {
    flags
        .arg(switch("init", "Run an init inside the container that forwards signals and reaps processes"))
        .arg(switch("interactive", "Keep STDIN open even if not attached").short('i'))
        .arg(value("ipc", "string", "IPC mode to use (host|private|container:NAME)"))
        .arg(list("label", "Set meta data on a container").short('l'))
        .arg(list("label-file", "Read in a line delimited file of labels"))
        .arg(list("link", "Add link to another container (NAME[:ALIAS])"))
        .arg(value("log-driver", "string", "Logging driver for the container (json-file|local|none)"))
        .arg(list("log-opt", "Log driver options (max-size, max-file)"))
        .arg(value("memory", "bytes", "Memory limit (64m, 2g; default: 75% of the machine's, 0: none)").short('m'))
        .arg(value("memory-reservation", "bytes", "Memory soft limit"))
        .arg(value("memory-swap", "bytes", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap"))
        .arg(list("mount", "Attach a filesystem mount to the container (type=bind|volume|tmpfs,source=...,target=...)"))
        .arg(value("name", "string", "Assign a name to the container"))
        .arg(list("network", "Connect a container to a network (bridge|host|none|container:NAME)").alias("net"))
        .arg(switch("no-healthcheck", "Disable any container-specified HEALTHCHECK"))
        .arg(value("oom-score-adj", "int", "Tune host's OOM preferences (-1000 to 1000)"))
        .arg(value("pid", "string", "PID namespace to use (host|container:NAME)"))
        .arg(value("pids-limit", "int", "Limit of processes and threads (default 2048, -1: none)"))
        .arg(value("platform", "string", "Set platform if the image has several"))
        .arg(switch("privileged", "Give extended privileges to this container"))
        .arg(list("publish", "Publish a container's port(s) to the host ([[ADDRESS:]HOST:]PORT[/udp])").short('p'))
        .arg(switch("publish-all", "Publish all exposed ports to random ports").short('P'))
        .arg(value("pull", "string", "Pull image before running (always|missing|never)"))
        .arg(switch("quiet", "Suppress the pull output").short('q'))
        .arg(switch("read-only", "Mount the container's root filesystem as read only"))
        .arg(list("require", "Fail unless this is enforced (landlock>=N, userns, seccomp)"))
        .arg(value(
            "restart",
            "string",
            "Restart policy to apply when a container exits (no|always|unless-stopped|on-failure[:MAX])",
        ))
        .arg(switch("rm", "Automatically remove the container and its anonymous volumes when it exits"))
        .arg(value("rootfs", "directory", "Use a directory of the host as root file system instead of an image"))
        .arg(list("security-opt", "Security Options (no-new-privileges, seccomp=FILE|strict|unconfined, ...)"))
        .arg(value("shm-size", "bytes", "Size of /dev/shm (default 64m)"))
        .arg(value("stop-signal", "string", "Signal to stop the container (default: the image's, or SIGTERM)"))
        .arg(value("stop-timeout", "int", "Timeout (in seconds) to stop a container (default 10, -1: for ever)"))
        .arg(list("sysctl", "Set a kernel parameter of the container's namespaces (NAME=VALUE)"))
        .arg(list("tmpfs", "Mount a tmpfs directory (PATH[:size=64m,mode=1777,...])"))
        .arg(switch("tty", "Allocate a pseudo-TTY").short('t'))
        .arg(list("ulimit", "Set a resource limit (nofile=SOFT[:HARD])"))
        .arg(value("user", "string", "Username or UID (format: <name|uid>[:<group|gid>])").short('u'))
        .arg(value("userns", "string", "User namespace to use (private|host)"))
        .arg(value("uts", "string", "UTS namespace to use (host)"))
        .arg(list("volume", "Mount a volume or a host path (NAME|HOST_PATH:PATH[:ro])").short('v'))
        .arg(value("workdir", "string", "Working directory inside the container").short('w'))
}

/// Turns the flags and arguments of `run` or `create` into a request.
///
/// # Errors
/// Exit code 125 with Docker's wording for each value that cannot be.
pub(in crate::cli) fn create_request(parsed: &Parsed, around: &Surroundings<'_>) -> Result<CreateRequest, Failure> {
    let rootfs = parsed.filled("rootfs").map(|text| absolute(&text, around));
    let mut words = parsed.arguments.clone();
    // With `--rootfs` there is no image: all words are the command.
    let image = if rootfs.is_some() { String::new() } else { words.remove(0) };
    let request = CreateRequest {
        image,
        rootfs,
        command: words,
        entrypoint: parsed.text("entrypoint").map(str::to_owned),
        name: parsed.filled("name"),
        env: environment(parsed, around)?,
        working_dir: parsed.filled("workdir"),
        user: parsed.filled("user"),
        groups: parsed.all("group-add").map(str::to_owned).collect(),
        hostname: parsed.filled("hostname"),
        domainname: parsed.filled("domainname"),
        labels: labels(parsed, around)?,
        tty: parsed.switch("tty")?,
        stdin_open: parsed.switch("interactive")?,
        auto_remove: parsed.switch("rm")?,
        restart: parsed.read("restart", parse_restart)?.unwrap_or_default(),
        stop_signal: parsed.read("stop-signal", parse_signal)?,
        stop_timeout: parsed.read("stop-timeout", parse_integer)?,
        mounts: mounts(parsed, around)?,
        network: network(parsed)?,
        publish: parsed.read_all("publish", parse_publish)?,
        publish_all: parsed.switch("publish-all")?,
        expose: parsed.read_all("expose", parse_expose)?,
        dns: parsed.read_all("dns", |text| parse_address(text).map(|ip| vec![ip]))?,
        dns_search: parsed.all("dns-search").map(str::to_owned).collect(),
        dns_options: parsed.all("dns-option").map(str::to_owned).collect(),
        extra_hosts: parsed.read_all("add-host", |text| parse_add_host(text).map(|host| vec![host]))?,
        links: parsed.read_all("link", |text| parse_link(text).map(|link| vec![link]))?,
        limits: limits(parsed)?,
        hardening: hardening(parsed)?,
        sysctls: parsed.read_all("sysctl", |text| parse_pair(text).map(|pair| vec![pair]))?,
        ulimits: parsed.read_all("ulimit", |text| parse_ulimit(text).map(|limit| vec![limit]))?,
        devices: parsed.read_all("device", |text| parse_device(text).map(|device| vec![device]))?,
        shm_size: parsed.read("shm-size", str::parse::<Bytes>)?,
        read_only: parsed.switch("read-only")?,
        init: parsed.switch("init")?,
        pid_mode: parsed.read("pid", |text| parse_namespace(text, &["host", "private"], true))?.unwrap_or_default(),
        ipc_mode: parsed.read("ipc", parse_ipc)?.unwrap_or_default(),
        uts_mode: parsed.read("uts", |text| parse_namespace(text, &["host", "private"], false))?.unwrap_or_default(),
        cgroupns_mode: parsed
            .read("cgroupns", |text| parse_namespace(text, &["host", "private"], false))?
            .unwrap_or_default(),
        userns_mode: parsed
            .read("userns", |text| parse_namespace(text, &["host", "private"], false))?
            .unwrap_or_default(),
        health: health(parsed)?,
        log_driver: parsed.read("log-driver", parse_log_driver)?,
        log_options: parsed.read_all("log-opt", |text| parse_pair(text).map(|pair| vec![pair]))?,
        oom_score_adj: parsed.read("oom-score-adj", parse_oom_score_adj)?.unwrap_or_default(),
        platform: parsed.filled("platform"),
        require: parsed.all("require").map(str::to_owned).collect(),
    };
    if request.auto_remove && request.restart != RestartPolicy::No {
        return Err(parsed.conflict("conflicting options: cannot specify both --restart and --rm"));
    }
    Ok(request)
}

/// Makes a path of the host absolute.
pub(super) fn absolute(text: &str, around: &Surroundings<'_>) -> PathBuf {
    let path = Path::new(text);
    if path.is_absolute() {
        return path.to_owned();
    }
    let joined = (around.directory)().join(path);
    // `./data` and `.` are spelled without their dots; `..` stays, because a link may stand before it.
    joined.components().collect()
}

/// Reads a file of lines named by a flag.
fn lines_of(parsed: &Parsed, flag: &str, path: &str, around: &Surroundings<'_>) -> Result<String, Failure> {
    let bytes = (around.read)(Path::new(path)).map_err(|error| parsed.invalid(flag, path, error))?;
    String::from_utf8(bytes).map_err(|_| parsed.invalid(flag, path, "the file is not UTF-8 text"))
}

/// Collects `--env-file` and `-e`, in this order; a later value of a name takes the place of an earlier one.
pub(in crate::cli) fn environment(parsed: &Parsed, around: &Surroundings<'_>) -> Result<Vec<String>, Failure> {
    let mut result: Vec<String> = Vec::new();
    let mut add = |entry: Option<String>| {
        let Some(entry) = entry else { return };
        let name = entry.split('=').next().unwrap_or_default().len();
        match result.iter_mut().find(|old| old.get(..=name) == entry.get(..=name)) {
            Some(old) => *old = entry,
            None => result.push(entry),
        }
    };
    for path in parsed.all("env-file") {
        for line in env_lines(&lines_of(parsed, "env-file", path, around)?) {
            add(parse_env(line, true, around.variable).map_err(|error| parsed.invalid("env-file", path, error))?);
        }
    }
    for text in parsed.all("env") {
        add(parse_env(text, false, around.variable).map_err(|error| parsed.invalid("env", text, error))?);
    }
    Ok(result)
}

fn labels(parsed: &Parsed, around: &Surroundings<'_>) -> Result<Vec<(String, String)>, Failure> {
    let mut result: Vec<(String, String)> = Vec::new();
    let mut add = |(key, value): (String, String)| match result.iter_mut().find(|(old, _)| *old == key) {
        Some((_, old)) => *old = value,
        None => result.push((key, value)),
    };
    for path in parsed.all("label-file") {
        for line in env_lines(&lines_of(parsed, "label-file", path, around)?) {
            add(parse_label(line).map_err(|error| parsed.invalid("label-file", path, error))?);
        }
    }
    for text in parsed.all("label") {
        add(parse_label(text).map_err(|error| parsed.invalid("label", text, error))?);
    }
    Ok(result)
}

/// Collects the three mount flags in the order in which they were written.
fn mounts(parsed: &Parsed, around: &Surroundings<'_>) -> Result<Vec<MountRequest>, Failure> {
    let resolve = |text: &str| absolute(text, around);
    let mut placed = Vec::new();
    for (place, text) in parsed.placed("volume") {
        placed.push((place, parse_volume(text, &resolve).map_err(|error| parsed.invalid("volume", text, error))?));
    }
    for (place, text) in parsed.placed("mount") {
        placed.push((place, parse_mount(text, &resolve).map_err(|error| parsed.invalid("mount", text, error))?));
    }
    for (place, text) in parsed.placed("tmpfs") {
        placed.push((place, parse_tmpfs(text).map_err(|error| parsed.invalid("tmpfs", text, error))?));
    }
    placed.sort_by_key(|(place, _)| *place);
    let mut result: Vec<MountRequest> = Vec::new();
    for (_, mount) in placed {
        let target = |mount| super::mounts::target(mount).trim_end_matches('/').to_owned();
        match result.iter().find(|known| target(known) == target(&mount)) {
            None => result.push(mount),
            // The same again, which Docker overlooks.
            Some(known) if *known == mount => {}
            Some(_) => return Err(parsed.conflict(format!("Duplicate mount point: {}", target(&mount)))),
        }
    }
    Ok(result)
}

fn network(parsed: &Parsed) -> Result<NetworkMode, Failure> {
    let mut names = parsed.all("network");
    let Some(first) = names.next() else { return Ok(NetworkMode::Default) };
    if let Some(second) = names.next() {
        return Err(parsed.invalid("network", second, "a container starts on one network"));
    }
    parse_network(first).map_err(|error| parsed.invalid("network", first, error))
}

fn limits(parsed: &Parsed) -> Result<LimitRequest, Failure> {
    let limits = LimitRequest {
        memory: parsed.read("memory", str::parse)?,
        memory_swap: parsed.read("memory-swap", parse_memory_swap)?,
        memory_reservation: parsed.read("memory-reservation", str::parse)?,
        pids: parsed.read("pids-limit", parse_integer)?,
        nano_cpus: parsed.read("cpus", parse_cpus)?,
        cpu_shares: parsed.read("cpu-shares", parse_integer)?,
        cpu_quota: parsed.read("cpu-quota", parse_integer)?,
        cpu_period: parsed.read("cpu-period", parse_integer)?,
        cpuset_cpus: parsed.read("cpuset-cpus", parse_cpuset)?,
        cpuset_mems: parsed.read("cpuset-mems", parse_cpuset)?,
    };
    if limits.nano_cpus.is_some() && (limits.cpu_quota.is_some() || limits.cpu_period.is_some()) {
        return Err(parsed.conflict("conflicting options: --cpus excludes --cpu-quota and --cpu-period"));
    }
    Ok(limits)
}

fn hardening(parsed: &Parsed) -> Result<HardeningRequest, Failure> {
    Ok(HardeningRequest {
        privileged: parsed.switch("privileged")?,
        cap_add: parsed.read_all("cap-add", |text| parse_capability(text).map(|name| vec![name]))?,
        cap_drop: parsed.read_all("cap-drop", |text| parse_capability(text).map(|name| vec![name]))?,
        security_opt: parsed.read_all("security-opt", parse_security_option)?,
    })
}

fn health(parsed: &Parsed) -> Result<HealthRequest, Failure> {
    const SET: [&str; 6] = ["cmd", "interval", "retries", "start-interval", "start-period", "timeout"];
    let disable = parsed.switch("no-healthcheck")?;
    if disable && SET.iter().any(|name| parsed.given(&format!("health-{name}"))) {
        return Err(parsed.conflict("--no-healthcheck conflicts with --health-* options"));
    }
    Ok(HealthRequest {
        disable,
        command: parsed.filled("health-cmd"),
        interval: parsed.read("health-interval", parse_health_time)?,
        timeout: parsed.read("health-timeout", parse_health_time)?,
        start_period: parsed.read("health-start-period", parse_health_time)?,
        start_interval: parsed.read("health-start-interval", parse_health_time)?,
        retries: parsed.read("health-retries", parse_integer)?,
    })
}

//! Containers.

use super::{network_id, object};
use crate::cli::container::protocol_name;
use crate::engine::record::{Container, MountKind, MountPoint};
use crate::engine::request::NetworkMode;
use crate::image::Active;
use crate::shim::{RestartPolicy, Status};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Where a container's files lie.
pub(in crate::cli) struct Places<'a> {
    /// Its overlay; `None` with `--rootfs`.
    pub(in crate::cli) overlay: Option<&'a Active>,
    /// What it wrote and what it takes with its image, in bytes (`--size`).
    pub(in crate::cli) size: Option<(u64, u64)>,
}

/// Writes a container.
pub(in crate::cli) fn container(container: &Container, places: &Places<'_>) -> Value {
    let record = &container.record;
    let state = &container.state;
    let (path, args) = match record.process.args.split_first() {
        Some((path, args)) => (path.clone(), args.to_vec()),
        None => (String::new(), Vec::new()),
    };
    let mut value = json!({
        "Id": record.id.as_str(),
        "Created": record.created.to_string(),
        "Path": path,
        "Args": args,
        "State": state_object(container),
        "Image": record.image.as_ref().map(|image| image.id.to_string()).unwrap_or_default(),
        // They lie on file systems of the container's alone. Every path to them leads through its tree, whose links it makes.
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": record.log.as_ref().map(|log| log.dir.display().to_string()).unwrap_or_default(),
        "Name": format!("/{}", record.name),
        "RestartCount": state.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": null,
        "HostConfig": host_config(container),
        "GraphDriver": graph_driver(places.overlay),
        "Mounts": record.mounts.iter().map(mount).collect::<Vec<_>>(),
        "Config": config(container),
        "NetworkSettings": network_settings(container),
        "Enforced": state.enforced.as_ref().map(|enforced| serde_json::to_value(enforced).unwrap_or_default()),
    });
    if let (Some((own, all)), Some(map)) = (places.size, value.as_object_mut()) {
        map.insert("SizeRw".to_owned(), own.into());
        map.insert("SizeRootFs".to_owned(), all.into());
    }
    value
}

fn state_object(container: &Container) -> Value {
    let state = &container.state;
    let mut value = json!({
        "Status": crate::cli::container::status_word(state.status),
        "Running": matches!(state.status, Status::Running | Status::Paused | Status::Restarting),
        "Paused": state.status == Status::Paused,
        "Restarting": state.status == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.status == Status::Dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": state.started_at.to_string(),
        "FinishedAt": state.finished_at.to_string(),
    });
    if let (Some(health), Some(map)) = (&state.health, value.as_object_mut()) {
        let log: Vec<Value> = health
            .log
            .iter()
            .map(|run| json!({"Start": run.start.to_string(), "End": run.end.to_string(), "ExitCode": run.exit_code, "Output": run.output}))
            .collect();
        let health = json!({"Status": health.status, "FailingStreak": health.failing_streak, "Log": log});
        map.insert("Health".to_owned(), health);
    }
    value
}

/// Writes key and value pairs as an object.
fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> Value {
    let map: Map<String, Value> = names.into_iter().map(|name| (name.to_owned(), json!({}))).collect();
    if map.is_empty() { Value::Null } else { Value::Object(map) }
}

/// Writes the name of a restart policy and its count.
fn restart(policy: RestartPolicy) -> Value {
    let (name, count) = match policy {
        RestartPolicy::No => ("no", 0),
        RestartPolicy::Always => ("always", 0),
        RestartPolicy::UnlessStopped => ("unless-stopped", 0),
        RestartPolicy::OnFailure(count) => ("on-failure", count),
    };
    json!({"Name": name, "MaximumRetryCount": count})
}

fn network_mode(mode: &NetworkMode) -> String {
    match mode {
        NetworkMode::Default => "bridge".to_owned(),
        NetworkMode::None => "none".to_owned(),
        NetworkMode::Host => "host".to_owned(),
        NetworkMode::Container(name) => format!("container:{name}"),
        NetworkMode::Named(name) => name.clone(),
    }
}

fn host_config(container: &Container) -> Value {
    let record = &container.record;
    let request = &record.request;
    let limits = &record.limits;
    let binds: Vec<String> = record
        .mounts
        .iter()
        .filter(|mount| mount.kind != MountKind::Tmpfs && !mount.anonymous)
        .map(|mount| {
            let source = if mount.name.is_empty() { mount.source.display().to_string() } else { mount.name.clone() };
            format!("{source}:{}{}", mount.target, if mount.writable { "" } else { ":ro" })
        })
        .collect();
    let tmpfs: Map<String, Value> = record
        .mounts
        .iter()
        .filter(|mount| mount.kind == MountKind::Tmpfs)
        .map(|mount| (mount.target.clone(), mount.options.join(",").into()))
        .collect();
    let bindings: Vec<(String, Value)> = request.publish.iter().fold(Vec::new(), |mut all, port| {
        let key = format!("{}/{}", port.container_port, protocol_name(port.protocol));
        let host = match (port.host_port, port.host_last) {
            (0, _) => String::new(),
            (first, 0) => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let address = port.address.map(|address| address.to_string()).unwrap_or_default();
        let entry = json!({"HostIp": address, "HostPort": host});
        match all.iter_mut().find(|(known, _)| *known == key) {
            Some((_, Value::Array(list))) => list.push(entry),
            _ => all.push((key, json!([entry]))),
        }
        all
    });
    let mut value = json!({
        "Binds": if binds.is_empty() { Value::Null } else { json!(binds) },
        "ContainerIDFile": "",
        "LogConfig": {
            "Type": request.log_driver.as_deref().unwrap_or("json-file"),
            "Config": object(request.log_options.iter().map(|(key, value)| (key, value))),
        },
        "NetworkMode": network_mode(&request.network),
        "PortBindings": bindings.into_iter().collect::<Map<_, _>>(),
        "RestartPolicy": restart(record.restart),
        "AutoRemove": request.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": null,
        "ConsoleSize": [0, 0],
        "CapAdd": if request.hardening.cap_add.is_empty() { Value::Null } else { json!(request.hardening.cap_add) },
        "CapDrop": if request.hardening.cap_drop.is_empty() { Value::Null } else { json!(request.hardening.cap_drop) },
        "CgroupnsMode": if request.cgroupns_mode.is_empty() { "private" } else { request.cgroupns_mode.as_str() },
        "Dns": request.dns,
        "DnsOptions": request.dns_options,
        "DnsSearch": request.dns_search,
        "ExtraHosts": request.extra_hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect::<Vec<_>>(),
        "GroupAdd": request.groups,
        "IpcMode": if request.ipc_mode.is_empty() { "private" } else { request.ipc_mode.as_str() },
        "Cgroup": "",
        "Links": request.links.iter().map(|(name, alias)| format!("/{name}:/{}/{alias}", record.name)).collect::<Vec<_>>(),
        "OomScoreAdj": request.oom_score_adj,
        "PidMode": request.pid_mode,
        "Privileged": request.hardening.privileged,
        "PublishAllPorts": request.publish_all,
        "ReadonlyRootfs": request.read_only,
        "SecurityOpt": if request.hardening.security_opt.is_empty() { Value::Null } else { json!(request.hardening.security_opt) },
        "UTSMode": request.uts_mode,
        "UsernsMode": request.userns_mode,
        "ShmSize": request.shm_size.map_or(64 << 20, |size| size.0),
        "Runtime": "bulkhead",
        "Isolation": "",
    });
    let more = json!({
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "Memory": limits.memory.unwrap_or(0),
        "NanoCpus": limits.nano_cpus.unwrap_or(0),
        "CgroupParent": "",
        "CpuPeriod": limits.cpu_period.unwrap_or(0),
        "CpuQuota": limits.cpu_quota.unwrap_or(0),
        "CpusetCpus": limits.cpuset_cpus.as_deref().unwrap_or(""),
        "CpusetMems": limits.cpuset_mems.as_deref().unwrap_or(""),
        "Devices": request.devices.iter().map(|(host, inside, access)| {
            json!({"PathOnHost": host.display().to_string(), "PathInContainer": inside, "CgroupPermissions": access})
        }).collect::<Vec<_>>(),
        "MemoryReservation": limits.memory_reservation.unwrap_or(0),
        "MemorySwap": limits.memory_swap.unwrap_or(0),
        "OomKillDisable": false,
        "PidsLimit": limits.pids,
        "Sysctls": object(request.sysctls.iter().map(|(key, value)| (key, value))),
        "Ulimits": request.ulimits.iter().map(|(name, soft, hard)| {
            let number = |value: &u64| i64::try_from(*value).unwrap_or(-1);
            json!({"Name": name, "Soft": number(soft), "Hard": number(hard)})
        }).collect::<Vec<_>>(),
        "Tmpfs": tmpfs,
        "Init": request.init,
        "Require": request.require,
    });
    if let (Some(map), Value::Object(more)) = (value.as_object_mut(), more) {
        map.extend(more);
    }
    value
}

fn graph_driver(overlay: Option<&Active>) -> Value {
    let Some(active) = overlay else { return json!({"Name": "rootfs", "Data": {}}) };
    let full = |path: &Path| active.store.join(path).display().to_string();
    let lowers: Vec<String> = active.lowers.iter().map(|lower| full(lower)).collect();
    json!({"Name": "overlay2", "Data": {"LowerDir": lowers.join(":"), "UpperDir": full(&active.upper), "WorkDir": full(&active.work)}})
}

fn mount(mount: &MountPoint) -> Value {
    let kind = match mount.kind {
        MountKind::Bind => "bind",
        MountKind::Volume => "volume",
        MountKind::Tmpfs => "tmpfs",
    };
    let volume = mount.kind == MountKind::Volume;
    json!({
        "Type": kind,
        "Name": if volume { mount.name.as_str() } else { "" },
        "Source": mount.source.display().to_string(),
        "Destination": mount.target,
        "Driver": if volume { "local" } else { "" },
        "Mode": if mount.kind == MountKind::Tmpfs { mount.options.join(",") } else if mount.writable { String::new() } else { "ro".to_owned() },
        "RW": mount.writable,
        "Propagation": if mount.kind == MountKind::Bind { "rprivate" } else { "" },
    })
}

fn config(container: &Container) -> Value {
    let record = &container.record;
    let request = &record.request;
    let volumes = record.mounts.iter().filter(|mount| mount.anonymous).map(|mount| mount.target.as_str());
    let mut value = json!({
        "Hostname": record.hostname,
        "Domainname": request.domainname.as_deref().unwrap_or(""),
        "User": record.process.user,
        "AttachStdin": request.stdin_open,
        "AttachStdout": true,
        "AttachStderr": true,
        "ExposedPorts": set(record.exposed.iter().map(String::as_str)),
        "Tty": request.tty,
        "OpenStdin": request.stdin_open,
        "StdinOnce": false,
        "Env": record.env,
        "Cmd": if record.command.is_empty() { Value::Null } else { json!(record.command) },
        "Image": record.image.as_ref().map(|image| image.name.as_str()).unwrap_or_default(),
        "Volumes": set(volumes),
        "WorkingDir": if record.process.cwd == "/" { "" } else { record.process.cwd.as_str() },
        "Entrypoint": if record.entrypoint.is_empty() { Value::Null } else { json!(record.entrypoint) },
        "OnBuild": null,
        "Labels": object(record.labels.iter().map(|(key, value)| (key, value))),
        "StopSignal": crate::base::signal_name(record.stop_signal),
        "StopTimeout": record.stop_timeout,
    });
    if let (Some(check), Some(map)) = (&record.health, value.as_object_mut()) {
        let test: Vec<&str> = std::iter::once("CMD").chain(check.command.iter().map(String::as_str)).collect();
        let health = json!({
            "Test": test,
            "Interval": check.interval,
            "Timeout": check.timeout,
            "StartPeriod": check.start_period,
            "StartInterval": check.start_interval,
            "Retries": check.retries,
        });
        map.insert("Healthcheck".to_owned(), health);
    }
    value
}

fn network_settings(container: &Container) -> Value {
    let record = &container.record;
    let network = &record.network;
    let running = matches!(container.state.status, Status::Running | Status::Paused);
    let address = network.address.filter(|_| running).map(|address| address.to_string()).unwrap_or_default();
    let gateway = network.gateway.filter(|_| running).map(|address| address.to_string()).unwrap_or_default();
    let prefix = if address.is_empty() { 0 } else { network.prefix };
    let mac = if running { network.mac.as_str() } else { "" };
    let mut ports: Map<String, Value> = Map::new();
    if running {
        for exposed in &record.exposed {
            ports.insert(exposed.clone(), Value::Null);
        }
        for port in &network.published {
            let key = format!("{}/{}", port.container_port, protocol_name(port.protocol));
            let entry = json!({"HostIp": port.address.to_string(), "HostPort": port.host_port.to_string()});
            match ports.get_mut(&key) {
                Some(Value::Array(list)) => list.push(entry),
                _ => drop(ports.insert(key, json!([entry]))),
            }
        }
    }
    let mut networks = Map::new();
    if !network.name.is_empty() && !network.name.starts_with("container:") {
        let endpoint = json!({
            "IPAMConfig": null,
            "Links": null,
            "Aliases": null,
            "MacAddress": mac,
            "NetworkID": network_id(&network.name),
            "EndpointID": if running { network_id(&format!("{} {}", network.name, record.id)) } else { String::new() },
            "Gateway": gateway,
            "IPAddress": address,
            "IPPrefixLen": prefix,
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "DNSNames": null,
        });
        networks.insert(network.name.clone(), endpoint);
    }
    json!({
        "Bridge": "",
        "SandboxID": record.id.as_str(),
        "SandboxKey": if running { format!("/proc/{}/ns/net", container.state.pid) } else { String::new() },
        "Ports": ports,
        "Gateway": gateway,
        "IPAddress": address,
        "IPPrefixLen": prefix,
        "MacAddress": mac,
        "Networks": networks,
    })
}

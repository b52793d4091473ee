//! What a door asks for: a container to create, as typed data.

use crate::base::Bytes;
pub use crate::network::Protocol;
use crate::shim::RestartPolicy;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A container to create; `None` and empty mean "as the image says, else the default".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateRequest {
    /// Image reference or id; empty with `rootfs`.
    pub image: String,
    /// A directory of the host used as the root file system instead of an image (`--rootfs`).
    pub rootfs: Option<PathBuf>,
    /// Command and arguments instead of the image's `CMD`.
    pub command: Vec<String>,
    /// `--entrypoint`; an empty text clears the image's.
    pub entrypoint: Option<String>,
    /// `--name`.
    pub name: Option<String>,
    /// Environment in order: `NAME=value`, resolved by the door (`--env-file` first, then `-e`).
    pub env: Vec<String>,
    /// `-w`.
    pub working_dir: Option<String>,
    /// `-u`.
    pub user: Option<String>,
    /// `--group-add`.
    pub groups: Vec<String>,
    /// `--hostname`.
    pub hostname: Option<String>,
    /// `--domainname`.
    pub domainname: Option<String>,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// `-t`.
    pub tty: bool,
    /// `-i`.
    pub stdin_open: bool,
    /// `--rm`.
    pub auto_remove: bool,
    /// `--restart`.
    pub restart: RestartPolicy,
    /// `--stop-signal`: signal number.
    pub stop_signal: Option<i32>,
    /// `--stop-timeout`: seconds.
    pub stop_timeout: Option<i64>,
    /// `-v`, `--mount`, `--tmpfs`, in order.
    pub mounts: Vec<MountRequest>,
    /// `--network`.
    pub network: NetworkMode,
    /// `-p`.
    pub publish: Vec<PublishRequest>,
    /// `-P`: publish every exposed port.
    pub publish_all: bool,
    /// `--expose` beyond the image's: `80/tcp`.
    pub expose: Vec<String>,
    /// `--dns`.
    pub dns: Vec<IpAddr>,
    /// `--dns-search`.
    pub dns_search: Vec<String>,
    /// `--dns-option`.
    pub dns_options: Vec<String>,
    /// `--add-host`: name and address, or the word `host-gateway`.
    pub extra_hosts: Vec<(String, String)>,
    /// `--link`: container and alias.
    pub links: Vec<(String, String)>,
    /// Limits.
    pub limits: LimitRequest,
    /// Hardening.
    pub hardening: HardeningRequest,
    /// `--sysctl`.
    pub sysctls: Vec<(String, String)>,
    /// `--ulimit`: name, soft, hard.
    pub ulimits: Vec<(String, u64, u64)>,
    /// `--device`: host path, path inside, access.
    pub devices: Vec<(PathBuf, String, String)>,
    /// `--shm-size`.
    pub shm_size: Option<Bytes>,
    /// `--read-only`.
    pub read_only: bool,
    /// `--init`.
    pub init: bool,
    /// `--pid`, `--ipc`, `--uts`, `--cgroupns`: `host`, `private` or `container:NAME`.
    pub pid_mode: String,
    /// See `pid_mode`.
    pub ipc_mode: String,
    /// See `pid_mode`.
    pub uts_mode: String,
    /// See `pid_mode`.
    pub cgroupns_mode: String,
    /// `--userns`: empty, `private` or `host`.
    pub userns_mode: String,
    /// `--health-*`, `--no-healthcheck`.
    pub health: HealthRequest,
    /// `--log-driver` (`json-file`, `local`, `none`); the two files are the same here.
    pub log_driver: Option<String>,
    /// `--log-opt`.
    pub log_options: Vec<(String, String)>,
    /// `--oom-score-adj`.
    pub oom_score_adj: i32,
    /// `--platform`.
    pub platform: Option<String>,
    /// `--require`: what must be enforced, e.g. `landlock>=4`, `userns`, `seccomp`.
    pub require: Vec<String>,
}

/// One mount asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MountRequest {
    /// `-v /host:/path` or `--mount type=bind`.
    Bind {
        /// Host path, absolute.
        source: PathBuf,
        /// Path inside.
        target: String,
        /// `ro`.
        readonly: bool,
        /// Make a missing source directory (`-v` does, `--mount` refuses).
        create: bool,
        /// Without what is mounted below the source.
        recursive: bool,
    },
    /// `-v name:/path`, `-v /path`, `--mount type=volume`.
    Volume {
        /// Name; `None` is anonymous.
        name: Option<String>,
        /// Path inside.
        target: String,
        /// `ro`.
        readonly: bool,
        /// Leave a new volume empty.
        nocopy: bool,
    },
    /// `--tmpfs` or `--mount type=tmpfs`.
    Tmpfs {
        /// Path inside.
        target: String,
        /// Options as text: `size=64m`, `mode=1777`, `noexec`.
        options: Vec<String>,
    },
}

/// Which network a container is on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// The default bridge.
    #[default]
    Default,
    /// No network but loopback.
    None,
    /// The host's.
    Host,
    /// Another container's.
    Container(String),
    /// A network by name.
    Named(String),
}

/// One `-p`, ranges already expanded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublishRequest {
    /// Address on the host; `None` is the setting's default.
    pub address: Option<IpAddr>,
    /// Port on the host; 0 lets us choose.
    pub host_port: u16,
    /// Last port on the host when any free one from `host_port` on will do (`-p 8000-8010:80`); 0 without a range.
    #[serde(default)]
    pub host_last: u16,
    /// Port inside.
    pub container_port: u16,
    /// `tcp` or `udp`.
    pub protocol: Protocol,
}

/// Limits asked for; `None` takes the safe default, `Some(0)` of memory and pids lifts it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitRequest {
    /// `--memory`.
    pub memory: Option<Bytes>,
    /// `--memory-swap`; -1 is unlimited.
    pub memory_swap: Option<i64>,
    /// `--memory-reservation`.
    pub memory_reservation: Option<Bytes>,
    /// `--pids-limit`; -1 or 0 lifts it.
    pub pids: Option<i64>,
    /// `--cpus` in billionths.
    pub nano_cpus: Option<u64>,
    /// `--cpu-shares`.
    pub cpu_shares: Option<u64>,
    /// `--cpu-quota`, microseconds.
    pub cpu_quota: Option<i64>,
    /// `--cpu-period`, microseconds.
    pub cpu_period: Option<u64>,
    /// `--cpuset-cpus`.
    pub cpuset_cpus: Option<String>,
    /// `--cpuset-mems`.
    pub cpuset_mems: Option<String>,
}

/// Hardening asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HardeningRequest {
    /// `--privileged`.
    pub privileged: bool,
    /// `--cap-add`, without the `CAP_` prefix, upper case; `ALL`.
    pub cap_add: Vec<String>,
    /// `--cap-drop`.
    pub cap_drop: Vec<String>,
    /// `--security-opt` as given: `no-new-privileges[=false]`, `seccomp=FILE|unconfined|strict`, `landlock=off`,
    /// `systempaths=unconfined`, `strict`.
    pub security_opt: Vec<String>,
}

/// Health check asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthRequest {
    /// `--no-healthcheck`.
    pub disable: bool,
    /// `--health-cmd`, a shell line.
    pub command: Option<String>,
    /// `--health-interval`.
    pub interval: Option<Duration>,
    /// `--health-timeout`.
    pub timeout: Option<Duration>,
    /// `--health-start-period`.
    pub start_period: Option<Duration>,
    /// `--health-start-interval`.
    pub start_interval: Option<Duration>,
    /// `--health-retries`.
    pub retries: Option<u32>,
}

//! Files as a store: where things lie, atomic records, exclusive names, locks and leases.
//!
//! ```text
//! $ROOT (root: /var/lib/bulkhead, mode 0700)
//!   version                      reserve (room given up on a full disk)
//!   content/blobs/sha256/<hex>   content/ingest/<name>   content/pull.lock (a byte for each layer that is being pulled)
//!   images/references.json       image references -> manifest digest (written under `images/lock`)
//!   snapshots/<key>/{fs,work}, its chain an attribute, or, for layers, snapshots/<key>/{meta.json,fs,split,tar.zst,pushed.json}
//!   snapshots/.places/fs         layer below every container's: places of `hosts`, `hostname`, `resolv.conf`
//!   containers/<id>/{config.json (engine), state.json (shim: the last one), log/}; sticky once started
//!   names/<name>                 symbolic link whose text is the container's id
//!   volumes/<name>/{meta.json,_data}
//!   networks/<name>.json
//!   build/cache/{<key>.json,<key>.why,<digest>.sum,stat-*,url-* (what an address served last)}   cache/seccomp/<digest>.bpf
//!   leases/<name>
//! $RUN (root: /run/bulkhead, mode 0700)
//!   <id>/{shim.sock,lock,state.json (while it runs),hosts,hostname,resolv.conf}   <id>.state.json (the last, on a full disk)
//!   ranges/<base>   ranges/<base>.joined/<id>   locks/<name>
//!   network/ipam/<network>/<address>   network/journal/<owner>.json
//! ```
//! Lock order: name, container, network, image. One writer per file: the engine writes `config.json`, the shim
//! `state.json`.

mod draft;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod lease;
mod lock;
mod names;
mod paths;
mod record;
pub mod reserve;

pub use lease::{Abandoned, Lease, Leases};
pub use lock::{FileLock, RangeLock, is_locked};
pub use names::{NameError, Names};
pub use paths::Paths;
pub use record::{Durability, StoreError, read_json, remove_file, sweep_records, sync_parent, write_bytes, write_json};

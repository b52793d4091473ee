//! The sandbox: from a [`Bundle`] (what one launch needs, all names resolved) to a running process.
//!
//! `plan` is pure: bundle and host features in, [`InitStep`]s out. `launch` performs a plan from a process with one
//! thread; `init` is the code that runs between clone and execve. Nothing else changes a container's namespaces or
//! mounts. The process tree of one container is described in `ARCHITECTURE.md` "One container, four processes".

mod bundle;

pub use bundle::*;

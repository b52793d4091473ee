//! The builder: Dockerfile language, context, graph, cache, solver.
//!
//! `graph` decides (pure: a Dockerfile and images in, nodes out), `solve` performs through [`crate::step::BuildHost`].
//! Context files are read where they lie; nothing is copied before a `COPY` names it.

pub mod cache;
mod changes;
pub mod check;
pub mod context;
pub mod dockerfile;
pub mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod glob;
pub mod graph;
pub mod ignore;
mod provenance;
pub mod sbom;
pub mod solve;

pub use cache::{BuildCache, CacheRecord, CacheUse, Entry, Policy, PruneError, Pruned, held, prune, trim, usage};
pub use changes::{ChangeError, changed_config};
pub use context::{Context, ContextError};
pub use graph::{NamedContext, Settings};
pub use provenance::{PREDICATE, Provenance, provenance};
pub use solve::{BuildError, BuildEvent, BuildRequest, Built, Reason, StepError, StepLabel, build};

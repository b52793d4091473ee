//! The builder: Dockerfile language, context, graph, cache, solver.
//!
//! `graph` decides (pure: a Dockerfile and images in, nodes out), `solve` performs through [`crate::step::BuildHost`].
//! Context files are read where they lie; nothing is copied before a `COPY` names it.

pub mod dockerfile;
pub mod glob;
pub mod graph;
pub mod ignore;

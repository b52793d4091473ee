//! The builder: Dockerfile, context, graph, cache, solver.

pub mod dockerfile;

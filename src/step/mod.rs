//! The build-step trait shared by builtin and guest steps.

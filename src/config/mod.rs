//! Settings: `bulkhead.toml` and defaults.

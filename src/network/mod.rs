//! Networks: the driver trait, drafts and their journal, the builtin drivers, addresses, published ports.
//!
//! Drivers decide: they append typed operations to a draft. Only `apply` changes links and firewall.

//! The one integration binary; modules by noun.

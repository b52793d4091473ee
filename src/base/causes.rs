//! Errors as text.

use std::error::Error;

/// Writes an error with its causes, the nearest first.
pub fn with_causes(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {}", with_causes(cause)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<Layer>>);

    #[test]
    fn causes_follow_their_effects() {
        let layer = |text, cause: Option<Layer>| Layer(text, cause.map(Box::new));
        assert_eq!(with_causes(&layer("open", Some(layer("read", Some(layer("full", None)))))), "open: read: full");
    }
}

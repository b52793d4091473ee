//! OCI and Docker image types, and image references.

//! Volumes: named and anonymous ones, and how mount requests become mounts.

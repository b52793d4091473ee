//! Health checks: the pure state machine starting, healthy, unhealthy.

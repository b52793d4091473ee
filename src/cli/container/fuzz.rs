//! Values of flags, as functions of bytes; see `crate::cli::fuzz`.

use super::{mounts, ports, values};
use crate::base::{Bytes, Timestamp, format_go_duration, parse_go_duration};
use std::path::Path;

/// Values of flags: sizes, durations, times, ports, mounts, limits. What is printed is read again to the same.
pub fn values(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(duration) = parse_go_duration(text) {
        let printed = format_go_duration(duration);
        assert_eq!(parse_go_duration(&printed), Ok(duration), "{printed}");
    }
    if let Ok(Bytes(size)) = text.parse::<Bytes>() {
        assert_eq!(size.to_string().parse(), Ok(Bytes(size)));
    }
    if let Ok(at) = crate::cli::time::parse_time(text)
        && Timestamp::parse_rfc3339(text).is_some()
    {
        assert_eq!(Timestamp::parse_rfc3339(&at.to_string()), Some(at), "{text:?}");
    }
    if let Ok(published) = ports::parse_publish(text) {
        assert!(!published.is_empty());
        for (at, port) in published.iter().enumerate() {
            assert_eq!(usize::from(port.container_port), usize::from(published[0].container_port) + at);
            assert!(port.container_port > 0 && (port.host_last == 0 || port.host_last >= port.host_port));
        }
    }
    let resolve = |path: &str| Path::new("/work").join(path);
    let _ = mounts::parse_volume(text, &resolve);
    let _ = mounts::parse_mount(text, &resolve);
    if let Ok((_, soft, hard)) = values::parse_ulimit(text) {
        assert!(soft <= hard, "{text:?}");
    }
    let _ = (values::parse_device(text), values::parse_add_host(text), values::parse_network(text));
    let _ = (values::parse_signal(text), values::parse_label(text), values::parse_pair(text));
}

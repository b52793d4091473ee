//! Points in time as people write and read them.

use crate::base::{Timestamp, human_duration, parse_go_duration};
use jiff::Zoned;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Prints a time as Go prints one: `2026-11-21 11:00:00 +0100 CET`.
pub(super) fn long_time(at: Timestamp) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(at.0)) {
        Ok(time) if at != Timestamp::NEVER => {
            Zoned::new(time, TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
        }
        _ => "0001-01-01 00:00:00 +0000 UTC".to_owned(),
    }
}

/// Prints how long ago a time was: `3 minutes ago`.
pub(super) fn ago(at: Timestamp) -> String {
    format!("{} ago", human_duration(at.age()))
}

/// Prints a time with nine digits behind the second, as `logs -t` does.
pub(super) fn nanosecond_time(at: Timestamp) -> String {
    let text = at.to_string();
    match text.strip_suffix('Z').map(|rest| rest.split_once('.').unwrap_or((rest, ""))) {
        Some((whole, fraction)) => format!("{whole}.{fraction:0<9}Z"),
        None => text,
    }
}

/// Reads a point in time: RFC 3339, a date or time without a zone (local), seconds since 1970, or how long ago (`42m`).
pub(super) fn parse_time(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = parse_go_duration(text) {
        return Ok(Timestamp(Timestamp::now().0.saturating_sub(i64::try_from(ago.as_nanos()).unwrap_or(i64::MAX))));
    }
    if let Some(at) = Timestamp::parse_rfc3339(text) {
        return Ok(at);
    }
    let fail = || format!("{text:?} is not a time such as 2026-01-02T13:23:37Z, 2026-01-02, 1767360217 or 42m");
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if let Ok(seconds) = seconds.parse::<i64>()
        && fraction.len() <= 9
        && fraction.bytes().all(|b| b.is_ascii_digit())
    {
        let nanos: i64 = format!("{fraction:0<9}").parse().map_err(|_| fail())?;
        return seconds.checked_mul(1_000_000_000).and_then(|n| n.checked_add(nanos)).map(Timestamp).ok_or_else(fail);
    }
    let local = text.parse::<DateTime>().ok().and_then(|time| time.to_zoned(TimeZone::system()).ok());
    let nanos = local.ok_or_else(fail)?.timestamp().as_nanosecond();
    i64::try_from(nanos).map(Timestamp).map_err(|_| fail())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_all_forms() {
        assert_eq!(parse_time("1767360217.5").unwrap().to_string(), "2026-01-02T13:23:37.5Z");
        assert_eq!(parse_time("2026-01-02T13:23:37Z").unwrap().to_string(), "2026-01-02T13:23:37Z");
        assert!(parse_time("42m").unwrap() < Timestamp::now());
        assert!(parse_time("2026-01-02").is_ok() && parse_time("2026-01-02T10:11").is_ok());
        for bad in ["", "yesterday", "1.x", "99999999999999999999"] {
            assert!(parse_time(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn log_times_have_nine_digits() {
        let at = Timestamp::parse_rfc3339("2026-11-21T10:00:00.5Z").unwrap();
        assert_eq!(nanosecond_time(at), "2026-11-21T10:00:00.500000000Z");
        assert_eq!(nanosecond_time(Timestamp(0)), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(long_time(Timestamp::NEVER), "0001-01-01 00:00:00 +0000 UTC");
    }
}

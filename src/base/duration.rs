//! Durations in Go's notation (`1m30s`) and in words (`3 minutes`).

use std::time::Duration;

/// A text that is no duration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a duration such as 500ms, 30s or 1m30s")]
pub struct DurationError(String);

/// Reads Go's duration notation: decimal numbers each with a unit of `ns us µs ms s m h`; a bare `0` is allowed.
///
/// # Errors
/// For anything else, negative durations included.
pub fn parse_go_duration(text: &str) -> Result<Duration, DurationError> {
    let fail = || DurationError(text.to_owned());
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(fail());
    }
    let mut nanos = 0u128;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fail)?;
        let (whole, fraction) = rest[..end].split_once('.').unwrap_or((&rest[..end], ""));
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit: u128 = match &rest[..end] {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(fail()),
        };
        rest = &rest[end..];
        nanos = decimal(whole, fraction, unit).and_then(|part| nanos.checked_add(part)).ok_or_else(fail)?;
    }
    // As many as Go's type holds: 292 years.
    let nanos = u64::try_from(nanos).ok().filter(|nanos| *nanos <= i64::MAX as u64);
    nanos.map(Duration::from_nanos).ok_or_else(fail)
}

/// Multiplies `whole.fraction` by a unit of at most 3.6e12, rounded down, without going through floating point.
fn decimal(whole: &str, fraction: &str, unit: u128) -> Option<u128> {
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()?.into() };
    // What lies behind 18 digits is less than a nanosecond.
    let digits = &fraction[..fraction.len().min(18)];
    let part: u128 = if digits.is_empty() { 0 } else { digits.parse::<u64>().ok()?.into() };
    Some(whole * unit + part * unit / 10u128.pow(digits.len() as u32))
}

/// Prints a duration as Go does: `1m30s`, `1.5s`, `200ms`, `0s`.
pub fn format_go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let fraction = |value: u128, unit: u128, digits: usize| {
        let text = format!("{}.{:0digits$}", value / unit, value % unit);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(nanos, 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(nanos, 1_000_000, 6)),
        _ => {
            let (hours, minutes) = (nanos / 3_600_000_000_000, nanos / 60_000_000_000 % 60);
            let seconds = fraction(nanos % 60_000_000_000, 1_000_000_000, 9);
            match (hours, minutes) {
                (0, 0) => format!("{seconds}s"),
                (0, _) => format!("{minutes}m{seconds}s"),
                _ => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// Prints a rough age in words (`Less than a second`, `3 minutes`, `About an hour`), as docker's tables do.
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, (duration.as_secs_f64() / 3600.0).round() as u64);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read() {
        for (text, millis) in [("0", 0), ("1m30s", 90_000), ("1.5s", 1_500), ("250ms", 250), ("2h", 7_200_000)] {
            assert_eq!(parse_go_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in
            ["", "5", "s", "-1s", "1x", "1s2", ".s", "1..5s", "1.5.2s", "292y", "2562048h", "99999999999999999999ns"]
        {
            assert!(parse_go_duration(bad).is_err(), "{bad:?}");
        }
    }

    /// 17.021999999 is no number of floating point, and the next smaller one was taken.
    #[test]
    fn a_fraction_is_read_to_the_last_nanosecond() {
        for nanos in [17_021_999_999, 1, 999_999_999, i64::MAX as u64, i64::MAX as u64 - 1, 4_503_599_627_370_497] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(parse_go_duration(&format_go_duration(duration)), Ok(duration), "{nanos}");
        }
        assert_eq!(parse_go_duration(".5s"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_go_duration("1.s"), Ok(Duration::from_secs(1)));
        assert_eq!(parse_go_duration("0.00000000099999999999999999999s"), Ok(Duration::ZERO));
    }

    #[test]
    fn go_durations_are_printed() {
        for (millis, text) in [(0, "0s"), (90_000, "1m30s"), (1_500, "1.5s"), (250, "250ms"), (7_200_000, "2h0m0s")] {
            assert_eq!(format_go_duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn ages_are_put_in_words() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (5, "5 seconds"),
            (61, "About a minute"),
            (180, "3 minutes"),
            (3600, "About an hour"),
            (172_900, "2 days"),
        ] {
            assert_eq!(human_duration(Duration::from_secs(seconds)), text);
        }
    }
}

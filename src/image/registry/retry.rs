//! When to ask again, and from where to go on.

use std::time::Duration;

/// Failures in a row after which nobody asks again.
const TRIES: u32 = 6;
/// First pause.
const FIRST: Duration = Duration::from_millis(250);
/// Longest pause of our own.
const LONGEST: Duration = Duration::from_secs(8);
/// Longest pause a registry may ask for; beyond it the user is told instead.
const PATIENCE: Duration = Duration::from_secs(120);

/// Returns how long to rest after a number of failures in a row, counted from 1; `None` to give up.
///
/// Pauses double, and `chance` (any number) lengthens each by up to a quarter, so that many clients do not return at once.
/// `wanted` is what the registry asked for (*RFC 9110 "Retry-After"*).
pub(super) fn pause(failures: u32, wanted: Option<Duration>, chance: u16) -> Option<Duration> {
    if failures >= TRIES || wanted.is_some_and(|wanted| wanted > PATIENCE) {
        return None;
    }
    let base = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST);
    let own = base + base / 4 * u32::from(chance) / u32::from(u16::MAX);
    Some(wanted.map_or(own, |wanted| wanted.max(own)))
}

/// Reads a `Retry-After` field: seconds, or a date after `now` (seconds since 1970).
pub(super) fn retry_after(text: &str, now: i64) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_second();
    Some(Duration::from_secs(u64::try_from(date.saturating_sub(now)).unwrap_or(0)))
}

/// How an answer to a request for the rest of a blob goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// With the byte that was asked for.
    Here,
    /// From the beginning: this many bytes are known already.
    Skip(u64),
}

/// Decides from status and `Content-Range` (*RFC 9110 "Range Requests"*) how the answer to `Range: bytes=<at>-` goes on.
///
/// # Errors
/// What is wrong with the answer.
pub(super) fn rest_of(at: u64, size: u64, status: u16, content_range: Option<&str>) -> Result<Rest, &'static str> {
    match (status, content_range) {
        (200, _) if at == 0 => Ok(Rest::Here),
        // A server without ranges gives all of it once more.
        (200, _) => Ok(Rest::Skip(at)),
        (206, Some(range)) => {
            let (first, of) = content_range_of(range).ok_or("the range of the answer is malformed")?;
            match first == at && of.is_none_or(|of| of == size) {
                true => Ok(Rest::Here),
                false => Err("the answer is another range than was asked for"),
            }
        }
        (206, None) => Err("the answer does not say which range it is"),
        _ => Err("the answer is no blob"),
    }
}

/// Reads `bytes <first>-<last>/<length or *>`: the first byte and the whole length.
fn content_range_of(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, length) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    // `parse` would take a sign.
    let number = |text: &str| text.parse().ok().filter(|_: &u64| text.bytes().all(|b| b.is_ascii_digit()));
    let (first, last) = (number(first)?, number(last)?);
    let length = match length {
        "*" => None,
        digits => Some(number(digits)?),
    };
    (first <= last && length.is_none_or(|length| last < length)).then_some((first, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let pauses: Vec<_> =
            (1..TRIES).filter_map(|failures| pause(failures, None, 0)).map(|p| p.as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000]);
        assert_eq!(pause(TRIES, None, 0), None);
        assert!(pause(1, None, u16::MAX).unwrap() <= FIRST * 5 / 4);
        let seconds = Duration::from_secs;
        assert_eq!(pause(1, Some(seconds(7)), 0), Some(seconds(7)));
        assert_eq!(pause(4, Some(seconds(1)), 0), Some(seconds(2)));
        assert_eq!(pause(1, Some(seconds(121)), 0), None);
    }

    #[test]
    fn the_registrys_wish_is_read() {
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(retry_after(" 12 ", 0), seconds(12));
        assert_eq!(retry_after("99999999999999999999", 0), seconds(u64::MAX));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_770), seconds(7));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", 884_111_770), seconds(0));
        for bad in ["", "-1", "soon", "1.5"] {
            assert_eq!(retry_after(bad, 0), None, "{bad:?}");
        }
    }

    #[test]
    fn the_rest_of_a_blob_goes_on_where_it_should() {
        assert_eq!(rest_of(0, 9, 200, None), Ok(Rest::Here));
        assert_eq!(rest_of(4, 9, 200, None), Ok(Rest::Skip(4)));
        assert_eq!(rest_of(4, 9, 206, Some("bytes 4-8/9")), Ok(Rest::Here));
        assert_eq!(rest_of(4, 9, 206, Some("bytes 4-8/*")), Ok(Rest::Here));
        for (status, range) in [
            (206, None),
            (206, Some("bytes 3-8/9")),
            (206, Some("bytes 4-8/10")),
            (206, Some("bytes 4-9/9")),
            (206, Some("bytes 8-4/9")),
            (206, Some("lines 4-8/9")),
            (206, Some("bytes +4-8/9")),
            (206, Some("bytes 4 - 8/9")),
            (204, None),
            (416, None),
        ] {
            assert!(rest_of(4, 9, status, range).is_err(), "{status} {range:?}");
        }
    }
}

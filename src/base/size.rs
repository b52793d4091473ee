//! Byte sizes as Docker's command line reads and prints them.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Serialize, Deserialize)]
pub struct Bytes(pub u64);

/// A text that is no size.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a size such as 512, 64k, 512m or 2g")]
pub struct SizeError(String);

impl FromStr for Bytes {
    type Err = SizeError;

    /// Reads `64m`, `1.5g`, `512k`, `100b`, `64MiB`; units are powers of 1024 as in `docker run --memory`.
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let fail = || SizeError(text.to_owned());
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            "p" | "pb" | "pib" => 50,
            _ => return Err(fail()),
        };
        if !number.contains('.') {
            let whole: u64 = number.parse().map_err(|_| fail())?;
            return whole.checked_mul(1 << shift).map(Self).ok_or_else(fail);
        }
        let value: f64 = number.parse().map_err(|_| fail())?;
        let bytes = value * (1u64 << shift) as f64;
        if bytes.is_finite() && (0.0..9.2e18).contains(&bytes) { Ok(Self(bytes as u64)) } else { Err(fail()) }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&human_size(self.0))
    }
}

/// Prints a size in decimal units with three significant digits (`13.3kB`, `546MB`), as `docker images` does.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    // Three significant digits without trailing zeros, like Go's %.3g for values below 1000.
    let decimals = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("64k", 65536), ("1.5g", 1_610_612_736), ("4MiB", 4 << 20), ("10b", 10)]
        {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for bad in ["", "x", "-1", "1x", "99999999999999999999g", "1..2g", ".g"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_are_printed_with_three_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (13_300, "13.3kB"),
            (546_000_000, "546MB"),
            (1_240_000_000, "1.24GB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }
}

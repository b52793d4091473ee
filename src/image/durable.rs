//! Which layers survive a power cut.
//!
//! A layer's files are not synced when it is put in place, so that a build step pays no flush. Its record says in which boot
//! and when that was. Before an image is recorded, the layers' file system is synced once (*syncfs(2)*), and the index says
//! up to when that reached. A layer of an earlier boot counts only when it is older; any other is as if it were not there,
//! and is made or taken in again.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Text that is another one after each boot (*random(4)*).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A point in the time of one boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Moment {
    /// The boot.
    boot: String,
    /// Nanoseconds on its monotonic clock.
    at: u64,
}

impl Moment {
    /// Returns the present moment.
    pub(super) fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let at = seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0));
        Self { boot: boot().to_owned(), at }
    }

    /// Tells whether the machine has run without a break since.
    pub(super) fn is_of_this_boot(&self) -> bool {
        self.boot == boot()
    }

    /// Returns the boot it belongs to.
    pub(super) fn boot(&self) -> &str {
        &self.boot
    }
}

/// Returns the id of this boot. Where the kernel does not tell, all boots are one, and what was not synced is trusted.
fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        std::fs::read_to_string(BOOT_ID).map_or_else(|_| "unknown".to_owned(), |id| id.trim().to_owned())
    })
}

/// Up to which moment of each boot everything was synced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Synced(BTreeMap<String, u64>);

impl Synced {
    /// Tells whether what was in place at a moment has been synced since.
    pub(super) fn covers(&self, moment: &Moment) -> bool {
        self.0.get(&moment.boot).is_some_and(|until| moment.at <= *until)
    }

    /// Notes that everything up to a moment is synced.
    pub(super) fn note(&mut self, until: &Moment) {
        let known = self.0.entry(until.boot.clone()).or_default();
        *known = until.at.max(*known);
    }

    /// Forgets the boots nobody asks for any more; returns whether there were any.
    pub(super) fn keep(&mut self, named: impl Fn(&str) -> bool) -> bool {
        let before = self.0.len();
        self.0.retain(|of, _| of == boot() || named(of));
        self.0.len() != before
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(boot: &str, at: u64) -> Moment {
        Moment { boot: boot.to_owned(), at }
    }

    #[test]
    fn a_sync_covers_what_was_there_before_it_in_the_same_boot() {
        let mut synced = Synced::default();
        synced.note(&moment("one", 20));
        synced.note(&moment("one", 10));
        synced.note(&moment("two", 5));
        for (boot, at, covered) in
            [("one", 20, true), ("one", 21, false), ("two", 5, true), ("two", 20, false), ("three", 0, false)]
        {
            assert_eq!(synced.covers(&moment(boot, at)), covered, "{boot} {at}");
        }
        assert!(synced.keep(|boot| boot == "two"));
        assert!(!synced.covers(&moment("one", 1)) && synced.covers(&moment("two", 1)));
        assert!(!synced.keep(|boot| boot == "two"));
    }

    #[test]
    fn moments_of_this_boot_follow_each_other() {
        let (first, second) = (Moment::now(), Moment::now());
        assert!(first.at <= second.at && first.is_of_this_boot() && first.boot.len() == 36, "{first:?}");
        assert!(!moment("another", 0).is_of_this_boot());
    }
}

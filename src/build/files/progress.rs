//! How far the reading or copying of files is.

use crate::step::Moved;
use std::sync::atomic::{AtomicU64, Ordering};

/// Fewer bytes than this are written before anybody could read how many there are.
const QUIET: u64 = 8 << 20;
/// How often it is told at most.
const PARTS: u64 = 64;

/// Bytes that several threads have read or written, of all there will be.
pub struct Progress<'p> {
    tell: Option<Moved<'p>>,
    moved: AtomicU64,
    of: u64,
    /// Whether the end is told too.
    ends: bool,
}

impl<'p> Progress<'p> {
    /// Starts before the first of so many bytes.
    pub fn new(of: u64, tell: Moved<'p>) -> Self {
        Self { tell: Some(tell).filter(|_| of >= QUIET), moved: AtomicU64::new(0), of, ends: true }
    }

    /// As [`Self::new`], for bytes that are only read to see whether anything is to be done: nobody takes their end for its end.
    pub fn reading(of: u64, tell: Moved<'p>) -> Self {
        Self { ends: false, ..Self::new(of, tell) }
    }

    /// Tells nobody.
    pub fn untold() -> Self {
        Self { tell: None, moved: AtomicU64::new(0), of: 0, ends: false }
    }

    /// Adds bytes that are done now.
    pub fn add(&self, bytes: u64) {
        let Some(tell) = self.tell else { return };
        let before = self.moved.fetch_add(bytes, Ordering::Relaxed);
        let (now, part) = (before + bytes, self.of / PARTS);
        if (now == self.of && self.ends) || (now < self.of && before / part != now / part) {
            tell(now, Some(self.of));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn large_transfers_are_told_now_and_then_and_at_their_end() {
        let told = Mutex::new(Vec::new());
        let tell = |bytes, of| told.lock().unwrap().push((bytes, of));
        let small = Progress::new(QUIET - 1, &tell);
        small.add(QUIET - 1);
        assert!(told.lock().unwrap().is_empty());
        let of = QUIET + 7;
        let large = Progress::new(of, &tell);
        (0..of / 1000).for_each(|_| large.add(1000));
        large.add(of % 1000);
        let reading = Progress::reading(of, &tell);
        let before = told.lock().unwrap().split_off(0);
        reading.add(of / 2);
        reading.add(of - of / 2);
        assert_eq!(told.into_inner().unwrap(), [(of / 2, Some(of))]);
        let told = before;
        assert!((PARTS as usize..=PARTS as usize + 1).contains(&told.len()), "{}", told.len());
        assert!(told.is_sorted() && told.last() == Some(&(of, Some(of))));
    }
}

//! Inode numbers for what is made here. The server gives them in ranges, durably, to this session alone; each is used at most
//! once (R3.6). They are asked for ahead of need, so that a burst does not wait for the server.

use crate::base::Ino;
use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

/// Least that is asked for at once, and kept in stock.
const STOCK_MIN: u64 = 4096;

/// Most that is asked for at once: of a mount that makes 100,000 files in a second the need of some seconds.
const STOCK_MAX: u64 = 1 << 18;

/// Round trips that the stock should last for.
const ROUND_TRIPS: u32 = 4;

/// See the module. A value: no I/O, no clock.
#[derive(Debug, Default)]
pub struct Numbers {
    ranges: VecDeque<Range<u64>>,
    left: u64,
    /// A question is on its way.
    asked: bool,
    /// Of this question: when it was asked, and how many were taken since.
    asked_at: Duration,
    taken: u64,
    /// What the stock should be.
    want: u64,
}

impl Numbers {
    /// The next number. `None`: the stock is empty.
    pub fn take(&mut self) -> Option<Ino> {
        let range = self.ranges.front_mut()?;
        let number = range.start;
        range.start += 1;
        if range.is_empty() {
            self.ranges.pop_front();
        }
        self.left -= 1;
        self.taken += 1;
        Some(Ino(number))
    }

    /// The number that was taken last was not used after all.
    pub fn put_back(&mut self, ino: Ino) {
        self.ranges.push_front(ino.0..ino.0 + 1);
        self.left += 1;
        self.taken = self.taken.saturating_sub(1);
    }

    /// Whether it is time to ask for more ([`Self::wanted`]).
    #[must_use]
    pub fn are_low(&self) -> bool {
        !self.asked && self.left <= self.want.max(STOCK_MIN) / 2
    }

    /// How many to ask for at `now`; `None`: none, or a question is on its way. The question counts as asked: its end is told by
    /// [`Self::got`] or [`Self::refused`].
    pub fn wanted(&mut self, now: Duration) -> Option<u32> {
        if !self.are_low() {
            return None;
        }
        let want = self.want.max(STOCK_MIN);
        self.asked = true;
        self.asked_at = now;
        self.taken = 0;
        u32::try_from(want).ok()
    }

    /// The answer: `count` numbers from `first` on.
    pub fn got(&mut self, now: Duration, first: Ino, count: u32) {
        if self.asked && count > 0 {
            // What was used while the question was on its way is what one round trip takes.
            let per_trip = self.taken.max(1);
            let want = per_trip.saturating_mul(u64::from(ROUND_TRIPS) * 2).clamp(STOCK_MIN, STOCK_MAX);
            // Grows at once; a quiet time makes it smaller by and by.
            self.want = if now > self.asked_at { want.max(self.want / 2) } else { self.want };
        }
        self.asked = false;
        if count > 0 && first.0 > 0 {
            self.ranges.push_back(first.0..first.0.saturating_add(count.into()));
            self.left += u64::from(count);
        }
    }

    /// There was no answer.
    pub fn refused(&mut self) {
        self.asked = false;
    }

    /// The session that owned them is gone.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many are in stock.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }
}

#[cfg(test)]
mod tests {
    use super::{Numbers, STOCK_MIN};
    use crate::base::Ino;
    use std::time::Duration;

    const NOW: Duration = Duration::from_secs(1);
    const LATER: Duration = Duration::from_secs(2);

    #[test]
    fn every_number_is_given_once_and_the_next_range_is_asked_for_in_time() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.take(), None);
        assert_eq!(numbers.wanted(NOW), Some(4096));
        assert_eq!(numbers.wanted(NOW), None, "one question at a time");
        numbers.got(LATER, Ino(100), 4096);
        assert_eq!(numbers.wanted(LATER), None);
        let taken: Vec<_> = (0..2100).map(|_| numbers.take().unwrap().0).collect();
        assert_eq!(taken, (100..2200).collect::<Vec<_>>());
        assert!(numbers.wanted(LATER).is_some());
        assert_eq!(numbers.left(), 1996);
        numbers.refused();
        assert!(numbers.wanted(LATER).is_some(), "a question that failed is asked again");
        numbers.got(LATER, Ino(5000), 10);
        assert_eq!((0..2006).filter_map(|_| numbers.take()).last(), Some(Ino(5009)));
        assert_eq!(numbers.take(), None);
    }

    #[test]
    fn a_number_that_was_not_used_comes_next() {
        let mut numbers = Numbers::default();
        numbers.got(NOW, Ino(10), 2);
        let first = numbers.take().unwrap();
        numbers.put_back(first);
        assert_eq!(numbers.left(), 2);
        assert_eq!([numbers.take(), numbers.take(), numbers.take()], [Some(Ino(10)), Some(Ino(11)), None]);
    }

    #[test]
    fn the_stock_grows_with_the_need_and_shrinks_again() {
        let mut numbers = Numbers::default();
        let mut want = 0;
        for round in 1..6_u32 {
            want = numbers.wanted(NOW).unwrap();
            numbers.got(LATER, Ino(u64::from(round) << 32), 1 << 20);
            numbers.asked = true;
            numbers.taken = 10_000;
            numbers.got(LATER, Ino(1 << 50), 1);
            numbers.ranges.clear();
            numbers.left = 0;
        }
        assert_eq!(want, 80_000);
        for _ in 0..20 {
            want = numbers.wanted(NOW).unwrap();
            numbers.got(LATER, Ino(1 << 51), 1);
        }
        assert_eq!(u64::from(want), STOCK_MIN);
    }
}

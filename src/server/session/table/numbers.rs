//! Inode numbers for what a session will make, given out in ranges that its record names.

use super::super::lease_desk::Numbers;
use super::super::record::About;
use super::super::state::Session;
use super::Sessions;
use crate::base::{Errno, Ino};

/// Fewest and most inode numbers given out at a time: a session's record names the ranges.
const NUMBERS_MIN: u32 = 1024;
const NUMBERS_MAX: u32 = 1 << 16;

/// Ranges of numbers that are remembered of a session; older ones are used up.
const RANGES_MAX: usize = 1024;

/// Gets the first number and how many, or why there are none.
pub(crate) type NumbersReply = Box<dyn FnOnce(Result<(Ino, u32), Errno>) + Send>;

impl Sessions {
    /// Gives inode numbers to a session; `done` gets the first and how many, when that is durable.
    pub(crate) fn take_numbers(&self, session: &Session, count: u32, done: NumbersReply) {
        let count = count.clamp(NUMBERS_MIN, NUMBERS_MAX);
        let taken = self.volume.take_numbers(count).and_then(|first| {
            let mut numbers = session.numbers();
            let (from, end) = (first.0, first.0 + u64::from(count));
            match numbers.last_mut() {
                Some((_, last)) if *last == from => *last = end,
                _ => numbers.push((from, end)),
            }
            let old = numbers.len().saturating_sub(RANGES_MAX);
            numbers.drain(..old);
            let flat = numbers.iter().flat_map(|&(from, end)| [from, end]).collect();
            let about = About { numbers: flat, ..session.about.clone() };
            self.volume.put_session(session.id, &about.to_bytes())?;
            self.leases.put_numbers(session.id, numbers.clone());
            Ok(first)
        });
        match taken {
            Err(errno) => done(Err(errno)),
            Ok(first) => self.volume.sync(Box::new(move |result| done(result.map(|()| (first, count))))),
        }
    }
}

/// The ranges of numbers in a record.
pub(in super::super) fn ranges(about: &About) -> Vec<Numbers> {
    about.numbers.as_chunks::<2>().0.iter().map(|&[from, end]| (from, end)).collect()
}

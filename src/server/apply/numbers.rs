//! Inode numbers that are given out before anything is made with them.

use super::Volume;
use crate::base::{Errno, Ino};
use crate::server::meta::counters;

impl Volume {
    /// Takes `count` inode numbers; returns the first. They never come back, whatever becomes of them. That they are taken
    /// is durable after the next [`Volume::sync`], and they must not be used before.
    ///
    /// # Errors
    /// The store cannot be read or written, or has no numbers left.
    pub fn take_numbers(&self, count: u32) -> Result<Ino, Errno> {
        let _state = self.inner.write_state();
        let mut txn = self.inner.store.begin();
        let first = counters::take_inos(&mut txn, u64::from(count))?;
        self.inner.commit(txn)?;
        Ok(first)
    }
}

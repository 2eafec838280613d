//! Gives back the room of dead chunks: drives the store's collector from a thread, slowly.

use super::Inner;
use crate::server::store::gc;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes copied in one round; with the pause after it this bounds what collecting takes from the disk.
const BYTES_PER_ROUND: u64 = 16 << 20;

/// Pause between two rounds when there is more to copy.
const PAUSE_BUSY: Duration = Duration::from_millis(500);

/// The thread's sleep, which a stop ends.
#[derive(Default)]
pub(super) struct Collector {
    stop: Mutex<bool>,
    wake: Condvar,
}

impl Collector {
    pub(super) fn stop(&self) {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_one();
    }

    /// Sleeps; says whether to end.
    fn sleep(&self, pause: Duration) -> bool {
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        let slept = self.wake.wait_timeout_while(stop, pause, |stop| !*stop);
        *slept.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Inner {
    pub(super) fn collect_loop(&self, pause: Duration) {
        let start = Instant::now();
        let mut collector = gc::Collector::new(self.options.collect_grace);
        let mut next = pause;
        while !self.collector.sleep(next) {
            next = pause;
            if self.latch.get().is_some() {
                continue;
            }
            let round = collector.round(&self.store, start.elapsed(), BYTES_PER_ROUND, &|work| {
                let _writer = self.write_state();
                work()
            });
            match round {
                Ok(done) => {
                    if done.more {
                        next = PAUSE_BUSY.min(pause);
                    }
                    if done != gc::Done::default() {
                        tracing::debug!(?done, "collected");
                    }
                }
                // Nothing was lost by it. A broken disk shows again at the next write, which latches.
                Err(fault) => tracing::warn!(%fault, "cannot collect dead chunks"),
            }
        }
    }
}

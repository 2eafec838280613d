//! How much goes out at a time, how long the log waits for more, and how much it holds: from what was measured.

use std::time::Duration;

/// See the module. Rates are mutations per second, 0 while unknown.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// How fast the server works when it is kept busy.
    drain: u64,
    /// How fast mutations come in.
    arrival: u64,
    /// Round trip of batches, smoothed.
    rtt: Duration,
    last_answer: Duration,
}

impl Pace {
    /// A batch of `operations` goes out; its first came in at `opened`.
    pub(super) fn sent(&mut self, operations: u64, opened: Duration, now: Duration) {
        if operations >= ARRIVALS_TELLING {
            smooth(&mut self.arrival, rate(operations, now.saturating_sub(opened)));
        }
    }

    /// A batch was answered. `busy`: another was on its way meanwhile, so the server did not wait for this side.
    pub(super) fn answered(&mut self, operations: u64, sent: Duration, now: Duration, busy: bool) {
        let rtt = now.saturating_sub(sent);
        self.rtt = if self.rtt.is_zero() { rtt } else { (self.rtt * 7 + rtt) / 8 };
        // Of a small batch that went alone the time is the way, not the work.
        if busy || operations >= OPERATIONS_TELLING {
            let since = sent.max(self.last_answer);
            smooth(&mut self.drain, rate(operations, now.saturating_sub(since)));
        }
        self.last_answer = now;
    }

    /// Mutations that are worth a frame.
    pub(super) fn batch_operations(&self) -> u64 {
        match self.drain {
            0 => BATCH_OPERATIONS_UNKNOWN,
            drain => (drain / BATCHES_PER_SECOND).clamp(BATCH_OPERATIONS_MIN, BATCH_OPERATIONS_MAX),
        }
    }

    /// How long the oldest mutation waits for company while traffic goes on: long enough for a frame that is worth
    /// its way, at the rate they come in.
    pub(super) fn age_max(&self, limit: Duration) -> Duration {
        let age = match self.arrival {
            0 => AGE_UNKNOWN,
            arrival => Duration::from_nanos(2 * BATCH_OPERATIONS_MIN * NANOS / arrival),
        };
        age.clamp(AGE_MIN, limit.max(AGE_MIN))
    }

    /// Frames in flight that keep the server busy: what it works off in a round trip, and one more.
    pub(super) fn window(&self) -> usize {
        if self.drain == 0 {
            return WINDOW_UNKNOWN;
        }
        let rtt_nanos = u64::try_from(self.rtt.as_nanos()).unwrap_or(u64::MAX);
        let on_the_way = rtt_nanos.saturating_mul(self.drain) / NANOS;
        let frames = 1 + on_the_way.div_ceil(self.batch_operations());
        usize::try_from(frames).unwrap_or(WINDOW_MAX).clamp(1, WINDOW_MAX)
    }

    /// Mutations that the server works off in the time a recall may take.
    pub(super) fn operations_max(&self, limit: usize) -> usize {
        let worked_off = usize::try_from(self.drain / HELD_PER_SECOND).unwrap_or(usize::MAX);
        worked_off.max(OPERATIONS_MIN).min(limit)
    }

    pub(super) fn rtt(&self) -> Duration {
        self.rtt
    }

    pub(super) fn drain(&self) -> u64 {
        self.drain
    }
}

fn rate(operations: u64, time: Duration) -> u64 {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1000);
    operations.saturating_mul(NANOS) / nanos
}

fn smooth(value: &mut u64, sample: u64) {
    *value = if *value == 0 { sample } else { (*value * 7 + sample) / 8 };
}

const NANOS: u64 = 1_000_000_000;

/// Fewer say nothing of the server's rate.
const OPERATIONS_TELLING: u64 = 32;
/// Fewer say nothing of the rate at which mutations come.
const ARRIVALS_TELLING: u64 = 4;

/// A frame for each 5 ms of work.
const BATCHES_PER_SECOND: u64 = 200;
/// Below this a frame's own cost shows.
const BATCH_OPERATIONS_MIN: u64 = 64;
/// Above this frames cost nothing any more, and what waits behind one waits long.
pub(super) const BATCH_OPERATIONS_MAX: u64 = 1024;
const BATCH_OPERATIONS_UNKNOWN: u64 = 256;

const AGE_MIN: Duration = Duration::from_millis(1);
const AGE_UNKNOWN: Duration = Duration::from_millis(5);

pub(super) const WINDOW_MAX: usize = 8;
const WINDOW_UNKNOWN: usize = 2;

/// The log holds 100 ms of work.
const HELD_PER_SECOND: u64 = 10;
/// But always this many.
const OPERATIONS_MIN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::Pace;
    use std::time::Duration;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A server that works off `per_ms` mutations in a millisecond, `way` away.
    fn driven(per_ms: u64, way: Duration) -> Pace {
        let mut pace = Pace::default();
        let mut now = ms(1);
        for _ in 0..100 {
            let operations = pace.batch_operations();
            let sent = now.saturating_sub(way);
            now += Duration::from_nanos(operations * 1_000_000 / per_ms);
            pace.sent(operations, sent.saturating_sub(ms(4)), sent);
            pace.answered(operations, sent, now, true);
        }
        pace
    }

    #[test]
    fn nothing_is_known_at_first() {
        let pace = Pace::default();
        assert_eq!((pace.batch_operations(), pace.window()), (256, 2));
        assert_eq!((pace.age_max(ms(20)), pace.operations_max(1 << 16)), (ms(5), 1024));
    }

    #[test]
    fn a_quick_server_gets_large_batches_and_lets_the_log_grow() {
        let pace = driven(100, ms(1));
        assert!((400..=600).contains(&pace.batch_operations()), "{pace:?}");
        assert!((8_000..=12_000).contains(&pace.operations_max(1 << 16)), "{pace:?}");
        assert_eq!(pace.operations_max(5000), 5000);
    }

    #[test]
    fn a_slow_server_gets_the_least() {
        let pace = driven(1, ms(1));
        assert_eq!((pace.batch_operations(), pace.operations_max(1 << 16)), (64, 1024));
    }

    #[test]
    fn a_long_way_takes_more_frames_at_a_time() {
        let (near, far) = (driven(100, ms(1)), driven(100, ms(30)));
        assert!(near.window() < far.window(), "{near:?} {far:?}");
        assert!(far.window() >= 7);
    }

    #[test]
    fn the_age_gathers_two_small_batches_and_has_a_bound() {
        let mut pace = Pace::default();
        pace.sent(100, ms(0), ms(4));
        assert!((ms(4)..ms(6)).contains(&pace.age_max(ms(20))), "{pace:?}");
        let mut slow = Pace::default();
        slow.sent(100, ms(0), ms(1000));
        assert_eq!(slow.age_max(ms(20)), ms(20));
    }
}

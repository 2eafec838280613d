//! The clock that leases run by, which also counts while the machine sleeps, and the server's clock as told by it.

use crate::base::Time;
use nix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Time since this machine started, its sleep included.
#[must_use]
pub fn boottime() -> Duration {
    // The clock exists on every kernel that has FUSE over io_uring; without it nothing is ever valid.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Where the server's clock is, seen from [`boottime`]: steps of this host's own time of day do not move it.
#[derive(Debug, Default)]
pub(super) struct ServerClock {
    /// Nanoseconds to add.
    ahead: AtomicI64,
}

impl ServerClock {
    /// The server said that its clock showed `nanos` since 1970, between `asked` and `heard`.
    pub(super) fn measured(&self, nanos: u64, asked: Duration, heard: Duration) {
        let here = i64::try_from(((asked + heard) / 2).as_nanos()).unwrap_or(0);
        let there = i64::try_from(nanos).unwrap_or(i64::MAX);
        self.ahead.store(there.saturating_sub(here), Ordering::Release);
    }

    /// The server's time at `at`.
    pub(super) fn at(&self, at: Duration) -> Time {
        let here = i64::try_from(at.as_nanos()).unwrap_or(0);
        let nanos = here.saturating_add(self.ahead.load(Ordering::Acquire));
        let (secs, rest) = (nanos.div_euclid(NANOS), nanos.rem_euclid(NANOS));
        Time { secs, nanos: u32::try_from(rest).unwrap_or(0) }
    }
}

const NANOS: i64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::{ServerClock, boottime};
    use crate::base::Time;
    use std::time::Duration;

    #[test]
    fn the_servers_time_goes_on_from_the_middle_of_the_round_trip() {
        let clock = ServerClock::default();
        let told = 1_700_000_000_000_000_500;
        clock.measured(told, Duration::from_secs(10), Duration::from_secs(12));
        assert_eq!(clock.at(Duration::from_secs(11)), Time { secs: 1_700_000_000, nanos: 500 });
        assert_eq!(clock.at(Duration::from_millis(12_500)), Time { secs: 1_700_000_001, nanos: 500_000_500 });
    }

    #[test]
    fn the_boot_clock_runs() {
        let before = boottime();
        assert!(before > Duration::ZERO && boottime() >= before);
    }
}

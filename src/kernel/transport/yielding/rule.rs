//! When a queue yields and when it is put back. Counts and times come in, decisions go out: no clock, no thread, no system
//! call. Times are counted from any moment, the same for all.

use std::time::Duration;

/// How often the watch looks after queues that yield, and the time in which requests are counted.
pub(in crate::kernel::transport) const TICK: Duration = Duration::from_millis(2);

/// A queue asks to yield when so many requests have come within a tick: from then on wake-ups cost more than the change. When it
/// yields and serves fewer in a tick it is put back: it waits for its core, or there is little to do and it loses nothing.
pub(super) const ASKS_FROM: usize = 8;

/// Yielding must bring a quarter more than the queue served in the tick before, or it is put back after so many ticks: where it
/// brings less it is not the wake-up of callers that costs, and there is only the risk.
const WEAK_TICKS: u32 = 4;

/// How long a queue that was put back while it waited for its core does not ask: at first, and at most.
pub(super) const PAUSE_FIRST: Duration = Duration::from_millis(100);
pub(super) const PAUSE_MOST: Duration = Duration::from_secs(10);

/// On the queue thread: how fast requests come.
#[derive(Debug)]
pub(super) struct Pace {
    tick: Duration,
    /// Start of the count.
    since: Duration,
    requests: usize,
}

impl Pace {
    pub(super) fn new(tick: Duration) -> Self {
        Self { tick, since: Duration::ZERO, requests: 0 }
    }

    /// So many have come. True: enough for a look at the clock, which most requests do without.
    pub(super) fn counts(&mut self, requests: usize) -> bool {
        self.requests += requests;
        self.requests >= ASKS_FROM
    }

    /// Whether those that were counted came within a tick. The count begins anew.
    pub(super) fn was_fast(&mut self, now: Duration) -> bool {
        let fast = now.saturating_sub(self.since) <= self.tick;
        self.since = now;
        self.requests = 0;
        fast
    }

    /// Begins anew without a look at the clock. What was counted from is old by the next look, so this costs one count.
    pub(super) fn forget(&mut self) {
        self.requests = 0;
    }
}

/// On the watch's thread: one queue.
#[derive(Debug)]
pub(super) struct Rule {
    tick: Duration,
    standing: Standing,
    /// When the tick began that is being counted, and what had been served by then.
    since: Duration,
    had: u64,
    /// How long the next pause is.
    pause: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Ordinary,
    /// It has asked; the tick shows what it serves without yielding.
    Asked,
    Yields {
        /// What it served in the tick before.
        before: u64,
        /// Ticks in a row that brought too little.
        weak: u32,
    },
}

/// What is to be done with a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// It yields from now on.
    Yield,
    /// It is put back, or its wish is forgotten. It may ask again from this time on.
    Back(Duration),
}

impl Rule {
    pub(super) fn new(tick: Duration) -> Self {
        let standing = Standing::Ordinary;
        Self { tick, standing, since: Duration::ZERO, had: 0, pause: PAUSE_FIRST }
    }

    /// Whether it must be looked after.
    pub(super) fn is_ordinary(&self) -> bool {
        self.standing == Standing::Ordinary
    }

    /// It has asked to yield, having served so many.
    pub(super) fn asked(&mut self, now: Duration, served: u64) {
        (self.standing, self.since, self.had) = (Standing::Asked, now, served);
    }

    /// What was decided last could not be done.
    pub(super) fn undone(&mut self, change: Change) {
        self.standing = match change {
            Change::Yield => Standing::Ordinary,
            Change::Back(_) => Standing::Yields { before: u64::MAX, weak: 0 },
        };
    }

    /// Judges a queue that has `served` so many until now. `waits` says whether it wants its core and does not have it, or has it
    /// and works on something long; it is asked only of a queue that serves too little.
    pub(super) fn look(
        &mut self,
        now: Duration,
        served: u64,
        waits: impl FnOnce() -> bool,
    ) -> Option<Change> {
        if self.is_ordinary() || now.saturating_sub(self.since) < self.tick {
            return None;
        }
        let came = served.saturating_sub(self.had);
        (self.since, self.had) = (now, served);
        match self.standing {
            Standing::Ordinary => None,
            Standing::Asked if came < ASKS_FROM as u64 => {
                self.standing = Standing::Ordinary;
                Some(Change::Back(now))
            }
            Standing::Asked => {
                self.standing = Standing::Yields { before: came, weak: 0 };
                Some(Change::Yield)
            }
            Standing::Yields { before, .. } if came < ASKS_FROM as u64 || came < before / 2 => {
                Some(self.back(now, waits()))
            }
            Standing::Yields { before, .. } if came >= before + before / 4 => {
                self.standing = Standing::Yields { before, weak: 0 };
                None
            }
            Standing::Yields { weak, .. } if weak + 1 == WEAK_TICKS => Some(self.back(now, true)),
            Standing::Yields { before, weak } => {
                self.standing = Standing::Yields { before, weak: weak + 1 };
                None
            }
        }
    }

    fn back(&mut self, now: Duration, in_vain: bool) -> Change {
        self.standing = Standing::Ordinary;
        if !in_vain {
            self.pause = PAUSE_FIRST;
            return Change::Back(now);
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MOST);
        Change::Back(now + pause)
    }
}

#[cfg(test)]
mod tests {
    use super::{ASKS_FROM, Change, PAUSE_FIRST, PAUSE_MOST, Pace, Rule, TICK, WEAK_TICKS};
    use std::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn only_requests_within_a_tick_are_fast_and_the_clock_is_read_for_every_eighth() {
        let mut pace = Pace::new(TICK);
        let mut looks = 0;
        let mut count = |pace: &mut Pace, apart: Duration, from: Duration| {
            let mut fast = Vec::new();
            let mut now = from;
            for _ in 0..10 * ASKS_FROM {
                now += apart;
                if pace.counts(1) {
                    looks += 1;
                    fast.push(pace.was_fast(now));
                }
            }
            fast
        };
        // Eight in two milliseconds are the limit; the first count began long ago.
        let fast = count(&mut pace, TICK / 8, 1000 * MS);
        assert!(!fast[0] && fast[1..].iter().all(|fast| *fast), "{fast:?}");
        let slow = count(&mut pace, TICK / 8 + Duration::from_micros(1), 2000 * MS);
        assert!(slow.iter().all(|fast| !fast), "{slow:?}");
        assert_eq!(looks, 20);
        // A burst that arrives in one turn counts as a whole.
        assert!(pace.counts(100) && !pace.was_fast(3000 * MS));
        assert!(pace.counts(100) && pace.was_fast(3001 * MS));
    }

    #[test]
    fn what_was_counted_while_yielding_is_not_taken_for_speed() {
        let mut pace = Pace::new(TICK);
        assert!(pace.counts(ASKS_FROM) && !pace.was_fast(10 * MS));
        assert!(pace.counts(ASKS_FROM));
        pace.forget();
        assert!(!pace.counts(1));
        assert!(pace.counts(ASKS_FROM) && !pace.was_fast(50 * MS));
    }

    /// A queue that has asked at `now`, and yields from a tick later on: it had served 100, and serves `before` meanwhile.
    fn yielding(now: Duration, before: u64) -> Rule {
        let mut rule = Rule::new(TICK);
        yields_again(&mut rule, now, before);
        rule
    }

    fn yields_again(rule: &mut Rule, now: Duration, before: u64) {
        rule.asked(now, 100);
        assert_eq!(rule.look(now + TICK, 100 + before, || panic!("asked")), Some(Change::Yield));
    }

    #[test]
    fn a_queue_that_serves_more_than_before_keeps_yielding() {
        let (mut rule, mut served) = (yielding(Duration::ZERO, 40), 140);
        for nth in 2..1000_u32 {
            served += if nth % WEAK_TICKS == 0 { 50 } else { 49 };
            assert_eq!(rule.look(nth * TICK, served, || panic!("asked")), None, "{nth}");
        }
        assert!(!rule.is_ordinary());
    }

    #[test]
    fn a_queue_that_gains_nothing_is_put_back_after_some_ticks_and_pauses() {
        let (mut rule, mut served) = (yielding(Duration::ZERO, 40), 140);
        for nth in 2..2 + WEAK_TICKS {
            served += 49;
            let change = rule.look(nth * TICK, served, || panic!("asked"));
            let last = nth == 1 + WEAK_TICKS;
            assert_eq!(change, last.then(|| Change::Back(nth * TICK + PAUSE_FIRST)));
        }
        assert!(rule.is_ordinary());
    }

    #[test]
    fn a_queue_that_serves_half_of_what_it_did_is_put_back_at_once() {
        let mut rule = yielding(Duration::ZERO, 40);
        assert_eq!(rule.look(2 * TICK, 140 + 19, || true), Some(Change::Back(2 * TICK + PAUSE_FIRST)));
    }

    #[test]
    fn a_wish_is_forgotten_when_few_requests_follow() {
        let mut rule = Rule::new(TICK);
        rule.asked(MS, 0);
        assert_eq!(rule.look(2 * MS, 7, || panic!("asked")), None, "the tick is not over");
        assert_eq!(rule.look(3 * MS, 7, || panic!("asked")), Some(Change::Back(3 * MS)));
        assert!(rule.is_ordinary());
        assert_eq!(rule.look(9 * MS, 7, || panic!("asked")), None);
    }

    #[test]
    fn the_first_tick_of_yielding_is_judged_only_when_it_is_whole() {
        let mut rule = yielding(Duration::ZERO, 8);
        assert_eq!(rule.look(TICK + MS, 108, || panic!("asked")), None);
        assert!(rule.look(TICK + 2 * MS, 108, || true).is_some());
    }

    #[test]
    fn a_quiet_queue_may_ask_again_at_once() {
        let mut rule = Rule::new(TICK);
        for round in 0..100_u32 {
            let now = round * 10 * MS;
            yields_again(&mut rule, now, 8);
            assert_eq!(rule.look(now + 2 * TICK, 108, || false), Some(Change::Back(now + 2 * TICK)));
        }
    }

    #[test]
    fn pauses_of_a_queue_that_waited_double_to_a_bound_and_end_with_a_quiet_one() {
        let mut rule = Rule::new(TICK);
        let mut now = Duration::ZERO;
        let mut put_back = |rule: &mut Rule, waits: bool| {
            yields_again(rule, now, 8);
            now += 2 * TICK;
            let Some(Change::Back(again)) = rule.look(now, 108, || waits) else { panic!("not put back") };
            let pause = again - now;
            now = again;
            pause
        };
        let pauses: Vec<Duration> = (0..10).map(|_| put_back(&mut rule, true)).collect();
        let expected = [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000];
        assert_eq!(pauses, expected.map(Duration::from_millis));
        assert_eq!(*pauses.last().unwrap(), PAUSE_MOST);
        assert_eq!(put_back(&mut rule, false), Duration::ZERO);
        assert_eq!(put_back(&mut rule, true), PAUSE_FIRST);
        // Lost to a program that wants the core all the time: one tick of each pause, in all under a thousandth.
        let lost = TICK * 10;
        assert!(lost * 1000 < pauses.iter().sum::<Duration>());
    }

    #[test]
    fn a_watch_that_comes_late_judges_by_what_was_served_since() {
        let mut rule = yielding(Duration::ZERO, 8);
        assert_eq!(rule.look(500 * MS, 118, || panic!("asked")), None);
        assert!(rule.look(1000 * MS, 119, || true).is_some());
    }

    #[test]
    fn what_could_not_be_done_is_decided_again() {
        let mut rule = yielding(Duration::ZERO, 8);
        rule.undone(Change::Yield);
        assert!(rule.is_ordinary());
        yields_again(&mut rule, 100 * MS, 8);
        let back = rule.look(200 * MS, 108, || true).unwrap();
        rule.undone(back);
        assert!(matches!(rule.look(300 * MS, 10_000, || true), Some(Change::Back(_))));
    }
}

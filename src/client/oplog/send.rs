//! What to send, and when.

use super::pace::WINDOW_MAX;
use super::segment::Batch;
use super::stage::{Event, Stage};
use super::{Log, SEGMENT_BODY_BYTES};
use crate::base::Errno;
use crate::wire::Ticket;
use std::time::Duration;

/// What the owner of the log has to do.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "what it says counts as done"]
pub enum Action {
    /// Hand this to the link, and ask again.
    Send(Batch),
    /// Ask the server for a sync, behind what was sent ([`crate::wire::Query::Sync`] of everything), and ask again. When it
    /// is answered the log hears first what is durable ([`Log::durable`]), then [`Log::sync_answered`] or
    /// [`Log::sync_failed`].
    Sync,
    /// Nothing until that time, or until the log has changed.
    Wait(Option<Duration>),
}

impl Log {
    /// What is to be done at `now`. One thread at a time asks and does, so that frames keep their order.
    pub fn next(&mut self, now: Duration) -> Action {
        while let Some(at) = self.first_unsent() {
            if self.segments[at].live == 0 {
                self.change(at, |segment| segment.step(Event::Fold));
                self.advance();
                continue;
            }
            return match self.due(at, now) {
                None => Action::Send(self.send(at, now)),
                Some(Some(until)) if until <= now => Action::Send(self.send(at, now)),
                Some(until) => self.sync_or_wait(until),
            };
        }
        self.sync_or_wait(None)
    }

    /// When [`Log::next`] has something to send, as the log is now: for who has just accepted a local mutation and does not send
    /// himself. `None`: nothing, or when something has changed.
    #[must_use]
    pub fn when(&mut self, now: Duration) -> Option<Duration> {
        let at = self.first_unsent()?;
        self.due(at, now).unwrap_or(Some(now))
    }

    /// `None`: now. `Some(None)`: when something has changed.
    fn due(&self, at: usize, now: Duration) -> Option<Option<Duration>> {
        let segment = &self.segments[at];
        let wanted =
            |barriers: &super::Barriers| barriers.highest().is_some_and(|high| high >= segment.first);
        let waited_behind = self.segments.range(at..).any(|segment| !segment.local);
        if wanted(&self.applied_barriers) || wanted(&self.durable_barriers) || waited_behind {
            return None;
        }
        if self.weight.in_flight >= self.pace.window().min(WINDOW_MAX) {
            return Some(None);
        }
        let (body, payload) = segment.len();
        let full = u64::from(segment.live) >= self.pace.batch_operations()
            || body >= SEGMENT_BODY_BYTES
            || payload >= SEGMENT_BODY_BYTES
            || at + 1 < self.segments.len();
        if full || self.parked.len() > 0 {
            return None;
        }
        let age = if self.was_idle(at) { self.limits.gather } else { self.pace.age_max(self.limits.age_max) };
        let until = segment.opened + age;
        (until > now).then_some(Some(until))
    }

    /// Nothing is on its way, and nothing came for a while before this segment.
    fn was_idle(&self, at: usize) -> bool {
        let segment = &self.segments[at];
        self.weight.in_flight == 0
            && self.last_sent_accept.is_none_or(|last| segment.opened.saturating_sub(last) >= IDLE)
    }

    fn sync_or_wait(&mut self, until: Option<Duration>) -> Action {
        let Some(high) = self.durable_barriers.highest() else { return Action::Wait(until) };
        // A sync covers what was applied before it: local mutations that were sent before, but of waited ones the server may
        // apply some behind it. What is in the barriers' way when all syncs are answered is such a one.
        let behind = self.syncs == 0 && self.stage(self.undurable) == Some(Stage::Applied);
        if (high >= self.synced || behind) && self.undurable < self.unsent {
            self.synced = self.unsent;
            self.syncs += 1;
            self.counts.syncs += 1;
            return Action::Sync;
        }
        Action::Wait(until)
    }

    fn send(&mut self, at: usize, now: Duration) -> Batch {
        self.last_sent_accept = Some(self.last_accept);
        self.counts.batches += 1;
        self.counts.batched += u64::from(self.segments[at].live);
        self.pace.sent(self.segments[at].live.into(), self.segments[at].opened, now);
        if at + 1 == self.segments.len() {
            self.folds.forget();
        }
        self.change(at, |segment| {
            segment.fix();
            segment.sent = now;
            segment.step(Event::Send);
            segment.batch()
        })
    }

    /// Sends a waited mutation: its frame goes to the link, by the thread that sends. `None`: it is sent already, or at an
    /// end.
    pub fn send_waited(&mut self, ticket: Ticket, now: Duration) -> Option<Batch> {
        let at = self.position(ticket)?;
        let segment = &self.segments[at];
        if segment.local || segment.stage != Stage::Accepted {
            return None;
        }
        Some(self.send(at, now))
    }

    /// Everything a new connection has to send before anything else, in the order of the tickets: with the same
    /// server what is sent and not answered, with a restarted one all that is not durable, local ones that were never sent
    /// among it. Commits of the server before do not count any more. [`Log::lost_in_replay`] tells what is sent nowhere.
    pub fn replay(&mut self, restarted: bool, now: Duration) -> Vec<Batch> {
        self.synced = self.settled_below();
        if restarted {
            self.durable_commit = 0;
        }
        let mut batches = Vec::new();
        let mut lost = std::mem::take(&mut self.lost);
        for at in 0..self.segments.len() {
            if restarted && self.segments[at].fenced && self.segments[at].stage == Stage::Applied {
                self.end(at, &[Event::Restart, Event::Fence], Errno::EIO, &mut lost);
                continue;
            }
            batches.extend(self.change(at, |segment| {
                if restarted {
                    if segment.commit > 0 {
                        segment.before = segment.commit;
                    }
                    segment.commit = 0;
                    segment.step(Event::Restart);
                    if segment.local && segment.stage == Stage::Accepted && segment.live > 0 {
                        // The leases that allowed it ended with the server: once the replay is over others may get them.
                        segment.fix();
                        segment.step(Event::Send);
                    }
                }
                matches!(segment.stage, Stage::Sent | Stage::Resent).then(|| {
                    segment.sent = now;
                    segment.batch()
                })
            }));
        }
        if restarted {
            self.unapplied = self.settled_below();
            self.advance();
        }
        self.lost = lost;
        batches
    }

    /// The first local segment that is not sent.
    fn first_unsent(&mut self) -> Option<usize> {
        let start = self.unsent.max(self.settled_below());
        let mut at = self.position(start).unwrap_or(self.segments.len());
        while let Some(segment) = self.segments.get(at) {
            if segment.local && segment.stage == Stage::Accepted {
                self.unsent = segment.first;
                return Some(at);
            }
            at += 1;
        }
        self.unsent = self.next_ticket;
        None
    }
}

/// A pause of this length makes the log idle: the next mutation is the first of something new.
const IDLE: Duration = Duration::from_millis(10);

//! What the server said, and what it will not say any more.

use super::segment::Failed;
use super::stage::{Event, Stage};
use super::waiters::Due;
use super::{Log, Segment};
use crate::base::{Errno, Ino};
use crate::wire::Ticket;
use std::time::Duration;

/// What an acknowledgement brought about.
#[derive(Debug, Default)]
#[must_use = "somebody waits for it, and failures are to be told"]
pub struct Answered {
    /// To be run when the log is let go.
    pub due: Due,
    /// What the server refused, in the order of the tickets.
    pub failed: Vec<Failed>,
}

impl Log {
    /// The outcomes of a batch arrived: all of it is done and in the server's `commit`, apart from `failures`. `first` is
    /// that of the batch. One that is answered already changes nothing.
    pub fn answered(
        &mut self,
        now: Duration,
        first: Ticket,
        commit: u64,
        failures: &mut dyn Iterator<Item = (Ticket, Errno)>,
    ) -> Answered {
        let mut answered = Answered::default();
        let Some(at) = self.position(first) else { return answered };
        if !matches!(self.segments[at].stage, Stage::Sent | Stage::Resent) {
            return answered;
        }
        let (sent, before) = (self.segments[at].sent, self.weight);
        let durable = commit <= self.durable_commit;
        let (begins, local) = self.change(at, |segment| {
            let late = segment.local || segment.stage == Stage::Resent;
            answered
                .failed
                .extend(failures.filter_map(|(ticket, errno)| segment.reject(ticket, errno, late)));
            (segment.commit, segment.before) = (commit, 0);
            if segment.rejected() == segment.live as usize {
                segment.step(Event::Reject);
            } else {
                segment.step(Event::Apply);
                if durable {
                    segment.step(Event::Durable);
                }
            }
            (segment.first, segment.local)
        });
        self.counts.rejected += answered.failed.len() as u64;
        if local {
            let answers = before.waiting - self.weight.waiting;
            self.pace.answered(answers as u64, sent, now, self.weight.in_flight > 0);
        }
        if !local {
            // Barriers did not wait for it while it was not answered; they do now, until it is durable.
            self.undurable = self.undurable.min(begins);
        }
        self.advance();
        self.pass(&mut answered.due);
        answered
    }

    /// A waited mutation made an inode, and the server gave it this number. Should the server lose it with the power, it is made
    /// again under the same: programs and other mounts know it by that.
    pub fn numbered(&mut self, ticket: Ticket, ino: Ino) {
        let Some(at) = self.position(ticket) else { return };
        if !self.segments[at].local && self.segments[at].stage == Stage::Applied {
            self.change(at, |segment| segment.number(ino));
        }
    }

    /// All up to this commit of the present server is durable.
    pub fn durable(&mut self, commit: u64) -> Due {
        let mut due = Due::default();
        if commit <= self.durable_commit {
            return due;
        }
        self.durable_commit = commit;
        for at in 0..self.segments.len() {
            let segment = &self.segments[at];
            if segment.stage == Stage::Applied && segment.commit <= commit {
                self.change(at, |segment| segment.step(Event::Durable));
            }
        }
        self.advance();
        self.pass(&mut due);
        due
    }

    /// A sync was done. Who waits for something that the server applied behind it needs another one: ask [`Log::next`].
    pub fn sync_answered(&mut self) {
        self.syncs = self.syncs.saturating_sub(1);
    }

    /// A sync failed: those who wait for durability are told.
    pub fn sync_failed(&mut self, errno: Errno) -> Due {
        self.sync_answered();
        let mut due = Due::default();
        self.durable_barriers.fail(errno, &mut due);
        due
    }

    /// The session is gone and its leases with it: what is not applied never will be (`ESTALE`), and those who wait are
    /// told (EIO). `restarted`: the server that applied the rest is gone too, so that its fate is not known.
    pub fn fence(&mut self, restarted: bool) -> Answered {
        let mut answered = Answered::default();
        self.folds.forget();
        for at in 0..self.segments.len() {
            let stage = self.segments[at].stage;
            let event = match stage {
                Stage::Applied if restarted => {
                    self.end(at, &[Event::Restart, Event::Fence], Errno::EIO, &mut answered.failed);
                    continue;
                }
                Stage::Accepted | Stage::Sent | Stage::Resent => Event::Fence,
                Stage::Applied => {
                    self.segments[at].fenced = true;
                    continue;
                }
                _ => continue,
            };
            self.end(at, &[event], Errno::ESTALE, &mut answered.failed);
        }
        if restarted {
            self.durable_commit = 0;
        }
        self.synced = self.settled_below();
        self.applied_barriers.fail(Errno::EIO, &mut answered.due);
        self.durable_barriers.fail(Errno::EIO, &mut answered.due);
        self.advance();
        self.pass(&mut answered.due);
        answered
    }

    /// What the last [`Log::replay`] found lost: it was applied under a session that has ended, by a server that is gone.
    pub fn lost_in_replay(&mut self) -> Answered {
        let mut answered = Answered { failed: std::mem::take(&mut self.lost), ..Answered::default() };
        self.pass(&mut answered.due);
        answered
    }

    /// What was sent before `sent_before` and is without an answer will not get one any more.
    pub fn expire(&mut self, sent_before: Duration) -> Answered {
        let mut answered = Answered::default();
        for at in 0..self.segments.len() {
            let segment = &self.segments[at];
            if matches!(segment.stage, Stage::Sent | Stage::Resent) && segment.sent < sent_before {
                self.end(at, &[Event::Expire], Errno::EIO, &mut answered.failed);
            }
        }
        self.advance();
        self.pass(&mut answered.due);
        answered
    }

    /// Ends a segment whose mutations will not be applied, as far as anybody knows.
    pub(super) fn end(&mut self, at: usize, events: &[Event], errno: Errno, failed: &mut Vec<Failed>) {
        let lost = self.change(at, |segment| {
            let late = segment.local || matches!(segment.stage, Stage::Applied | Stage::Resent);
            // What was never sent was not applied.
            let unknown = segment.stage != Stage::Accepted;
            let lost = segment.all_failed(errno, late, unknown);
            events.iter().for_each(|event| segment.step(*event));
            lost
        });
        self.counts.lost += lost.len() as u64;
        failed.extend(lost);
    }

    /// Moves the marks, and forgets what is at an end.
    pub(super) fn advance(&mut self) {
        self.unapplied = self.mark(self.unapplied, |segment| {
            let applied = segment.stage == Stage::Applied || segment.stage.is_end();
            applied || !segment.local
        });
        self.undurable = self.mark(self.undurable, |segment| {
            let unanswered = !segment.local && matches!(segment.stage, Stage::Accepted | Stage::Sent);
            segment.stage.is_end() || unanswered
        });
        while self.segments.front().is_some_and(|segment| segment.stage.is_end()) {
            self.segments.pop_front();
        }
    }

    fn mark(&self, from: Ticket, passes: impl Fn(&Segment) -> bool) -> Ticket {
        let start = from.max(self.settled_below());
        let Some(first) = self.position(start) else { return start };
        let mut mark = start;
        for segment in self.segments.range(first..) {
            if !passes(segment) {
                return mark.max(segment.first);
            }
            mark = segment.end;
        }
        mark
    }

    fn pass(&mut self, due: &mut Due) {
        self.applied_barriers.pass(self.unapplied, due);
        self.durable_barriers.pass(self.undurable, due);
        self.release(due);
    }
}

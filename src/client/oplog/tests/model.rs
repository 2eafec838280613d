//! Any sequence of events against a model that holds one line for each ticket.

use super::{AT, CALLER, chmod, limits, ms};
use crate::base::Errno;
use crate::client::oplog::{Action, Batch, Log, Refused, Stage, Turn, cost};
use crate::wire::{Ticket, mutation};
use proptest::prelude::{ProptestConfig as Config, any, proptest};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the log must say of one mutation.
#[derive(Clone, Debug)]
struct Line {
    local: bool,
    stage: Stage,
    commit: u64,
    bytes: Vec<u8>,
    /// Applied under a session that has ended.
    fenced: bool,
}

/// A barrier that ran, and its result.
type Ran = (usize, Result<(), Errno>);

#[derive(Default)]
struct Model {
    lines: Vec<Line>,
    /// Frames at the server, those of local mutations in their order.
    local: VecDeque<Batch>,
    waited: Vec<Batch>,
    commit: u64,
    durable: u64,
    /// Closures that ran: barrier, whether it was for durability, its ticket, its result.
    ran: Arc<Mutex<Vec<Ran>>>,
    barriers: BTreeMap<usize, (bool, Ticket)>,
    barriers_ever: usize,
    woken: Arc<Mutex<Vec<Turn>>>,
    parked: Vec<Turn>,
    now: Duration,
    highest_local_sent: u64,
}

impl Model {
    fn line(&mut self, ticket: Ticket) -> &mut Line {
        &mut self.lines[usize::try_from(ticket.0 - 1).unwrap()]
    }

    fn accept(&mut self, log: &mut Log, local: bool, at: u8) {
        let mutation = chmod(1000 + self.lines.len() as u64, u32::from(at));
        let turn = self.woken.lock().unwrap().pop();
        let accepted = if local {
            log.accept(self.now, CALLER, AT, &mutation, turn)
        } else {
            log.accept_waited(self.now, CALLER, &mutation, turn)
        };
        match accepted {
            Ok(ticket) => {
                // A restart makes more of them, from those that were applied.
                assert!(log.waiting() <= limits().waiting_max);
                self.lines.push(Line {
                    local,
                    stage: Stage::Accepted,
                    commit: 0,
                    bytes: Vec::new(),
                    fenced: false,
                });
                assert_eq!(ticket, Ticket(self.lines.len() as u64));
            }
            Err(Refused::Full) => {
                let woken = Arc::clone(&self.woken);
                let takes = cost(&mutation).unwrap();
                let parked = log.park(turn, takes, Box::new(move |turn| woken.lock().unwrap().push(turn)));
                let Ok((turn, due)) = parked else { return };
                self.parked.push(turn);
                self.run(due);
            }
            Err(Refused::TooLarge) => unreachable!(),
        }
    }

    fn run(&mut self, due: crate::client::oplog::Due) {
        due.run();
        let woken = self.woken.lock().unwrap();
        self.parked.retain(|turn| !woken.contains(turn));
    }

    /// A frame goes out, or goes out again.
    fn frame(&mut self, batch: &Batch, again: bool) {
        for read in mutation::decode_batch(&batch.body, &batch.payload) {
            let (origin, read) = read.unwrap();
            let mut bytes = Vec::new();
            mutation::encode(&mut bytes, &mut Vec::new(), origin, &read.unwrap());
            let highest = self.highest_local_sent;
            let line = self.line(origin.ticket);
            assert_eq!(line.local, batch.local);
            if again {
                assert_eq!(line.bytes, bytes, "the original bytes");
                assert!(matches!(line.stage, Stage::Sent | Stage::Resent));
            } else {
                assert_eq!(line.stage, Stage::Accepted);
                line.stage = Stage::Sent;
                line.bytes = bytes;
                if batch.local {
                    assert!(origin.ticket.0 > highest, "in their order");
                    self.highest_local_sent = origin.ticket.0;
                }
            }
        }
        if batch.local { self.local.push_back(batch.clone()) } else { self.waited.push(batch.clone()) }
    }

    fn next(&mut self, log: &mut Log) {
        loop {
            match log.next(self.now) {
                Action::Send(batch) => self.frame(&batch, false),
                Action::Sync => {}
                Action::Wait(_) => return,
            }
        }
    }

    fn send_waited(&mut self, log: &mut Log, at: u8) {
        let ready = |(_, line): &(usize, &Line)| !line.local && line.stage == Stage::Accepted;
        let all: Vec<usize> = self.lines.iter().enumerate().filter(ready).map(|(i, _)| i).collect();
        if all.is_empty() {
            return;
        }
        let ticket = Ticket(all[usize::from(at) % all.len()] as u64 + 1);
        let batch = log.send_waited(ticket, self.now).unwrap();
        self.frame(&batch, false);
    }

    fn answer(&mut self, log: &mut Log, batch: &Batch, at: u8) {
        self.commit += 1;
        let commit = self.commit;
        let mut failures = Vec::new();
        for read in mutation::decode_batch(&batch.body, &batch.payload) {
            let ticket = read.unwrap().0.ticket;
            let fails = (ticket.0 * 7 + u64::from(at)) % 5 == 0;
            let line = self.line(ticket);
            assert!(matches!(line.stage, Stage::Sent | Stage::Resent), "settled once");
            line.commit = commit;
            line.stage = if fails { Stage::Rejected } else { Stage::Applied };
            if fails {
                failures.push((ticket, Errno::ENOSPC));
            }
        }
        let answered = log.answered(self.now, batch.first, commit, &mut failures.clone().into_iter());
        let told: Vec<_> = answered.failed.iter().map(|failed| (failed.ticket, failed.errno)).collect();
        assert_eq!(told, failures);
        self.run(answered.due);
    }

    fn durable(&mut self, log: &mut Log, commit: u64) {
        self.durable = self.durable.max(commit);
        for line in &mut self.lines {
            if line.stage == Stage::Applied && line.commit <= self.durable {
                line.stage = Stage::Durable;
            }
        }
        let due = log.durable(commit);
        self.run(due);
    }

    fn replay(&mut self, log: &mut Log, restarted: bool) {
        self.local.clear();
        self.waited.clear();
        let mut unknown = 0;
        if restarted {
            (self.commit, self.durable) = (0, 0);
            for line in &mut self.lines {
                match line.stage {
                    Stage::Applied if line.fenced => (line.stage, unknown) = (Stage::Unknown, unknown + 1),
                    Stage::Applied => line.stage = Stage::Resent,
                    Stage::Rejected => line.commit = u64::MAX,
                    _ => {}
                }
            }
        }
        let batches = log.replay(restarted, self.now);
        let lost = log.lost_in_replay();
        assert_eq!(lost.failed.len(), unknown);
        self.run(lost.due);
        let firsts: Vec<_> = batches.iter().map(|batch| batch.first).collect();
        assert!(firsts.is_sorted());
        for batch in &batches {
            let again = self.line(batch.first).stage != Stage::Accepted;
            assert!(again || restarted && batch.local);
            self.frame(batch, again);
        }
        let unsent = |line: &Line| line.local && line.stage == Stage::Accepted;
        assert!(!restarted || !self.lines.iter().any(unsent), "no lease allows it any more");
        let out: usize = self.local.iter().chain(&self.waited).map(|batch| batch.count as usize).sum();
        let open = self.lines.iter().filter(|line| matches!(line.stage, Stage::Sent | Stage::Resent));
        assert_eq!(out, open.count(), "all that is without an answer");
    }

    fn fence(&mut self, log: &mut Log, restarted: bool) {
        self.local.clear();
        self.waited.clear();
        if restarted {
            (self.commit, self.durable) = (0, 0);
            self.lines.iter_mut().for_each(|line| line.commit = u64::MAX);
        }
        let mut lost = 0;
        for line in &mut self.lines {
            line.fenced |= line.stage == Stage::Applied;
            let next = match line.stage {
                Stage::Accepted | Stage::Sent => Stage::Fenced,
                Stage::Resent => Stage::Unknown,
                Stage::Applied if restarted => Stage::Unknown,
                _ => continue,
            };
            line.stage = next;
            lost += 1;
        }
        let answered = log.fence(restarted);
        assert_eq!(answered.failed.len(), lost);
        self.run(answered.due);
    }

    fn barrier(&mut self, log: &mut Log, durable: bool, at: u8) {
        let ticket = Ticket(u64::from(at) % (self.lines.len() as u64 + 1));
        let id = self.barriers_ever;
        self.barriers_ever += 1;
        self.barriers.insert(id, (durable, ticket));
        let ran = Arc::clone(&self.ran);
        let reached = Box::new(move |result| ran.lock().unwrap().push((id, result)));
        let due =
            if durable { log.after_durable(ticket, reached) } else { log.after_applied(ticket, reached) };
        self.run(due);
    }

    /// Barriers: each ran when it may, with what was true then, and at once.
    fn check_barriers(&mut self) {
        for (id, result) in std::mem::take(&mut *self.ran.lock().unwrap()) {
            let (durable, ticket) = self.barriers.remove(&id).expect("each runs once");
            if result.is_ok() {
                assert!(self.holds(durable, ticket), "{ticket:?} durable: {durable}");
            }
        }
        for (durable, ticket) in self.barriers.values() {
            let there = self.holds(*durable, *ticket) && self.frames_hold(*durable, *ticket);
            assert!(!there, "{ticket:?} is there, durable: {durable}");
        }
    }

    fn holds(&self, durable: bool, ticket: Ticket) -> bool {
        self.lines.iter().take(usize::try_from(ticket.0).unwrap()).all(|line| {
            let unanswered = !line.local && matches!(line.stage, Stage::Accepted | Stage::Sent);
            let applied = line.stage == Stage::Applied || (!line.local && line.stage == Stage::Resent);
            line.stage.is_end() || unanswered || (!durable && applied)
        })
    }

    /// The same for those that were refused: they count as part of their frame.
    fn frames_hold(&self, durable: bool, ticket: Ticket) -> bool {
        let mut refused = self.lines[..usize::try_from(ticket.0).unwrap()].iter();
        refused.all(|line| {
            line.stage != Stage::Rejected
                || line.commit <= self.durable
                || (!durable && line.commit < u64::MAX)
        })
    }

    fn check(&mut self, log: &Log) {
        let count = |wanted: &[Stage]| self.lines.iter().filter(|line| wanted.contains(&line.stage)).count();
        let waiting = count(&[Stage::Accepted, Stage::Sent, Stage::Resent]);
        let kept = waiting + count(&[Stage::Applied]);
        assert_eq!((log.waiting(), log.len()), (waiting, kept));
        assert!(kept <= limits().kept_max);
        if kept == 0 {
            assert_eq!((log.status().kept_bytes, log.settled_below().0), (0, self.lines.len() as u64 + 1));
        }
        let open = self.lines.iter().position(|line| !line.stage.is_end()).unwrap_or(self.lines.len());
        assert!(log.settled_below().0 <= open as u64 + 1, "nothing open is called settled");
        for (i, line) in self.lines.iter().enumerate() {
            if let Some(stage) = log.stage(Ticket(i as u64 + 1)) {
                assert_eq!(stage, line.stage, "{i}");
            } else {
                assert!(line.stage.is_end());
            }
        }
        assert_eq!(log.status().parked, self.parked.len());
        if !self.parked.is_empty() {
            assert!(kept > 0, "nobody waits for room in an empty log");
            let ample = |count: usize, max: usize| count <= max - max / 8;
            let roomy = ample(waiting, limits().waiting_max) && ample(kept, limits().kept_max);
            let spread = self.lines.len() as u64 + 1 - log.settled_below().0;
            assert!(!roomy || spread >= 2 * limits().kept_max as u64, "nobody waits while there is room");
        }
        self.check_barriers();
    }

    fn step(&mut self, log: &mut Log, (event, at): (u8, u8)) {
        self.now += Duration::from_micros(u64::from(at) * 100);
        match event % 16 {
            0..=3 => self.accept(log, true, at),
            4 => self.accept(log, false, at),
            5 | 6 => self.next(log),
            7 => self.send_waited(log, at),
            8 | 9 => {
                if let Some(batch) = self.local.pop_front() {
                    self.answer(log, &batch, at);
                }
            }
            10 if !self.waited.is_empty() => {
                let batch = self.waited.swap_remove(usize::from(at) % self.waited.len());
                self.answer(log, &batch, at);
            }
            11 => self.durable(log, u64::from(at) % (self.commit + 1)),
            12 => self.barrier(log, at % 2 == 0, at),
            13 if at % 4 == 0 => self.replay(log, at % 8 == 0),
            14 if at % 16 == 0 => self.fence(log, at % 32 == 0),
            15 if !self.parked.is_empty() => {
                let turn = self.parked.swap_remove(usize::from(at) % self.parked.len());
                assert!(log.unpark(turn).is_some());
            }
            _ => (),
        }
    }

    /// Whatever has happened: the server's answers alone bring everything to its end.
    fn finish(&mut self, log: &mut Log) {
        for _ in 0..1000 {
            self.now += ms(100);
            self.next(log);
            while self.lines.iter().any(|line| !line.local && line.stage == Stage::Accepted) {
                self.send_waited(log, 0);
            }
            while let Some(batch) = self.local.pop_front().or_else(|| self.waited.pop()) {
                self.answer(log, &batch, 1);
            }
            self.durable(log, self.commit);
            self.check(log);
            if log.is_empty() {
                break;
            }
        }
        assert!(log.is_empty() && self.parked.is_empty() && self.barriers.is_empty());
    }
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn any_sequence_of_events_keeps_the_invariants(
        events in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..200)
    ) {
        let mut log = Log::new(limits());
        let mut model = Model { now: ms(1), ..Model::default() };
        for event in events {
            model.step(&mut log, event);
            model.check(&log);
        }
        model.finish(&mut log);
    }
}

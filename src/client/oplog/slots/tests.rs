//! Random sequences of events against the log's invariants, and each rule by itself.

use super::{Bounds, Claim, Event, Log, ParkId, Record, Refused, SharedLog, Stage, cost};
use crate::base::{Caller, Errno, Ino, Name};
use crate::wire::{Mutation, Origin, Ticket, WriteFlags, mutation};
use proptest::prelude::{any, proptest};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};

const CALLER: Caller = Caller { uid: 1, gid: 2, pid: 3 };

fn unlink() -> Mutation<'static> {
    Mutation::Unlink { parent: Ino(1), name: Name::parse(b"name").unwrap(), ino: None, hold: true }
}

fn write(data: &[u8]) -> Mutation<'_> {
    Mutation::Write { ino: Ino(5), offset: 7, flags: WriteFlags::default(), data }
}

fn bounds() -> Bounds {
    Bounds { operations_max: 4, bytes_max: 1 << 20, span_max: 8, parked_max: 3 }
}

#[test]
fn tickets_count_from_one_and_the_bytes_carry_them() {
    let mut log = Log::new(bounds());
    for expected in 1..=2 {
        let record = log.accept(CALLER, &write(b"data")).unwrap();
        assert_eq!(record.ticket, Ticket(expected));
        let back: Vec<_> = mutation::decode_batch(&record.body, &record.payload).collect();
        let origin = Origin::waited(Ticket(expected), CALLER);
        assert_eq!(back, [Ok((origin, Ok(write(b"data"))))]);
    }
}

#[test]
fn a_replay_has_the_original_bytes_in_ticket_order_without_what_settled() {
    let mut log = Log::new(bounds());
    let records: Vec<Record> = (0..3).map(|_| log.accept(CALLER, &unlink()).unwrap()).collect();
    for record in &records {
        log.sent(record.ticket);
    }
    log.settle(Ticket(2));
    log.cut();
    assert_eq!(log.unsettled().collect::<Vec<_>>(), [&records[0], &records[2]]);
    assert_eq!(log.stage(Ticket(1)), Some(Stage::Accepted));
    assert_eq!(log.stage(Ticket(2)), Some(Stage::Settled));
    assert_eq!((log.stage(Ticket(4)), log.stage(Ticket(0))), (None, Some(Stage::Settled)));
}

#[test]
fn settled_below_stops_at_the_oldest_that_is_open() {
    let mut log = Log::new(bounds());
    for _ in 0..3 {
        log.accept(CALLER, &unlink()).unwrap();
    }
    log.settle(Ticket(2));
    assert_eq!(log.settled_below(), Ticket(1));
    log.settle(Ticket(1));
    assert_eq!(log.settled_below(), Ticket(3));
    log.settle(Ticket(3));
    assert_eq!((log.settled_below(), log.is_empty(), log.bytes()), (Ticket(4), true, 0));
}

#[test]
fn each_bound_refuses_and_one_large_mutation_is_let_in() {
    let mut log = Log::new(Bounds { bytes_max: 2000, ..bounds() });
    let large = log.accept(CALLER, &write(&[0; 5000])).unwrap();
    assert_eq!(log.accept(CALLER, &unlink()), Err(Refused::Full));
    log.settle(large.ticket);
    for _ in 0..3 {
        log.accept(CALLER, &unlink()).unwrap();
    }
    assert_eq!(log.accept(CALLER, &unlink()), Err(Refused::Full), "bytes");

    let mut log = Log::new(bounds());
    for _ in 0..4 {
        log.accept(CALLER, &unlink()).unwrap();
    }
    assert_eq!(log.accept(CALLER, &unlink()), Err(Refused::Full), "operations");
    for ticket in 2..=4 {
        log.settle(Ticket(ticket));
    }
    for _ in 0..3 {
        let record = log.accept(CALLER, &unlink()).unwrap();
        log.settle(record.ticket);
    }
    assert_eq!(log.len(), 1);
    log.accept(CALLER, &unlink()).unwrap();
    assert_eq!(log.accept(CALLER, &unlink()), Err(Refused::Full), "span");
}

#[test]
fn what_no_frame_can_carry_is_refused_for_good() {
    let mut log = Log::new(Bounds::default());
    let data = vec![0; crate::base::limits::FRAME_PAYLOAD_BYTES_MAX + 1];
    assert_eq!(log.accept(CALLER, &write(&data)), Err(Refused::TooLarge));
    assert_eq!(log.len(), 0);
}

#[test]
#[should_panic(expected = "not in a stage for that")]
fn settling_twice_is_a_bug() {
    let mut log = Log::new(bounds());
    log.accept(CALLER, &unlink()).unwrap();
    log.accept(CALLER, &unlink()).unwrap();
    log.settle(Ticket(2));
    log.settle(Ticket(2));
}

#[test]
fn the_parked_come_in_by_their_order_and_before_newcomers() {
    let log = SharedLog::new(Bounds { operations_max: 1, ..bounds() });
    let first = log.accept(CALLER, &unlink()).unwrap();
    let (send, woken) = mpsc::channel();
    let park = |name: &'static str| {
        let send = send.clone();
        log.park(&unlink(), Box::new(move |claim| send.send((name, claim)).unwrap()))
    };
    assert_eq!(log.accept(CALLER, &unlink()), Err(Refused::Full));
    let (a, b, c) = (park("a"), park("b"), park("c"));
    assert!(a.is_some() && c.is_some());
    assert!(park("d").is_none());
    assert!(matches!(woken.try_recv(), Ok(("d", Err(Errno::ENOMEM)))));
    log.settle(first.ticket);
    let Ok(("a", Ok(claim))) = woken.try_recv() else { panic!("a is first") };
    assert_eq!(log.accept(CALLER, &unlink()), Err(Refused::Full));
    assert!(log.unpark(b.unwrap()));
    assert!(matches!(woken.try_recv(), Ok(("b", Err(Errno::EINTR)))));
    assert!(!log.unpark(a.unwrap()), "it has its claim already");
    let record = log.fill(claim, CALLER, &unlink());
    assert_eq!((record.ticket, log.settled_counter().load(Ordering::Relaxed)), (Ticket(2), 2));
    log.settle(record.ticket);
    let Ok(("c", Ok(claim))) = woken.try_recv() else { panic!("c is next") };
    log.abandon(claim);
    assert!(log.with(Log::is_empty) && woken.try_recv().is_err());
}

#[test]
fn a_request_parked_when_room_came_in_between_goes_on_at_once() {
    let log = SharedLog::new(bounds());
    let got = Arc::new(Mutex::new(None));
    let put = Arc::clone(&got);
    log.park(&unlink(), Box::new(move |claim| *put.lock().unwrap() = Some(claim)));
    let claim: Claim = got.lock().unwrap().take().unwrap().unwrap();
    assert_eq!(claim.ticket(), Ticket(1));
    log.abandon(claim);
}

#[test]
fn threads_that_fight_over_a_small_log_all_come_through() {
    let log = Arc::new(SharedLog::new(Bounds { operations_max: 2, ..Bounds::default() }));
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                for _ in 0..200 {
                    let record = log.accept(CALLER, &write(b"x")).unwrap_or_else(|_| {
                        let (send, woken) = mpsc::channel();
                        log.park(&write(b"x"), Box::new(move |claim| send.send(claim).unwrap()));
                        let claim = woken.recv().unwrap().unwrap();
                        log.fill(claim, CALLER, &write(b"x"))
                    });
                    log.settle(record.ticket);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    assert_eq!(log.with(|log| (log.len(), log.parked(), log.settled_below())), (0, 0, Ticket(801)));
}

/// Model of one mutation: what the log must say of it.
struct Model {
    stages: Vec<Stage>,
    records: Vec<Option<Record>>,
    claims: Vec<Claim>,
    parked: Vec<ParkId>,
}

impl Model {
    fn granted(&mut self, granted: super::Granted) {
        for (id, claim) in granted {
            assert_eq!(self.parked.remove(0), id, "parked requests come in by their order");
            self.claimed(claim);
        }
    }

    fn claimed(&mut self, claim: Claim) {
        self.stages.push(Stage::Claimed);
        self.records.push(None);
        assert_eq!(claim.ticket(), Ticket(self.stages.len() as u64));
        self.claims.push(claim);
    }

    fn pick(&self, at: u8, wanted: &[Stage]) -> Option<usize> {
        let fit: Vec<usize> = (0..self.stages.len()).filter(|&i| wanted.contains(&self.stages[i])).collect();
        (!fit.is_empty()).then(|| fit[usize::from(at) % fit.len()])
    }

    fn step(&mut self, log: &mut Log, (event, at): (u8, u8)) {
        let one = cost(&unlink()).unwrap();
        match event % 8 {
            0 | 1 => match log.claim(one) {
                Ok(claim) => self.claimed(claim),
                Err(_) => {
                    let Some((id, granted)) = log.park(one) else { return };
                    self.parked.push(id);
                    self.granted(granted);
                }
            },
            2 | 3 if !self.claims.is_empty() => {
                let claim = self.claims.swap_remove(usize::from(at) % self.claims.len());
                let record = Record::encode(claim.ticket(), CALLER, &unlink());
                let i = usize::try_from(record.ticket.0 - 1).unwrap();
                log.fill(claim, &record);
                (self.stages[i], self.records[i]) = (Stage::Accepted, Some(record));
            }
            4 => {
                let Some(i) = self.pick(at, &[Stage::Accepted]) else { return };
                log.sent(Ticket(i as u64 + 1));
                self.stages[i] = Stage::Sent;
            }
            5 | 6 => {
                let Some(i) = self.pick(at, &[Stage::Accepted, Stage::Sent]) else { return };
                (self.stages[i], self.records[i]) = (Stage::Settled, None);
                let granted = log.settle(Ticket(i as u64 + 1));
                self.granted(granted);
            }
            7 if at % 2 == 0 => {
                log.cut();
                for stage in &mut self.stages {
                    *stage = stage.on(Event::Cut).unwrap();
                }
            }
            7 if !self.parked.is_empty() => {
                let id = self.parked.remove(usize::from(at) % self.parked.len());
                let granted = log.unpark(id).unwrap();
                self.granted(granted);
            }
            _ => (),
        }
    }

    fn check(&self, log: &Log, bounds: &Bounds) {
        let open = self.stages.iter().filter(|stage| **stage != Stage::Settled).count();
        let oldest = self.stages.iter().position(|stage| *stage != Stage::Settled);
        let settled = oldest.unwrap_or(self.stages.len());
        let span = self.stages.len() - settled;
        assert_eq!((log.len(), log.settled_below()), (open, Ticket(settled as u64 + 1)));
        assert_eq!(log.bytes(), open * cost(&unlink()).unwrap());
        assert!(open <= bounds.operations_max && log.parked() <= bounds.parked_max);
        assert!(span <= bounds.span_max);
        assert_eq!(log.parked(), self.parked.len());
        let replay: Vec<&Record> = self.records.iter().flatten().collect();
        assert_eq!(log.unsettled().collect::<Vec<_>>(), replay);
        for (i, stage) in self.stages.iter().enumerate() {
            assert_eq!(log.stage(Ticket(i as u64 + 1)), Some(*stage));
        }
        if !self.parked.is_empty() {
            let full = open == bounds.operations_max || span == bounds.span_max;
            assert!(full, "nobody waits while there is room");
        }
    }
}

proptest! {
    #[test]
    fn any_sequence_of_events_keeps_the_invariants(
        events in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..200)
    ) {
        let bounds = bounds();
        let mut log = Log::new(bounds);
        let mut model =
            Model { stages: Vec::new(), records: Vec::new(), claims: Vec::new(), parked: Vec::new() };
        for event in events {
            model.step(&mut log, event);
            model.check(&log, &bounds);
        }
    }
}

use super::{CALLER, accept, answer, chmod, ms, sent, tickets, us};
use crate::client::oplog::{Action, Limits, Log};
use std::time::Duration;

#[test]
fn an_idle_log_gathers_before_it_sends() {
    let mut log = Log::new(Limits::default());
    assert_eq!(log.next(ms(50)), Action::Wait(None));
    accept(&mut log, ms(100));
    let due = ms(100) + Limits::default().gather;
    assert_eq!(log.next(ms(100)), Action::Wait(Some(due)));
    accept(&mut log, ms(100) + us(50));
    assert_eq!(tickets(&sent(&mut log, due)), [1, 2]);
    assert_eq!(log.next(due), Action::Wait(None));
}

#[test]
fn in_traffic_the_oldest_waits_for_company_but_not_for_ever() {
    let mut log = Log::new(Limits::default());
    accept(&mut log, ms(100));
    let first = sent(&mut log, ms(101));
    answer(&mut log, ms(101), &first, 1);
    accept(&mut log, ms(102));
    let Action::Wait(Some(until)) = log.next(ms(103)) else { panic!("it waits for company") };
    assert!(until > ms(103) && until <= ms(102) + Limits::default().age_max);
    assert_eq!(sent(&mut log, until).count, 1);
}

#[test]
fn a_batch_that_is_worth_its_way_goes_at_once() {
    let mut log = Log::new(Limits::default());
    accept(&mut log, ms(100));
    let _ = sent(&mut log, ms(101));
    let enough = log.status().batch_operations;
    for _ in 1..enough {
        accept(&mut log, ms(102));
    }
    assert!(matches!(log.next(ms(102)), Action::Wait(Some(_))));
    accept(&mut log, ms(102));
    assert_eq!(u64::from(sent(&mut log, ms(102)).count), enough);
}

#[test]
fn a_megabyte_of_data_goes_at_once() {
    let mut log = Log::new(Limits::default());
    accept(&mut log, ms(100));
    let _ = sent(&mut log, ms(101));
    let data = vec![1; 300_000];
    for _ in 0..4 {
        log.accept(ms(102), super::CALLER, super::AT, &super::write(&data), None).unwrap();
    }
    let batch = sent(&mut log, ms(102));
    assert_eq!((batch.count, batch.payload.len()), (3, 900_000), "one more would be more than a megabyte");
}

#[test]
fn who_waits_for_a_barrier_makes_it_go_at_once_past_the_window() {
    let mut log = Log::new(Limits::default());
    let mut batches = Vec::new();
    for _ in 0..log.status().window {
        accept(&mut log, ms(100));
        let (Action::Wait(Some(until)), ticket) = (log.next(ms(100)), log.last()) else { panic!() };
        batches.push(sent(&mut log, until));
        assert_eq!(tickets(batches.last().unwrap()), [ticket.0]);
    }
    let last = accept(&mut log, ms(200));
    assert_eq!(log.next(ms(300)), Action::Wait(None), "the window is full");
    log.after_applied(last, Box::new(|_| ())).run();
    assert_eq!(tickets(&sent(&mut log, ms(300))), [last.0]);
}

#[test]
fn a_durable_barrier_asks_for_one_sync_behind_what_it_needs() {
    let mut log = Log::new(Limits::default());
    let first = accept(&mut log, ms(1));
    log.after_durable(first, Box::new(|_| ())).run();
    let batch = sent(&mut log, ms(1));
    assert_eq!(log.next(ms(1)), Action::Sync);
    assert_eq!(log.next(ms(1)), Action::Wait(None));
    // Another barrier on the same needs no other sync; one on a later mutation does.
    log.after_durable(first, Box::new(|_| ())).run();
    assert_eq!(log.next(ms(1)), Action::Wait(None));
    let second = accept(&mut log, ms(2));
    log.after_durable(second, Box::new(|_| ())).run();
    let next = sent(&mut log, ms(2));
    assert_eq!(log.next(ms(2)), Action::Sync);
    answer(&mut log, ms(3), &batch, 1);
    // After a lost connection it is asked for again, behind the replay.
    assert_eq!(log.replay(false, ms(4)), [next]);
    assert_eq!(log.next(ms(4)), Action::Sync);
}

#[test]
fn a_sync_that_came_before_what_is_waited_for_is_followed_by_another() {
    let mut log = Log::new(Limits::default());
    let mut waited = |ino| {
        let ticket = log.accept_waited(ms(1), CALLER, &chmod(ino, 0o600), None).unwrap();
        (ticket, log.send_waited(ticket, ms(1)).unwrap())
    };
    let ((_, first), (last, second)) = (waited(5), waited(6));
    answer(&mut log, ms(2), &first, 1);
    log.after_durable(last, Box::new(|_| ())).run();
    assert_eq!(log.next(ms(2)), Action::Sync);
    // The second is applied behind the sync, which covers the first alone.
    answer(&mut log, ms(3), &second, 2);
    assert_eq!(log.next(ms(3)), Action::Wait(None), "one sync at a time");
    log.durable(1).run();
    log.sync_answered();
    assert_eq!(log.next(ms(3)), Action::Sync);
    log.durable(2).run();
    log.sync_answered();
    assert_eq!(log.next(ms(3)), Action::Wait(None));
    assert!(log.is_empty());
}

#[test]
fn what_is_applied_when_all_syncs_are_answered_is_synced_when_its_outcome_comes() {
    let mut log = Log::new(Limits::default());
    let ticket = accept(&mut log, ms(1));
    log.after_durable(ticket, Box::new(|_| ())).run();
    let batch = sent(&mut log, ms(1));
    assert_eq!(log.next(ms(1)), Action::Sync);
    // Answers of a server need not come in the order of the requests.
    log.sync_answered();
    assert_eq!(log.next(ms(2)), Action::Wait(None), "nothing is known to be applied");
    answer(&mut log, ms(3), &batch, 1);
    assert_eq!(log.next(ms(3)), Action::Sync);
    // The same when a sync has failed: who comes then needs another one.
    log.sync_failed(crate::base::Errno::EIO).run();
    assert_eq!(log.next(ms(3)), Action::Wait(None), "nobody waits");
    log.after_durable(ticket, Box::new(|_| ())).run();
    assert_eq!(log.next(ms(3)), Action::Sync);
}

/// Mutations that come at a steady rate, to a server that takes `way` and some work for each batch.
fn mutations_per_frame(between: Duration, way: Duration, work_each: Duration) -> u64 {
    let mut log = Log::new(Limits::default());
    let mut on_the_way: std::collections::VecDeque<(Duration, super::Batch)> = [].into();
    let (mut server_free, mut commit) = (Duration::ZERO, 0);
    let mut now = ms(1000);
    let (mut accepted, total) = (0, 20_000);
    let mut next_comes = now;
    while accepted < total || !log.is_empty() {
        if accepted < total && next_comes <= now && log.waiting() < log.status().waiting_max {
            accept(&mut log, now);
            accepted += 1;
            next_comes = now + between;
        }
        while on_the_way.front().is_some_and(|(done, _)| *done <= now) {
            let Some((_, batch)) = on_the_way.pop_front() else { break };
            commit += 1;
            answer(&mut log, now, &batch, commit);
            log.durable(commit).run();
        }
        let wake;
        loop {
            match log.next(now) {
                Action::Send(batch) => {
                    server_free = server_free.max(now + way / 2) + work_each * batch.count;
                    on_the_way.push_back((server_free + way / 2, batch));
                }
                Action::Sync => {}
                Action::Wait(until) => {
                    wake = until;
                    break;
                }
            }
        }
        let mut at = next_comes.max(now + us(1));
        if accepted == total || log.waiting() >= log.status().waiting_max {
            at = Duration::MAX;
        }
        for event in [wake, on_the_way.front().map(|(done, _)| *done)].into_iter().flatten() {
            at = at.min(event.max(now + us(1)));
        }
        if at == Duration::MAX {
            break;
        }
        now = at;
    }
    let status = log.status();
    assert_eq!((status.batched, status.kept), (total, 0));
    status.batched / status.batches
}

#[test]
fn a_sustained_burst_takes_less_than_one_frame_for_fifty_mutations() {
    for (between, way, work) in [
        (us(40), us(100), us(10)),
        (us(15), us(100), us(25)),
        (us(100), us(150), us(20)),
        (us(250), us(100), us(20)),
        (us(30), ms(1), us(10)),
        (us(30), ms(20), us(10)),
        (us(5), us(60), us(30)),
    ] {
        let per_frame = mutations_per_frame(between, way, work);
        assert!(per_frame >= 50, "{per_frame} for one every {between:?}, {way:?} away, {work:?} each");
    }
}

use super::{AT, Batch, CALLER, accept, answer, chmod, limits, make, ms, sent, tickets, us, write};
use crate::base::{Errno, Ino};
use crate::client::oplog::{Action, Limits, Log, Refused, Stage, cost};
use crate::wire::{Mutation, Ticket, mutation};
use std::sync::{Arc, Mutex};

/// What closures of waiters noted.
type Noted<T> = Arc<Mutex<Vec<T>>>;

#[test]
fn local_mutations_travel_together_in_their_order_with_their_time() {
    let mut log = Log::new(Limits::default());
    let all = [make(20, "a"), chmod(21, 0o600), write(b"data"), write(b"more"), make(22, "b")];
    for mutation in &all {
        log.accept(ms(1), CALLER, AT, mutation, None).unwrap();
    }
    let batch = sent(&mut log, ms(2));
    assert_eq!((batch.first, batch.last, batch.count, batch.local), (Ticket(1), Ticket(5), 5, true));
    let read: Vec<_> = mutation::decode_batch(&batch.body, &batch.payload).map(Result::unwrap).collect();
    for (i, (origin, read)) in read.into_iter().enumerate() {
        assert_eq!((origin.ticket, origin.caller, origin.at), (Ticket(i as u64 + 1), CALLER, Some(AT)));
        assert_eq!(read, Ok(all[i]));
    }
}

#[test]
fn a_waited_one_goes_alone_when_all_before_it_are_applied() {
    let mut log = Log::new(Limits::default());
    accept(&mut log, ms(1));
    let waited = log.accept_waited(ms(1), CALLER, &make(9, "w"), None).unwrap();
    let after = accept(&mut log, ms(1));
    let (send, sent_it) = std::sync::mpsc::channel();
    log.after_applied(Ticket(waited.0 - 1), Box::new(move |result| send.send(result).unwrap())).run();
    assert!(sent_it.try_recv().is_err());
    let first = sent(&mut log, ms(1));
    assert_eq!(tickets(&first), [1], "somebody waits behind it, so nothing more is gathered");
    answer(&mut log, ms(2), &first, 1);
    assert_eq!(sent_it.try_recv(), Ok(Ok(())));
    let alone = log.send_waited(waited, ms(2)).unwrap();
    assert_eq!((tickets(&alone), alone.local), (vec![waited.0], false));
    assert_eq!(log.send_waited(waited, ms(2)), None);
    // It may take long at the server. Local ones do not wait for it, nor do barriers on them.
    let local = sent(&mut log, ms(30));
    answer(&mut log, ms(31), &local, 2);
    assert_eq!(log.applied_through(), after);
    assert_eq!(log.stage(waited), Some(Stage::Sent));
    log.durable(2).run();
    assert_eq!((log.durable_through(), log.settled_below()), (after, waited));
    // Once it is answered, durability includes it.
    answer(&mut log, ms(40), &alone, 3);
    assert_eq!(log.durable_through(), Ticket(waited.0 - 1));
    log.durable(3).run();
    assert_eq!((log.durable_through(), log.is_empty()), (after, true));
}

#[test]
fn a_barrier_waits_for_its_ticket_and_not_for_later_ones() {
    let mut log = Log::new(Limits::default());
    let first = accept(&mut log, ms(1));
    let batch = sent(&mut log, ms(2));
    accept(&mut log, ms(2));
    let noted: Noted<&str> = Arc::default();
    let note = |what: &'static str| {
        let noted = Arc::clone(&noted);
        Box::new(move |_| noted.lock().unwrap().push(what))
    };
    log.after_durable(first, note("durable")).run();
    log.after_applied(first, note("applied")).run();
    answer(&mut log, ms(3), &batch, 7);
    assert_eq!(*noted.lock().unwrap(), ["applied"]);
    log.durable(6).run();
    assert_eq!(*noted.lock().unwrap(), ["applied"]);
    log.durable(7).run();
    assert_eq!(*noted.lock().unwrap(), ["applied", "durable"]);
    log.after_durable(first, note("at once")).run();
    assert_eq!(noted.lock().unwrap().len(), 3);
    assert_eq!((log.waiting(), log.len()), (1, 1));
}

#[test]
fn an_answer_that_is_durable_already_needs_no_second_one() {
    let mut log = Log::new(Limits::default());
    accept(&mut log, ms(1));
    let batch = sent(&mut log, ms(2));
    log.durable(5).run();
    answer(&mut log, ms(3), &batch, 5);
    assert_eq!((log.is_empty(), log.settled_below()), (true, Ticket(2)));
}

#[test]
fn what_the_server_refuses_comes_back_with_its_data_and_the_rest_goes_on() {
    let mut log = Log::new(Limits::default());
    log.accept(ms(1), CALLER, AT, &write(b"kept"), None).unwrap();
    log.accept(ms(1), CALLER, AT, &write(b"refused"), None).unwrap();
    log.accept(ms(1), CALLER, AT, &chmod(8, 0o700), None).unwrap();
    let batch = sent(&mut log, ms(2));
    let mut failures = [(Ticket(2), Errno::ENOSPC)].into_iter();
    let answered = log.answered(ms(3), batch.first, 4, &mut failures);
    answered.due.run();
    let [failed] = &answered.failed[..] else { panic!("one failed") };
    assert_eq!((failed.ticket, failed.errno, failed.late), (Ticket(2), Errno::ENOSPC, true));
    let (origin, mutation) = failed.mutation().unwrap();
    assert_eq!((origin.caller, origin.at, mutation), (CALLER, Some(AT), write(b"refused")));
    assert_eq!((log.stage(Ticket(2)), log.stage(Ticket(3))), (Some(Stage::Rejected), Some(Stage::Applied)));
    assert_eq!(log.applied_through(), Ticket(3));
    // A second answer to the same batch changes nothing.
    let mut failures = [(Ticket(3), Errno::EIO)].into_iter();
    assert!(log.answered(ms(4), batch.first, 5, &mut failures).failed.is_empty());
    // After a restart of the server only the others are asked again.
    let [again] = &log.replay(true, ms(5))[..] else { panic!("one frame") };
    assert_eq!((tickets(again), again.count), (vec![1, 3], 2));
    assert_eq!(log.applied_through(), Ticket(0), "nobody sees them at the new server");
    answer(&mut log, ms(6), again, 1);
    log.durable(1).run();
    assert_eq!((log.settled_below(), log.len(), log.status().kept_bytes), (Ticket(4), 0, 0));
}

#[test]
fn a_batch_that_fails_as_a_whole_leaves_nothing_to_replay() {
    let mut log = Log::new(Limits::default());
    accept(&mut log, ms(1));
    accept(&mut log, ms(1));
    let batch = sent(&mut log, ms(2));
    let mut failures = [Ticket(1), Ticket(2)].map(|ticket| (ticket, Errno::EIO)).into_iter();
    let answered = log.answered(ms(3), batch.first, 4, &mut failures);
    answered.due.run();
    assert_eq!((answered.failed.len(), log.is_empty(), log.settled_below()), (2, true, Ticket(3)));
    assert_eq!((log.replay(true, ms(4)), log.status().kept_bytes), (vec![], 0));
}

#[test]
fn the_same_server_is_asked_again_for_what_it_did_not_answer() {
    let mut log = Log::new(Limits::default());
    accept(&mut log, ms(1));
    let first = sent(&mut log, ms(2));
    log.accept_waited(ms(2), CALLER, &make(9, "w"), None).unwrap();
    answer(&mut log, ms(3), &first, 1);
    let waited = log.send_waited(Ticket(2), ms(3)).unwrap();
    accept(&mut log, ms(3));
    let second = sent(&mut log, ms(30));
    accept(&mut log, ms(31));
    assert_eq!(log.replay(false, ms(40)), [waited.clone(), second.clone()]);
    // A new server is asked for all that is not durable, by the same bytes, in the order of the tickets.
    // What was accepted and never sent goes with them: the leases that allowed it are gone when the replay is over.
    let replayed = log.replay(true, ms(50));
    let answered = Batch { unanswered: false, before: 1, ..first.clone() };
    assert_eq!(replayed[..3], [answered, waited, second], "and says what had an answer, and in which commit");
    assert_eq!(replayed[3..].iter().map(tickets).collect::<Vec<_>>(), [[4]]);
    assert_eq!(log.stage(Ticket(1)), Some(Stage::Resent));
    // A commit of the server before means nothing at this one.
    answer(&mut log, ms(60), &first, 1);
    assert_eq!(log.len(), 4);
    log.durable(1).run();
    assert_eq!(log.len(), 3);
}

#[test]
fn a_lost_session_fails_what_is_not_applied_and_tells_who_waits() {
    let mut log = Log::new(Limits::default());
    accept(&mut log, ms(1));
    let first = sent(&mut log, ms(2));
    answer(&mut log, ms(3), &first, 1);
    accept(&mut log, ms(3));
    let _ = sent(&mut log, ms(30));
    accept(&mut log, ms(31));
    let noted: Noted<Result<(), Errno>> = Arc::default();
    let note = Arc::clone(&noted);
    log.after_durable(Ticket(3), Box::new(move |result| note.lock().unwrap().push(result))).run();
    let answered = log.fence(false);
    answered.due.run();
    let failed: Vec<_> = answered.failed.iter().map(|failed| (failed.ticket, failed.errno)).collect();
    assert_eq!(failed, [(Ticket(2), Errno::ESTALE), (Ticket(3), Errno::ESTALE)]);
    assert_eq!(*noted.lock().unwrap(), [Err(Errno::EIO)]);
    assert_eq!((log.stage(Ticket(1)), log.len(), log.waiting()), (Some(Stage::Applied), 1, 0));
    // The server that applied the first lives, and makes it durable. One that restarted has perhaps lost it.
    let answered = log.fence(true);
    assert_eq!((answered.failed.len(), answered.failed[0].errno), (1, Errno::EIO));
    assert_eq!((log.is_empty(), log.status().lost), (true, 3));
    assert_eq!(accept(&mut log, ms(40)), Ticket(4), "the log goes on under the next session");
}

#[test]
fn what_stays_without_an_answer_for_too_long_is_unknown() {
    let mut log = Log::new(Limits::default());
    accept(&mut log, ms(1));
    let first = sent(&mut log, ms(2));
    assert!(log.expire(ms(2)).failed.is_empty());
    let answered = log.expire(ms(3));
    assert_eq!((answered.failed.len(), log.is_empty()), (1, true));
    let late = log.answered(ms(9), first.first, 1, &mut std::iter::empty());
    assert!(late.failed.is_empty() && late.due.is_empty(), "a late answer changes nothing");
}

#[test]
fn a_full_log_refuses_and_wakes_by_turns_when_there_is_room() {
    let mut log = Log::new(limits());
    for _ in 0..8 {
        accept(&mut log, ms(1));
    }
    let one = chmod(99, 0o600);
    assert_eq!(log.accept(ms(1), CALLER, AT, &one, None), Err(Refused::Full));
    let woken: Noted<_> = Arc::default();
    let park = |log: &mut Log, turn| {
        let woken = Arc::clone(&woken);
        log.park(turn, 256, Box::new(move |turn| woken.lock().unwrap().push(turn))).map(|(turn, due)| {
            due.run();
            turn
        })
    };
    let turns: Vec<_> = (0..3).map(|_| park(&mut log, None).ok().unwrap()).collect();
    assert!(park(&mut log, None).is_err(), "too many");
    assert!(log.unpark(turns[1]).is_some());
    // Somebody waits for room: what there is goes out at once.
    let batch = sent(&mut log, ms(1));
    assert_eq!(batch.count, 8);
    answer(&mut log, us(1500), &batch, 1);
    assert_eq!(*woken.lock().unwrap(), [turns[0], turns[2]]);
    for _ in 0..8 {
        accept(&mut log, ms(2));
    }
    // One that found no room keeps its turn, before those who came later.
    let later = park(&mut log, None).ok().unwrap();
    assert_eq!(park(&mut log, Some(turns[2])).ok(), Some(turns[2]));
    woken.lock().unwrap().clear();
    let batch = sent(&mut log, ms(2));
    log.durable(1).run();
    answer(&mut log, ms(3), &batch, 2);
    assert_eq!(*woken.lock().unwrap(), [turns[2], later]);
}

#[test]
fn a_large_one_is_woken_when_it_fits_and_not_for_less() {
    let mut log = Log::new(Limits { kept_bytes_max: 2000, ..Limits::default() });
    accept(&mut log, ms(1));
    let batch = sent(&mut log, ms(2));
    let large = write(&[0; 3000]);
    assert_eq!(log.accept(ms(2), CALLER, AT, &large, None), Err(Refused::Full));
    let woken: Noted<_> = Arc::default();
    let note = Arc::clone(&woken);
    let retry = Box::new(move |turn| note.lock().unwrap().push(turn));
    let (turn, due) = log.park(None, cost(&large).unwrap(), retry).ok().unwrap();
    due.run();
    // Nothing waits to be sent or answered any more, and small ones would fit: woken for that, it would come back at once.
    answer(&mut log, ms(3), &batch, 1);
    assert!(log.admits(&chmod(9, 0), Some(turn)).is_ok());
    assert!(woken.lock().unwrap().is_empty());
    log.durable(1).run();
    assert_eq!(*woken.lock().unwrap(), [turn]);
    assert!(log.accept(ms(4), CALLER, AT, &large, Some(turn)).is_ok());
}

#[test]
fn newcomers_wait_behind_the_parked() {
    let mut log = Log::new(limits());
    for _ in 0..8 {
        accept(&mut log, ms(1));
    }
    let (turn, due) = log.park(None, 256, Box::new(|_| ())).ok().unwrap();
    due.run();
    let batch = sent(&mut log, ms(1));
    let mut failures = (2..=8).map(|ticket| (Ticket(ticket), Errno::EIO));
    let answered = log.answered(ms(2), batch.first, 1, &mut failures);
    assert_eq!(answered.due.retries.len(), 1);
    assert!(log.accept(ms(2), CALLER, AT, &chmod(99, 0o600), Some(turn)).is_ok());
}

#[test]
fn one_mutation_is_let_in_whatever_its_size_and_none_that_no_frame_can_carry() {
    let mut log = Log::new(Limits { kept_bytes_max: 2000, ..Limits::default() });
    log.accept(ms(1), CALLER, AT, &write(&[0; 5000]), None).unwrap();
    assert_eq!(log.accept(ms(1), CALLER, AT, &chmod(9, 0), None), Err(Refused::Full));
    let too_large = vec![0; crate::base::limits::FRAME_PAYLOAD_BYTES_MAX + 1];
    assert_eq!(log.accept(ms(1), CALLER, AT, &write(&too_large), None), Err(Refused::TooLarge));
    assert_eq!(log.last(), Ticket(1));
}

#[test]
fn a_failed_sync_is_told_to_those_who_wait_for_durability() {
    let mut log = Log::new(Limits::default());
    let ticket = accept(&mut log, ms(1));
    let noted: Noted<Result<(), Errno>> = Arc::default();
    let note = Arc::clone(&noted);
    log.after_durable(ticket, Box::new(move |result| note.lock().unwrap().push(result))).run();
    let _ = sent(&mut log, ms(1));
    assert_eq!(log.next(ms(1)), Action::Sync);
    log.sync_failed(Errno::EIO).run();
    assert_eq!(*noted.lock().unwrap(), [Err(Errno::EIO)]);
}

#[test]
fn what_each_waits_for_is_not_mixed_up_with_what_it_is() {
    let mut log = Log::new(Limits::default());
    let (a, b) = (make(20, "same"), Mutation::RemoveXattr { ino: crate::base::Ino(20), name: b"user.x" });
    let first = log.accept(ms(1), CALLER, AT, &a, None).unwrap();
    let second = log.accept_waited(ms(1), CALLER, &b, None).unwrap();
    assert_eq!((log.stage(first), log.stage(second)), (Some(Stage::Accepted), Some(Stage::Accepted)));
    assert_eq!(log.stage(Ticket(3)), None);
}

#[test]
fn an_inode_that_the_server_numbered_is_made_again_under_its_number() {
    let mut log = Log::new(Limits::default());
    let mut made = make(9, "w");
    if let Mutation::Make { ino, .. } = &mut made {
        *ino = None;
    }
    log.accept_waited(ms(1), CALLER, &made, None).unwrap();
    let sent = log.send_waited(Ticket(1), ms(1)).unwrap();
    answer(&mut log, ms(2), &sent, 4);
    log.numbered(Ticket(1), Ino(77));
    log.numbered(Ticket(1), Ino(78));
    let again = log.replay(true, ms(3));
    assert_eq!((again.len(), again[0].before), (1, 4));
    let (_, made) = mutation::decode_batch(&again[0].body, &again[0].payload).next().unwrap().unwrap();
    let Ok(Mutation::Make { ino, .. }) = made else { panic!("{made:?}") };
    assert_eq!(ino, Some(Ino(77)), "the first one counts");
    assert_eq!(log.status().kept_bytes, again[0].body.len());
}

#[test]
fn what_was_applied_under_a_session_that_has_ended_is_not_sent_to_the_next_server() {
    let mut log = Log::new(Limits::default());
    accept(&mut log, ms(1));
    let first = sent(&mut log, ms(2));
    answer(&mut log, ms(3), &first, 4);
    assert!(log.fence(false).failed.is_empty(), "the server that has it makes it durable");
    accept(&mut log, ms(4));
    let _second = sent(&mut log, ms(50));
    let again = log.replay(true, ms(60));
    assert_eq!(again.iter().map(tickets).collect::<Vec<_>>(), [[2]]);
    let lost = log.lost_in_replay();
    let [failed] = &lost.failed[..] else { panic!("{lost:?}") };
    assert_eq!(
        (failed.ticket, failed.errno, failed.late, failed.unknown),
        (Ticket(1), Errno::EIO, true, true)
    );
    assert!(log.lost_in_replay().failed.is_empty(), "once");
}

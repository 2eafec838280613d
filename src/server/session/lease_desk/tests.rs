use super::{Granting, Held, LeaseDesk, Local, Parked};
use crate::base::{Ino, SessionId};
use crate::server::session::leases::LeaseLimits;
use crate::wire::{Frame, Grant, Keep, Notice, Recall, Returned, notice};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const A: SessionId = SessionId(1);
const B: SessionId = SessionId(2);
const X: Ino = Ino(20);
const NOW: Duration = Duration::ZERO;

/// What was sent to a session, in order.
type Sent = Arc<Mutex<Vec<Notice>>>;

fn desk() -> (LeaseDesk, Sent) {
    let desk = LeaseDesk::new(LeaseLimits::default(), 1, false);
    let sent = Sent::default();
    let sink = Arc::clone(&sent);
    let tell =
        move |frame: Frame| sink.lock().unwrap().extend(notice::decode(&frame.body).map(Result::unwrap));
    desk.connect(A, 1, 2, Arc::new(tell));
    desk.connect(B, 2, 2, Arc::new(|_| {}));
    (desk, sent)
}

fn parked(session: SessionId, run: impl FnOnce() + Send + 'static) -> Parked {
    Parked { session, link: 7, bytes: 100, run: Box::new(run) }
}

fn grant(desk: &LeaseDesk, session: SessionId) -> (Grant, Granting) {
    let Ok(((), stamp)) = desk.begin_read(session, &[X], NOW, (), |()| unreachable!()) else {
        panic!("nothing is in its way")
    };
    let (grants, granting) = desk.end_read(session, stamp, &[X], &[X], NOW).unwrap();
    (grants[0], granting.unwrap())
}

#[test]
fn a_recall_does_not_overtake_the_answer_that_grants() {
    let (desk, sent) = desk();
    let (grant, granting) = grant(&desk, A);
    let held = desk.begin_read(B, &[X], NOW, (), |()| parked(B, || {}));
    assert!(matches!(held, Err(Held::Parked)));
    desk.settle(|| 0);
    assert_eq!(*sent.lock().unwrap(), []);
    desk.sent(granting);
    desk.settle(|| 0);
    let recall = Recall { ino: X, keep: Keep::Shared, number: grant.number };
    assert_eq!(*sent.lock().unwrap(), [Notice::Recall(recall)]);
}

#[test]
fn what_waits_is_run_once_outside_of_the_lock_and_not_within_another() {
    let (desk, _) = desk();
    let desk = Arc::new(desk);
    let (grant, granting) = grant(&desk, A);
    desk.sent(granting);
    let order = Arc::new(Mutex::new(Vec::new()));
    for nth in 0..3 {
        let (own, order) = (Arc::clone(&desk), Arc::clone(&order));
        let run = move || {
            // It may use the desk, and what it wakes runs after it.
            order.lock().unwrap().push(nth);
            let begun = own.begin_write(B, &[X], &[], NOW, (), |()| unreachable!());
            assert!(begun.is_ok());
            own.end_write(&[X]);
            order.lock().unwrap().push(nth + 10);
        };
        let held = desk.begin_write(B, &[X], &[], NOW, (), |()| parked(B, run));
        assert!(matches!(held, Err(Held::Parked)));
    }
    assert_eq!(desk.view(B, NOW).1, 3);
    desk.give_back(A, &[Returned { ino: X, number: grant.number, keep: Keep::Nothing, open: false }]);
    assert!(order.lock().unwrap().is_empty(), "run by the one who settles");
    desk.settle(|| 0);
    assert_eq!(*order.lock().unwrap(), [0, 10, 1, 11, 2, 12]);
    assert_eq!(desk.view(B, NOW).1, 0);
}

#[test]
fn what_waits_of_a_connection_that_is_gone_is_run_to_be_refused() {
    let (desk, _) = desk();
    let (_, granting) = grant(&desk, A);
    desk.sent(granting);
    let ran = Arc::new(Mutex::new(0));
    let count = Arc::clone(&ran);
    let run = move || *count.lock().unwrap() += 1;
    let held = desk.begin_read(B, &[X], NOW, (), |()| parked(B, run));
    assert!(matches!(held, Err(Held::Parked)));
    desk.disconnect(B, 8);
    desk.settle(|| 0);
    assert_eq!((*ran.lock().unwrap(), desk.totals().1), (0, 1), "another connection");
    desk.disconnect(B, 7);
    desk.settle(|| 0);
    assert_eq!((*ran.lock().unwrap(), desk.totals().1), (1, 0));
}

#[test]
fn what_waits_of_one_session_is_bounded() {
    let (desk, _) = desk();
    let (_, granting) = grant(&desk, A);
    desk.sent(granting);
    let huge = || Parked { session: B, link: 7, bytes: super::PARKED_BYTES_MAX, run: Box::new(|| {}) };
    assert!(matches!(desk.begin_read(B, &[X], NOW, (), |()| huge()), Err(Held::Parked)));
    assert!(matches!(desk.begin_read(B, &[X], NOW, 5, |_| huge()), Err(Held::Full(5))));
    let other = SessionId(3);
    assert!(matches!(desk.begin_read(other, &[X], NOW, (), |()| parked(other, || {})), Err(Held::Parked)));
}

#[test]
fn nothing_is_granted_in_grace_and_what_waits_for_its_end_goes_on_then() {
    let desk = LeaseDesk::new(LeaseLimits::default(), 1, true);
    desk.connect(A, 1, 2, Arc::new(|_| {}));
    desk.put_numbers(A, vec![(20, 21)]);
    let Ok(((), stamp)) = desk.begin_read(A, &[X], NOW, (), |()| unreachable!()) else { panic!() };
    assert!(desk.end_read(A, stamp, &[X], &[X], NOW).unwrap().0.is_empty());
    // A replay of what was made locally: its client has given up its leases.
    assert_eq!(desk.local(A, &[], Some(X), NOW), Local::Free);
    assert_eq!(desk.totals().0, 0);
    let ran = Arc::new(Mutex::new(false));
    let told = Arc::clone(&ran);
    let run = move || *told.lock().unwrap() = true;
    assert!(matches!(desk.freeze(A, (), |()| parked(A, run)), Err(Held::Parked)));
    desk.settle(|| 0);
    assert!(!*ran.lock().unwrap());
    desk.thaw();
    desk.settle(|| 0);
    assert!(*ran.lock().unwrap());
    assert!(desk.freeze(A, (), |()| unreachable!()).is_ok());
    assert_eq!(desk.local(A, &[], Some(X), NOW), Local::Free);
    assert_eq!((desk.totals().0, desk.local(A, &[], Some(Ino(21)), NOW)), (1, Local::NotItsNumber));
}

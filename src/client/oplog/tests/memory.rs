use super::{AT, CALLER, make, ms, sent, write};
use crate::client::oplog::{Action, Limits, Log};

/// Bytes of memory for each mutation besides its name, and the segments they stand in.
fn bytes_each(log: &Log, operations: usize, names: usize) -> usize {
    (log.heap_bytes() - names) / operations
}

#[test]
fn a_mutation_in_the_log_takes_at_most_200_bytes_besides_its_name() {
    let mut log = Log::new(Limits::default());
    let mut names = 0;
    let all = 10_000;
    let mut accepted = 0;
    while accepted < all {
        let name = format!("some-file-name-{accepted:06}.txt");
        if log.accept(ms(accepted), CALLER, AT, &make(accepted + 100, &name), None).is_ok() {
            names += name.len();
            accepted += 1;
            continue;
        }
        // Sent and applied, but not durable: the bytes are kept.
        let batch = match log.next(ms(accepted)) {
            Action::Send(batch) => batch,
            other => panic!("{other:?}"),
        };
        super::answer(&mut log, ms(accepted), &batch, accepted + 1);
    }
    assert_eq!(log.len() as u64, all);
    let each = bytes_each(&log, 10_000, names);
    assert!(each <= 200, "{each} bytes");
}

#[test]
fn what_is_durable_takes_no_memory() {
    let mut log = Log::new(Limits::default());
    for round in 0..50 {
        log.accept(ms(round * 100), CALLER, AT, &write(&[7; 10_000]), None).unwrap();
        let batch = sent(&mut log, ms(round * 100 + 50));
        super::answer(&mut log, ms(round * 100 + 60), &batch, round + 1);
        log.durable(round + 1).run();
        assert_eq!((log.len(), log.status().kept_bytes), (0, 0));
    }
    assert!(log.heap_bytes() < 20_000, "{}", log.heap_bytes());
}

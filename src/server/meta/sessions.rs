//! What the session layer keeps: its own records, results of mutations (a replay is answered, not repeated), and the
//! inodes that live on without a name because somebody holds them open.

use super::{Order, StoreFault, Txn, Value, View, keys};
use crate::base::{Ino, SessionId};
use std::ops::ControlFlow;

/// The record of a session, of the session layer's own making.
///
/// # Errors
/// The store cannot be read.
pub fn get(view: &dyn View, session: SessionId) -> Result<Option<Value>, StoreFault> {
    view.get(&keys::session(session))
}

/// Stores the record of a session.
pub fn put(txn: &mut dyn Txn, session: SessionId, record: &[u8]) {
    txn.put(&keys::session(session), record);
}

/// Removes the record of a session, its mark and all its results.
///
/// # Errors
/// The store cannot be read.
pub fn delete(txn: &mut dyn Txn, session: SessionId) -> Result<(), StoreFault> {
    txn.delete(&keys::session(session));
    txn.delete(&keys::mark(session));
    delete_results(txn, session, u64::MAX)
}

/// Visits the sessions and their records.
///
/// # Errors
/// The store cannot be read.
pub fn each(
    view: &dyn View,
    visit: &mut dyn FnMut(SessionId, &[u8]) -> ControlFlow<()>,
) -> Result<(), StoreFault> {
    let (from, end) = ([keys::letter::SESSION], keys::after(keys::letter::SESSION));
    each_parsed(view, &from, &end, &mut |key, record| Some(visit(session_of(key)?, record)))
}

fn session_of(key: &[u8]) -> Option<SessionId> {
    Some(SessionId(u128::from_be_bytes(*key.get(1..)?.first_chunk()?)))
}

/// Like [`super::Visit`], but it may find a key malformed.
type ParsedVisit<'v> = dyn FnMut(&[u8], &[u8]) -> Option<ControlFlow<()>> + 'v;

/// Scans keys whose form `visit` checks; `None` from it is a damaged key.
fn each_parsed(
    view: &dyn View,
    from: &[u8],
    end: &[u8],
    visit: &mut ParsedVisit<'_>,
) -> Result<(), StoreFault> {
    let mut fault = None;
    view.scan(from, end, Order::Forward, &mut |key, value| {
        visit(key, value).unwrap_or_else(|| {
            fault = Some(StoreFault::damaged(key, "key of another length"));
            ControlFlow::Break(())
        })
    })?;
    fault.map_or(Ok(()), Err)
}

/// The mark of a session: its local mutations up to this ticket were executed, and those without a stored result were done.
/// 0: none was.
///
/// # Errors
/// The store cannot be read, or the mark is damaged.
pub fn mark(view: &dyn View, session: SessionId) -> Result<u64, StoreFault> {
    let key = keys::mark(session);
    let Some(bytes) = view.get(&key)? else { return Ok(0) };
    let bytes: [u8; 8] = bytes[..].try_into().map_err(|_| StoreFault::damaged(&key, "not a number"))?;
    Ok(u64::from_le_bytes(bytes))
}

/// Sets the mark of a session, in the transaction of the mutations up to it.
pub fn put_mark(txn: &mut dyn Txn, session: SessionId, ticket: u64) {
    txn.put(&keys::mark(session), &ticket.to_le_bytes());
}

/// Visits the marks of all sessions. A damaged one is handed over as its fault.
///
/// # Errors
/// The store cannot be read.
pub fn each_mark(
    view: &dyn View,
    visit: &mut dyn FnMut(Result<(SessionId, u64), StoreFault>) -> ControlFlow<()>,
) -> Result<(), StoreFault> {
    let (from, end) = ([keys::letter::MARK], keys::after(keys::letter::MARK));
    view.scan(&from, &end, Order::Forward, &mut |key, value| {
        let found = session_of(key).filter(|_| key.len() == 17).zip(value.try_into().ok());
        let found = found.map(|(session, bytes)| (session, u64::from_le_bytes(bytes)));
        visit(found.ok_or_else(|| StoreFault::damaged(key, "not the mark of a session")))
    })
}

/// The stored result of mutation `seq`.
///
/// # Errors
/// The store cannot be read.
pub fn result(view: &dyn View, session: SessionId, seq: u64) -> Result<Option<Value>, StoreFault> {
    view.get(&keys::result(session, seq))
}

/// Stores the result of mutation `seq`, in the mutation's own transaction.
pub fn put_result(txn: &mut dyn Txn, session: SessionId, seq: u64, result: &[u8]) {
    txn.put(&keys::result(session, seq), result);
}

/// Visits the stored results of a session in order of sequence.
///
/// # Errors
/// The store cannot be read.
pub fn each_result(
    view: &dyn View,
    session: SessionId,
    visit: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
) -> Result<(), StoreFault> {
    let (from, end) = (keys::result(session, 0), results_end(session));
    each_parsed(view, &from, &end, &mut |key, result| {
        let seq = u64::from_be_bytes(*key.get(17..)?.first_chunk()?);
        Some(visit(seq, result))
    })
}

fn results_end(session: SessionId) -> Vec<u8> {
    match session.0.checked_add(1) {
        Some(next) => keys::result(SessionId(next), 0).to_vec(),
        None => keys::after(keys::letter::RESULT).to_vec(),
    }
}

/// Forgets the results up to and including `seq`: the client has seen them.
///
/// # Errors
/// The store cannot be read.
pub fn delete_results(txn: &mut dyn Txn, session: SessionId, seq: u64) -> Result<(), StoreFault> {
    let mut seen = Vec::new();
    each_result(txn, session, &mut |stored, _| {
        if stored > seq {
            return ControlFlow::Break(());
        }
        seen.push(stored);
        ControlFlow::Continue(())
    })?;
    for stored in seen {
        txn.delete(&keys::result(session, stored));
    }
    Ok(())
}

/// Notes that `ino` has no name and lives while somebody holds it.
pub fn put_orphan(txn: &mut dyn Txn, ino: Ino) {
    txn.put(&keys::orphan(ino), &[]);
}

/// Forgets the note: it got a name, or is removed.
pub fn delete_orphan(txn: &mut dyn Txn, ino: Ino) {
    txn.delete(&keys::orphan(ino));
}

/// Whether `ino` is noted as an orphan.
///
/// # Errors
/// The store cannot be read.
pub fn is_orphan(view: &dyn View, ino: Ino) -> Result<bool, StoreFault> {
    Ok(view.get(&keys::orphan(ino))?.is_some())
}

/// Visits the orphans in order of number.
///
/// # Errors
/// The store cannot be read.
pub fn each_orphan(view: &dyn View, visit: &mut dyn FnMut(Ino) -> ControlFlow<()>) -> Result<(), StoreFault> {
    let (from, end) = ([keys::letter::ORPHAN], keys::after(keys::letter::ORPHAN));
    each_parsed(view, &from, &end, &mut |key, _| Some(visit(Ino(keys::number(key)?))))
}

#[cfg(test)]
mod tests {
    use super::{delete, delete_results, each, mark, put, put_mark, put_result, result};
    use crate::base::SessionId;
    use crate::server::meta::{WriteTxn, memory::MemoryEngine};
    use std::ops::ControlFlow;

    #[test]
    fn seen_results_go_and_the_others_stay() {
        let engine = MemoryEngine::new();
        let mut txn = WriteTxn::new(&engine);
        for session in [1, 2, u128::MAX] {
            put(&mut txn, SessionId(session), b"record");
            put_mark(&mut txn, SessionId(session), 5);
            for seq in 1..=5 {
                put_result(&mut txn, SessionId(session), seq, &[1]);
            }
        }
        delete_results(&mut txn, SessionId(u128::MAX), 3).unwrap();
        assert!(result(&txn, SessionId(u128::MAX), 3).unwrap().is_none());
        assert!(result(&txn, SessionId(u128::MAX), 4).unwrap().is_some());
        delete(&mut txn, SessionId(1)).unwrap();
        assert!(result(&txn, SessionId(1), 5).unwrap().is_none());
        assert_eq!((mark(&txn, SessionId(1)).unwrap(), mark(&txn, SessionId(2)).unwrap()), (0, 5));
        assert!(result(&txn, SessionId(2), 1).unwrap().is_some());
        let mut left = Vec::new();
        each(&txn, &mut |session, record| {
            assert_eq!(record, b"record");
            left.push(session.0);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(left, [2, u128::MAX]);
    }
}

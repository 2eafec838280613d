//! One suite for every engine: whatever a random program of transactions does, the engine, the transaction's overlay
//! and a sorted map say the same.

use super::embedded::{EmbeddedEngine, EmbeddedOptions};
use super::memory::MemoryEngine;
use super::{CommitSeq, Engine, Order, Txn, View, WriteTxn};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a transaction does.
#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Get(Vec<u8>),
    Scan { from: Vec<u8>, to: Vec<u8>, order: Order, limit: usize },
    Save,
    Rollback,
}

/// Transactions, each with whether it commits, and whether the store is opened anew after it.
type Program = Vec<(Vec<Step>, bool, bool)>;

fn key() -> impl Strategy<Value = Vec<u8>> {
    // Few keys, so that writes meet; byte values at the edges of the order, and those whose values an engine may keep in
    // memory. `Q` belongs to the engine.
    proptest::collection::vec(prop_oneof![Just(0u8), Just(b'D'), Just(b'E'), Just(b'I'), Just(255)], 1..4)
}

fn step() -> impl Strategy<Value = Step> {
    let value = proptest::collection::vec(any::<u8>(), 0..40);
    let order = prop_oneof![Just(Order::Forward), Just(Order::Reverse)];
    prop_oneof![
        4 => (key(), value).prop_map(|(key, value)| Step::Put(key, value)),
        2 => key().prop_map(Step::Delete),
        1 => key().prop_map(Step::Get),
        2 => (key(), key(), order, 1usize..20)
            .prop_map(|(from, to, order, limit)| Step::Scan { from, to, order, limit }),
        1 => Just(Step::Save),
        1 => Just(Step::Rollback),
    ]
}

fn program() -> impl Strategy<Value = Program> {
    let txn = (proptest::collection::vec(step(), 0..25), any::<bool>(), prop::bool::weighted(0.1));
    proptest::collection::vec(txn, 1..8)
}

fn scan(view: &dyn View, from: &[u8], to: &[u8], order: Order, limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    view.scan(from, to, order, &mut |key, value| {
        if key != super::keys::COMMIT {
            found.push((key.to_vec(), value.to_vec()));
        }
        if found.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    found
}

fn model_scan(model: &Model, from: &[u8], to: &[u8], order: Order, limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let hit = model.iter().filter(|(key, _)| from <= key.as_slice() && key.as_slice() < to);
    let hit = hit.map(|(key, value)| (key.clone(), value.clone()));
    match order {
        Order::Forward => hit.take(limit).collect(),
        Order::Reverse => hit.rev().take(limit).collect(),
    }
}

fn run_txn(
    engine: &dyn Engine,
    before: &Model,
    steps: &[Step],
    commit: bool,
) -> Result<Model, TestCaseError> {
    let mut txn = WriteTxn::new(engine);
    let mut model = before.clone();
    let mut saved = vec![(txn.savepoint(), model.clone())];
    for step in steps {
        match step {
            Step::Put(key, value) => {
                txn.put(key, value);
                model.insert(key.clone(), value.clone());
            }
            Step::Delete(key) => {
                txn.delete(key);
                model.remove(key);
            }
            Step::Get(key) => {
                let got = txn.get(key).unwrap();
                prop_assert_eq!(got.as_deref(), model.get(key).map(Vec::as_slice));
            }
            Step::Scan { from, to, order, limit } => {
                let expected = model_scan(&model, from, to, *order, *limit);
                prop_assert_eq!(scan(&txn, from, to, *order, *limit), expected);
            }
            Step::Save => saved.push((txn.savepoint(), model.clone())),
            Step::Rollback => {
                let (point, then) = if saved.len() > 1 { saved.pop().unwrap() } else { saved[0].clone() };
                txn.rollback(point);
                model = then;
            }
        }
    }
    if !commit {
        return Ok(before.clone());
    }
    let expected = CommitSeq(engine.last_commit().0 + u64::from(!txn.changes().is_empty()));
    prop_assert_eq!(txn.commit().unwrap(), expected);
    prop_assert_eq!(engine.last_commit(), expected);
    Ok(model)
}

fn run<E: Engine>(mut open: impl FnMut(Option<E>) -> E, program: &Program) -> Result<(), TestCaseError> {
    let mut engine = open(None);
    let mut model = Model::new();
    for (steps, commit, reopen) in program {
        model = run_txn(&engine, &model, steps, *commit)?;
        if *reopen {
            let last = engine.last_commit();
            engine.persist().unwrap();
            engine = open(Some(engine));
            prop_assert_eq!(engine.last_commit(), last);
        }
        for order in [Order::Forward, Order::Reverse] {
            let all = scan(&engine, &[], &[255; 8], order, usize::MAX);
            prop_assert_eq!(all, model_scan(&model, &[], &[255; 8], order, usize::MAX));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_memory_engine_conforms(program in program()) {
        run(|old| old.unwrap_or_else(MemoryEngine::new), &program)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_embedded_engine_conforms(program in program()) {
        let dir = tempfile::tempdir().unwrap();
        run(|old| {
            drop(old);
            EmbeddedEngine::open(dir.path(), &EmbeddedOptions::default()).unwrap()
        }, &program)?;
    }
}

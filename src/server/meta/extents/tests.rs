use super::{Extent, each, punch, put, share};
use crate::base::{ChunkId, ChunkPlace, Ino, SegmentId};
use crate::server::meta::{Order, Txn, View, WriteTxn, chunk_table, keys, memory::MemoryEngine};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

const SIZE: usize = 200;
const FILES: [Ino; 2] = [Ino(20), Ino(21)];

/// The model: for each byte of a file the chunk and the byte in it.
type Bytes = [Option<(u64, u32)>; SIZE];

#[derive(Clone, Debug)]
enum Step {
    Write { file: usize, start: usize, len: usize },
    Punch { file: usize, start: usize, len: usize },
    Share { from: usize, to: usize, start: usize, len: usize, to_start: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let range = || (0usize..2, 0..SIZE, 1..60usize);
    prop_oneof![
        range().prop_map(|(file, start, len)| Step::Write { file, start, len }),
        range().prop_map(|(file, start, len)| Step::Punch { file, start, len }),
        (range(), 0usize..2, 0..SIZE).prop_map(|((from, start, len), to, to_start)| Step::Share {
            from,
            to,
            start,
            len,
            to_start
        }),
    ]
}

fn read(view: &dyn View, ino: Ino, order: Order) -> Bytes {
    let mut bytes = [None; SIZE];
    each(view, ino, 0..u64::MAX, order, &mut |extent| {
        for at in 0..extent.len {
            let byte = &mut bytes[usize::try_from(extent.start + at).unwrap()];
            assert!(byte.is_none(), "extents overlap at {extent:?}");
            *byte = Some((extent.chunk.0, extent.offset + u32::try_from(at).unwrap()));
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn extents_say_the_same_as_a_map_of_bytes(steps in proptest::collection::vec(step(), 1..40)) {
        let engine = MemoryEngine::new();
        let mut txn = WriteTxn::new(&engine);
        let mut model = [[None; SIZE]; 2];
        let mut covered = [0i64; 2];
        for (id, step) in (1u64..).zip(steps) {
            match step {
                Step::Write { file, start, len } => {
                    let len = len.min(SIZE - start);
                    let place = ChunkPlace { segment: SegmentId(1), position: 0, len: u32::try_from(len).unwrap() + 3 };
                    chunk_table::add(&mut txn, ChunkId(id), place).unwrap();
                    let extent = Extent { start: start as u64, len: len as u64, chunk: ChunkId(id), offset: 3 };
                    covered[file] += put(&mut txn, FILES[file], &extent).unwrap().cast_signed();
                    for at in 0..len {
                        model[file][start + at] = Some((id, 3 + u32::try_from(at).unwrap()));
                    }
                }
                Step::Punch { file, start, len } => {
                    let end = (start + len).min(SIZE);
                    covered[file] -= punch(&mut txn, FILES[file], start as u64..end as u64).unwrap().cast_signed();
                    model[file][start..end].fill(None);
                }
                Step::Share { from, to, start, len, to_start } => {
                    let len = len.min(SIZE - start).min(SIZE - to_start);
                    if from == to && start < to_start + len && to_start < start + len {
                        continue;
                    }
                    let range = start as u64..(start + len) as u64;
                    covered[to] += share(&mut txn, FILES[from], range, FILES[to], to_start as u64).unwrap();
                    let copy: Vec<_> = model[from][start..start + len].to_vec();
                    model[to][to_start..to_start + len].copy_from_slice(&copy);
                }
            }
            check(&txn, &model, &covered)?;
        }
    }
}

fn check(txn: &WriteTxn<'_>, model: &[Bytes; 2], covered: &[i64; 2]) -> Result<(), TestCaseError> {
    let mut refs: BTreeMap<u64, u32> = BTreeMap::new();
    for (file, ino) in FILES.into_iter().enumerate() {
        prop_assert_eq!(&read(txn, ino, Order::Forward), &model[file]);
        prop_assert_eq!(&read(txn, ino, Order::Reverse), &model[file]);
        prop_assert_eq!(covered[file], i64::try_from(model[file].iter().flatten().count()).unwrap());
        for range in [0..1u64, 50..51, 10..90, 199..200] {
            let mut hit = Vec::new();
            each(txn, ino, range.clone(), Order::Forward, &mut |extent| {
                hit.extend(extent.cut(&range).start..extent.cut(&range).end());
                ControlFlow::Continue(())
            })
            .unwrap();
            let expected: Vec<u64> =
                range.filter(|&at| model[file][usize::try_from(at).unwrap()].is_some()).collect();
            prop_assert_eq!(hit, expected);
        }
        each(txn, ino, 0..u64::MAX, Order::Forward, &mut |extent| {
            *refs.entry(extent.chunk.0).or_default() += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    let mut chunks = BTreeMap::new();
    let mut live = chunk_table::Live::default();
    chunk_table::each(txn, &mut |found| {
        let (id, chunk) = found.unwrap();
        chunks.insert(id.0, chunk.refs);
        live.bytes += chunk.place.record_bytes();
        live.chunks += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    prop_assert_eq!(chunks, refs);
    prop_assert_eq!(chunk_table::live(txn, SegmentId(1)).unwrap(), live);
    Ok(())
}

#[test]
fn damaged_extents_are_faults_whatever_their_numbers() {
    let store = |records: &[(u64, u64, u32)]| {
        let engine = MemoryEngine::new();
        let mut txn = WriteTxn::new(&engine);
        let place = ChunkPlace { segment: SegmentId(1), position: 16, len: 4096 };
        chunk_table::add(&mut txn, ChunkId(1), place).unwrap();
        chunk_table::add_refs(&mut txn, ChunkId(1), 9).unwrap();
        for (start, len, offset) in records {
            let value = [&len.to_le_bytes()[..], &1_u64.to_le_bytes(), &offset.to_le_bytes()].concat();
            txn.put(&keys::extent(FILES[0], *start), &value);
        }
        txn.commit().unwrap();
        engine
    };
    for (start, len, offset) in
        [(0, u64::MAX, 1), (0, u64::MAX, u32::MAX), (u64::MAX, 2, 0), (0, 0, 0), (0, 1 << 32, 0)]
    {
        let engine = store(&[(start, len, offset)]);
        let mut seen = 0;
        super::each_of_all(&engine, &mut |extent| {
            seen += 1;
            assert!(extent.is_err(), "{extent:?}");
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(seen, 1);
    }
    // Two records for the same bytes: more is freed than is there.
    let engine = store(&[(0, 100, 0), (50, 100, 0)]);
    let mut txn = WriteTxn::new(&engine);
    assert!(put(&mut txn, FILES[0], &Extent { start: 50, len: 50, chunk: ChunkId(1), offset: 0 }).is_err());
}

//! Several threads at once: readers beside writers, and beside the collector that moves what they read.

use super::rig::{ROOT, Rig, START, waited};
use crate::base::{Caller, Ino, SessionId};
use crate::server::apply::{Found, Volume, VolumeOptions};
use crate::server::chunks::memory::MemoryChunks;
use crate::server::fsck;
use crate::server::meta::memory::MemoryEngine;
use crate::server::ops::EXTENTS_PER_STEP;
use crate::server::store::Store;
use crate::wire::{Mutation, Origin, Query, SetAttr, Ticket, WriteFlags, mutation};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const FILE_BYTES: u64 = 16 << 10;
const BLOCK_BYTES: u64 = 1 << 10;

/// Small segments, so that the collector has much to do.
fn volume() -> Volume {
    let chunks = MemoryChunks::with_segment_bytes(32 << 10);
    let store = Store::over(Box::new(MemoryEngine::new()), Box::new(chunks)).unwrap();
    let mut options = VolumeOptions::new(Arc::new(|| START));
    options.collect_grace = Duration::ZERO;
    options.collect_every = Some(Duration::from_millis(1));
    Volume::open(store, options).unwrap()
}

fn write(volume: &Volume, session: u128, ticket: u64, ino: Ino, offset: u64, data: &[u8]) {
    let (mut body, mut payload) = (Vec::new(), Vec::new());
    let write = Mutation::Write { ino, offset, flags: WriteFlags::default(), data };
    mutation::encode(&mut body, &mut payload, Origin::waited(Ticket(ticket), Caller::ROOT), &write);
    let outcomes = volume.apply(SessionId(session), &body, &payload, ticket).unwrap();
    let done = waited(&outcomes)[0].result.unwrap();
    assert_eq!(done.bytes, data.len() as u64);
}

fn read(volume: &Volume, ino: Ino) -> Vec<u8> {
    let len = u32::try_from(FILE_BYTES).unwrap();
    match volume.query(SessionId(1), &Query::Read { ino, offset: 0, len }) {
        Ok(Found::Data(data)) => data.to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn readers_see_whole_writes_while_chunks_move_under_them() {
    let rig = Rig::with(volume());
    let files = ["a", "b"].map(|text| rig.file(ROOT, text));
    for ino in files {
        rig.write(ino, 0, &vec![1; usize::try_from(FILE_BYTES).unwrap()]).unwrap();
    }
    let volume = &rig.volume;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = files
            .iter()
            .map(|&ino| {
                let stop = &stop;
                scope.spawn(move || {
                    let mut reads = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let data = read(volume, ino);
                        assert_eq!(data.len() as u64, FILE_BYTES);
                        for block in data.chunks(usize::try_from(BLOCK_BYTES).unwrap()) {
                            assert!(block.iter().all(|byte| *byte == block[0]), "a torn block");
                        }
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        let writers: Vec<_> = (0..2u64)
            .map(|writer| {
                scope.spawn(move || {
                    for ticket in 1..=1500u64 {
                        let ino = files[usize::try_from((ticket + writer) % 2).unwrap()];
                        let offset = (ticket * 7 + writer) % (FILE_BYTES / BLOCK_BYTES) * BLOCK_BYTES;
                        let data =
                            vec![u8::try_from(ticket % 251).unwrap(); usize::try_from(BLOCK_BYTES).unwrap()];
                        write(volume, u128::from(writer) + 100, ticket, ino, offset, &data);
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
    // 3,000 KiB were written over 32 KiB of files: the collector gives back all but a few segments.
    let deadline = Instant::now() + Duration::from_secs(60);
    while volume.store().chunks().disk_bytes().unwrap() > 256 << 10 {
        assert!(Instant::now() < deadline, "dead chunks are not collected");
        std::thread::sleep(Duration::from_millis(5));
    }
    for ino in files {
        assert_eq!(read(volume, ino).len() as u64, FILE_BYTES);
    }
    volume.close().unwrap();
    let options = fsck::Options { verify_data: true, ..fsck::Options::default() };
    let report = fsck::check(volume.store(), options).unwrap();
    assert!(report.is_clean(), "{:?}", report.problems);
}

#[test]
fn a_truncation_in_steps_happens_once_while_others_go_on() {
    let rig = Rig::new();
    let f = rig.file(ROOT, "f");
    // From the end: nothing before it has to be looked at.
    for i in (0..EXTENTS_PER_STEP as u64 * 3).rev() {
        rig.write(f, i * 4, b"ab").unwrap();
    }
    let set = SetAttr { size: Some(5), ..SetAttr::default() };
    let (body, payload) = rig.batch(&Mutation::SetAttr { ino: f, set });
    let ticket = rig.last_ticket();
    let volume = &rig.volume;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let twice: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| volume.apply(rig.session, &body, &payload, ticket).unwrap()))
            .collect();
        let other = scope.spawn(|| {
            let mut offset = 0;
            while !done.load(Ordering::Relaxed) || offset == 0 {
                offset += 1;
                write(volume, 9, offset, f, 0, b"xy");
                let attr = volume.query(SessionId(9), &Query::GetAttr { ino: f }).unwrap();
                assert!(matches!(attr, Found::Attr(attr) if attr.size >= 5));
            }
        });
        let answers: Vec<Vec<u8>> = twice.into_iter().map(|thread| thread.join().unwrap()).collect();
        done.store(true, Ordering::Relaxed);
        other.join().unwrap();
        // Their commits differ: the record was read when others had committed more.
        assert_eq!(waited(&answers[0]), waited(&answers[1]));
    });
    assert_eq!(rig.read(f, 0, 100), Ok(b"xy\0\0a".to_vec()));
    assert_eq!(rig.volume.usage().unwrap().bytes, 3);
}

//! A store whose keys and values are any bytes: `u8 kind, u16 value bytes` (little-endian), the value, again and again. The
//! kind says which key; [`RAW`] stands before a key of its own (`u8 key bytes`, the key). All readers run over it, then
//! the writers that cut and join what is there.

use ringfs::base::{ChunkId, ChunkPlace, Ino, Name, SegmentId, SessionId};
use ringfs::server::meta::extents::Extent;
use ringfs::server::meta::memory::MemoryEngine;
use ringfs::server::meta::{
    Changes, Engine, NameHash, Order, Txn, WriteTxn, attributes, chunk_table, counters, dirents, extents,
    inodes, keys, sessions, superblock,
};
use std::ops::ControlFlow::Continue;

/// The key follows the kind.
pub const RAW: u8 = 255;

/// The secret of the hash of names here.
pub const NAME_KEY: [u8; 16] = [7; 16];

/// Inode that most keys are of.
pub const INO: Ino = Ino(20);

/// Items read from one input at most: what a store of this size costs is the same for each.
const ITEMS_MAX: usize = 64;

/// One input.
pub fn run(data: &[u8]) {
    let engine = load(data);
    read(&engine);
    write(&engine);
}

fn key_of(kind: u8) -> Vec<u8> {
    match kind % 12 {
        0 => keys::SUPERBLOCK.to_vec(),
        1 => keys::USAGE.to_vec(),
        2 => keys::NEXT_INO.to_vec(),
        3 => keys::inode(INO).to_vec(),
        4 => keys::dirent(INO, u64::from(kind)).to_vec(),
        5 => keys::xattr(INO, b"user.x"),
        6 => keys::symlink(INO).to_vec(),
        7 => keys::extent(INO, u64::from(kind) * 64).to_vec(),
        8 => keys::chunk(ChunkId(u64::from(kind / 12))).to_vec(),
        9 => keys::segment(SegmentId(u32::from(kind / 12))).to_vec(),
        10 => keys::session(SessionId(u128::from(kind))).to_vec(),
        _ => keys::result(SessionId(1), u64::from(kind)).to_vec(),
    }
}

fn load(data: &[u8]) -> MemoryEngine {
    let engine = MemoryEngine::new();
    let mut changes = Changes::default();
    let mut rest = data;
    while let Some((&[kind, low, high], tail)) = rest.split_first_chunk::<3>()
        && changes.len() < ITEMS_MAX
    {
        let mut tail = tail;
        let key = match (kind, tail.split_first()) {
            (RAW, Some((&bytes, after))) => {
                let (key, after) = after.split_at(usize::from(bytes).min(after.len()));
                tail = after;
                key.to_vec()
            }
            _ => key_of(kind),
        };
        let (value, after) = tail.split_at(usize::from(u16::from_le_bytes([low, high])).min(tail.len()));
        rest = after;
        changes.put(&key, value);
    }
    drop(engine.commit(&changes));
    engine
}

/// Results do not matter here, only that there is one: a fault names what is damaged.
fn read(engine: &MemoryEngine) {
    let hash = NameHash::new(NAME_KEY);
    if let Ok(Some(superblock)) = superblock::get(engine) {
        drop(superblock.name_hash());
        assert!(superblock.uuid_text().len() <= 2 * superblock.uuid.len() + 4);
    }
    drop((counters::usage(engine), counters::next_ino(engine), counters::next_chunk(engine)));
    let mut inos = vec![INO];
    drop(inodes::each(engine, Ino(0), &mut |inode| {
        if let Ok(inode) = inode {
            let _shown = (inode.attr(), inode.kind());
            inos.push(inode.ino);
        }
        Continue(())
    }));
    for &ino in &inos {
        let mut last = 0;
        drop(dirents::list(engine, ino, 0, &mut |entry| {
            assert!(i64::try_from(entry.cookie).is_ok());
            last = entry.cookie;
            Continue(())
        }));
        drop(dirents::list(engine, ino, last, &mut |_| Continue(())));
        for order in [Order::Forward, Order::Reverse] {
            drop(extents::each(engine, ino, 100..5000, order, &mut |extent| {
                let part = extent.cut(&(100..5000));
                assert!(part.start >= 100 && part.end() <= 5000);
                Continue(())
            }));
        }
        drop(attributes::each_xattr(engine, ino, &mut |_, _| Continue(())));
    }
    dirents::each(engine, &hash, &mut |_, _| {}).expect("memory can be read");
    drop(extents::each_of_all(engine, &mut |extent| {
        if let Ok((_, extent)) = extent {
            assert!(extent.end() > extent.start);
        }
        Continue(())
    }));
    drop(chunk_table::each(engine, &mut |chunk| {
        if let Ok((_, chunk)) = chunk {
            assert!(chunk.place.record_bytes() >= u64::from(chunk.place.len));
        }
        Continue(())
    }));
    drop(chunk_table::each_live(engine, &mut |_| Continue(())));
    drop(sessions::each(engine, &mut |_, _| Continue(())));
    drop(sessions::each_result(engine, SessionId(1), &mut |_, _| Continue(())));
    drop(sessions::each_orphan(engine, &mut |_| Continue(())));
    drop(sessions::mark(engine, SessionId(1)));
    drop(sessions::each_mark(engine, &mut |_| Continue(())));
}

fn write(engine: &MemoryEngine) {
    let hash = NameHash::new(NAME_KEY);
    let name = Name::parse(b"name").expect("a name");
    let target = dirents::Target { ino: INO, kind: ringfs::base::Kind::File };
    let mut txn = WriteTxn::new(engine);
    drop(dirents::put(&mut txn, &hash, INO, name, target));
    drop(dirents::find(&txn, &hash, INO, name));
    drop(dirents::remove(&mut txn, &hash, INO, name));
    drop(extents::punch(&mut txn, INO, 300..700));
    let place = ChunkPlace { segment: SegmentId(1), position: 16, len: 4096 };
    let chunk = ChunkId(1 << 40);
    if chunk_table::add(&mut txn, chunk, place).is_ok() {
        drop(extents::put(&mut txn, INO, &Extent { start: 200, len: 400, chunk, offset: 0 }));
    }
    drop(
        extents::only(&txn, INO, 500)
            .map(|found| found.map(|extent| extents::remove(&mut txn, INO, &extent))),
    );
    drop(extents::share(&mut txn, INO, 0..1000, Ino(21), 50));
    drop(chunk_table::relocate(&mut txn, ChunkId(1), place, ChunkPlace { position: 5000, ..place }));
    txn.add_usage(-1, -1);
    drop(counters::take_inos(&mut txn, 3));
    drop((counters::take_chunks(&mut txn, u64::MAX), counters::next_epoch(&mut txn)));
    drop(sessions::delete(&mut txn, SessionId(1)));
    txn.commit().expect("memory takes everything");
}

//! Segments: any bytes as the file of one, walked and read as after a crash. Then once more with the checksum of the first
//! header made right, since chance would never get past it.

use ringfs::base::limits::CHUNK_BYTES_MAX;
use ringfs::base::place::{CHECKSUM_BLOCK_BYTES, RECORD_HEADER_BYTES};
use ringfs::base::{ChunkId, ChunkPlace, SegmentId};
use ringfs::server::chunks::ChunkStore;
use ringfs::server::chunks::local::{LocalChunks, LocalOptions};
use ringfs::wire::frame::crc32c;
use std::ops::ControlFlow;
use std::path::Path;

const SEGMENT: SegmentId = SegmentId(1);

/// Where the first record begins.
const FIRST: usize = 16;

/// One input.
pub fn run(data: &[u8]) {
    let folder = std::env::temp_dir().join(format!("ringfs-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the folder of temporary files can be written");
    walk(&folder, data);
    let mut sealed = data.to_vec();
    if seal(&mut sealed) {
        walk(&folder, &sealed);
    }
    std::fs::remove_dir_all(&folder).expect("a folder of our own");
}

fn walk(folder: &Path, data: &[u8]) {
    std::fs::write(folder.join(format!("{SEGMENT}.seg")), data).expect("a file");
    if data.first().is_some_and(|byte| byte % 2 == 0) {
        std::fs::write(folder.join("clean"), data).expect("a file");
    }
    let (store, found) = LocalChunks::open(folder, &LocalOptions::default()).expect("a folder");
    assert!(found.torn_bytes <= data.len() as u64);
    let mut records = Vec::new();
    let skipped = store.records(SEGMENT, &mut |record| {
        records.push(record);
        ControlFlow::Continue(())
    });
    let taken: u64 = records.iter().map(|record| record.place.record_bytes()).sum();
    let skipped = skipped.expect("the file can be read");
    assert!(taken + skipped <= data.len() as u64, "{taken} + {skipped} of {}", data.len());
    for record in records {
        let place = record.place;
        let mut bytes = vec![0; place.len as usize];
        // Its header is right, its bytes need not be.
        drop(store.read(record.tag.chunk, place, 0, &mut bytes));
        let from = place.len / 3;
        drop(store.read(record.tag.chunk, place, from, &mut bytes[..(place.len - from) as usize / 2]));
    }
    let nowhere = ChunkPlace { segment: SEGMENT, position: 24, len: 100 };
    assert!(store.read(ChunkId(u64::MAX), nowhere, 99, &mut [0; 2]).is_err());
}

/// Makes the first record one that a reader would believe; says whether there is room for one.
fn seal(data: &mut [u8]) -> bool {
    const HEAD: usize = RECORD_HEADER_BYTES as usize;
    let Some(record) = data.get_mut(FIRST..).filter(|record| record.len() > HEAD) else { return false };
    record[..4].copy_from_slice(b"rCHK");
    let Some(len) = record[24..].first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes) as usize) else {
        return false;
    };
    let head = HEAD + 4 * len.div_ceil(CHECKSUM_BLOCK_BYTES as usize);
    if len > CHUNK_BYTES_MAX || head > record.len() {
        return false;
    }
    let covered =
        [&SEGMENT.0.to_le_bytes()[..], &u32::try_from(FIRST).unwrap_or(0).to_le_bytes(), &record[8..head]];
    let sum = crc32c(&covered.concat());
    record[4..8].copy_from_slice(&sum.to_le_bytes());
    true
}

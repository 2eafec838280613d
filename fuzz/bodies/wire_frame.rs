//! Frames: `u16 payload bytes` (little-endian), then header and body, or a body alone, then the payload. Every decoder gets
//! every body: what it accepts must survive the way back and there again.

use ringfs::wire::frame::{HEADER_BYTES, MAGIC, crc32c};
use ringfs::wire::{Header, Told, answer, lease, mutation, notice, outcome, query};

/// Bytes of the smallest record: nothing may make more items than this allows.
const RECORD_BYTES_MIN: usize = 8;

/// One input.
pub fn run(data: &[u8]) {
    let Some((payload_bytes, rest)) = data.split_first_chunk::<2>() else { return };
    let at = rest.len().saturating_sub(usize::from(u16::from_le_bytes(*payload_bytes)));
    let (frame, payload) = rest.split_at(at);
    bodies(frame, payload);
    if let Some((head, body)) = frame.split_first_chunk::<HEADER_BYTES>() {
        header(head);
        // Checksums keep chance out; a peer that means harm computes them.
        let mut sealed = *head;
        sealed[..4].copy_from_slice(&MAGIC.to_le_bytes());
        let sum = crc32c(&sealed[..60]);
        sealed[60..].copy_from_slice(&sum.to_le_bytes());
        header(&sealed);
        bodies(body, payload);
    }
}

fn header(bytes: &[u8; HEADER_BYTES]) {
    if let Ok(header) = Header::decode(bytes) {
        assert_eq!(Header::decode(&header.encode()).as_ref(), Ok(&header));
    }
}

fn bodies(body: &[u8], payload: &[u8]) {
    if let Ok(query) = query::decode(body) {
        let mut again = Vec::new();
        query::encode(&mut again, &query);
        assert_eq!(query::decode(&again).as_ref(), Ok(&query));
    }
    if let Ok((answer, grants)) = answer::decode(body, payload) {
        let mut again = Vec::new();
        answer::encode(&mut again, &answer);
        let granted: Vec<_> = grants.iter().collect();
        lease::encode_grants(&mut again, &granted);
        let (answer_again, grants_again) = answer::decode(&again, payload).expect("just made");
        assert_eq!((answer_again, grants_again.iter().collect()), (answer, granted));
    }
    notices(body);
    outcomes(body);
    batch(body, payload);
}

fn notices(body: &[u8]) {
    let (mut again, mut found) = (Vec::new(), Vec::new());
    for item in notice::decode(body).map_while(Result::ok) {
        notice::encode(&mut again, &item);
        found.push(item);
    }
    assert!(found.len() <= body.len() / RECORD_BYTES_MIN);
    assert_eq!(notice::decode(&again).collect::<Result<Vec<_>, _>>(), Ok(found));
}

fn outcomes(body: &[u8]) {
    let Ok(outcomes) = outcome::decode(body) else { return };
    let (mut again, mut found) = (Vec::new(), Vec::new());
    outcome::begin(&mut again, outcomes.commit());
    for item in outcomes.map_while(Result::ok) {
        match &item {
            Told::Ran { first, last } => outcome::encode_ran(&mut again, *first, *last),
            Told::One(outcome) => outcome::encode(&mut again, outcome),
        }
        found.push(item);
    }
    assert!(found.len() <= body.len() / RECORD_BYTES_MIN);
    let back = outcome::decode(&again).expect("what was encoded");
    assert_eq!(back.collect::<Result<Vec<_>, _>>(), Ok(found));
}

fn batch(body: &[u8], payload: &[u8]) {
    let (mut body_again, mut payload_again, mut found) = (Vec::new(), Vec::new(), Vec::new());
    for (origin, mutation) in mutation::decode_batch(body, payload).map_while(Result::ok) {
        if let Ok(mutation) = mutation {
            mutation::encode(&mut body_again, &mut payload_again, origin, &mutation);
            found.push((origin, Ok(mutation)));
        }
    }
    assert!(found.len() <= body.len() / RECORD_BYTES_MIN);
    assert!(payload_again.len() <= payload.len(), "writes name more bytes than came");
    let again: Result<Vec<_>, _> = mutation::decode_batch(&body_again, &payload_again).collect();
    assert_eq!(again, Ok(found));
}

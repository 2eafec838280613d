//! A change that could be completed here, while one of the same is on its way to the server.

use super::late::leased;
use super::{FILE, attr, told};
use crate::base::Caller;
use crate::client::ops::data;
use crate::kernel::abi::WriteIn;
use crate::wire::{Done, Frame, FrameKind, Mutation, Outcome, WriteFlags, mutation, outcome};
use std::sync::mpsc::channel;

#[test]
fn what_a_change_on_its_way_touches_is_changed_here_when_that_has_its_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let b = leased(folder.path());
    b.grant();
    let handle = b.open(FILE, false);
    // Too large to be completed here.
    let data = vec![1; 200 << 10];
    let flags = WriteFlags { append: true, kill_suidgid: false };
    let (tell, hears) = channel();
    let large = Mutation::Write { ino: FILE, offset: 0, flags, data: &data };
    b.mount.mutate(Caller { uid: 0, gid: 0, pid: 1 }, &large, move |result, _| tell.send(result).unwrap());
    let (frame, reply) = b.awaited();
    assert_eq!(frame.header.kind, FrameKind::Batch);
    // What is known of the file meanwhile may be older.
    b.grant();
    let (small, heard) = told();
    let args = WriteIn { fh: handle.0, offset: 1, size: 2, ..WriteIn::default() };
    data::write(b.cx(FILE), &args, b"ab")(small);
    heard.nothing();
    assert!(b.next().is_none(), "it is not sent either");
    let (origin, _) = mutation::decode_batch(&frame.body, &frame.payload).next().unwrap().unwrap();
    let done = Done { attr: Some(attr(FILE)), bytes: data.len() as u64, ..Done::default() };
    let mut body = Vec::new();
    outcome::begin(&mut body, 1);
    outcome::encode(&mut body, &Outcome { ticket: origin.ticket, result: Ok(done) });
    let header = frame.header;
    reply(Frame::new(FrameKind::Outcomes, 1, header.session, header.sequence, body, bytes::Bytes::new()));
    assert_eq!(hears.recv().unwrap(), Ok(done));
    heard.now().expect("it is answered here");
}

//! A change that was answered here and that the server refuses afterwards.

use super::{Bench, FILE, Script, attr, told};
use crate::base::{Errno, HandleId};
use crate::client::late;
use crate::client::link::{LinkOptions, Target};
use crate::client::mount::{Mount, Options};
use crate::client::ops::{attributes, data, open};
use crate::kernel::abi::{FlushIn, FsyncIn, WriteIn};
use crate::wire::hello::Welcome;
use crate::wire::{
    Answer, Frame, FrameKind, Grant, LeaseMode, Mutation, Outcome, Peer, Query, Reply, answer, lease,
    mutation, outcome, query,
};
use std::sync::Arc;

/// A mount with leases and a rescue area in the folder.
pub(super) fn leased(folder: &std::path::Path) -> Bench {
    let server = Arc::new(Script::default());
    let peer: Arc<dyn Peer> = Arc::<Script>::clone(&server);
    let welcome = Welcome { lease_ms: 60_000, name_key: vec![7; 16], ..Welcome::default() };
    let target = Target::Local { peer, welcome, notices: Arc::default() };
    let link = LinkOptions { leases: true, ..LinkOptions::new("/test").unwrap() };
    let late = late::LateOptions { rescue: Some(folder.to_owned()), ..late::LateOptions::default() };
    let (mount, _) = Mount::open(target, link, Options::default(), late).unwrap();
    Bench { mount, server }
}

impl Bench {
    /// The next frame, if there is one. A wish for inode numbers stays unanswered.
    pub(super) fn next(&self) -> Option<(Frame, Reply)> {
        while !self.server.is_quiet() {
            let (frame, reply) = self.server.take();
            if !matches!(query::decode(&frame.body), Ok(Query::Numbers { .. })) {
                return Some((frame, reply));
            }
        }
        None
    }

    /// The next frame, from whatever thread.
    pub(super) fn awaited(&self) -> (Frame, Reply) {
        loop {
            match self.next() {
                Some(next) => return next,
                None => std::thread::yield_now(),
            }
        }
    }

    /// The file's attributes are asked for, and come with a lease.
    pub(super) fn grant(&self) {
        let (reply, heard) = told();
        attributes::getattr(self.cx(FILE))(reply);
        let (frame, reply) = self.awaited();
        assert_eq!(query::decode(&frame.body), Ok(Query::GetAttr { ino: FILE }));
        let mut body = Vec::new();
        answer::encode(&mut body, &Ok(Answer::Attr(attr(FILE))));
        let grant =
            Grant { ino: FILE, mode: LeaseMode::Exclusive, number: frame.header.sequence, plain: true };
        lease::encode_grants(&mut body, &[grant]);
        let header = frame.header;
        reply(Frame::new(FrameKind::Answer, 1, header.session, header.sequence, body, bytes::Bytes::new()));
        heard.now().unwrap();
    }

    /// Writes, which is answered here.
    fn write(&self, handle: HandleId, bytes: &[u8]) {
        let (reply, heard) = told();
        let size = u32::try_from(bytes.len()).unwrap();
        let args = WriteIn { fh: handle.0, offset: 1, size, ..WriteIn::default() };
        data::write(self.cx(FILE), &args, bytes)(reply);
        heard.now().expect("it is answered here");
    }

    /// The batch that was sent; all of it is refused, or done.
    fn batch(&self, refused: Option<Errno>) {
        let (frame, reply) = self.awaited();
        assert_eq!(frame.header.kind, FrameKind::Batch);
        let mut body = Vec::new();
        outcome::begin(&mut body, 1);
        for read in mutation::decode_batch(&frame.body, &frame.payload) {
            let (origin, mutation) = read.unwrap();
            assert!(origin.at.is_some() && matches!(mutation, Ok(Mutation::Write { .. })));
            match refused {
                None => outcome::encode_ran(&mut body, origin.ticket, origin.ticket),
                Some(errno) => {
                    outcome::encode(&mut body, &Outcome { ticket: origin.ticket, result: Err(errno) });
                }
            }
        }
        let header = frame.header;
        reply(Frame::new(FrameKind::Outcomes, 1, header.session, header.sequence, body, bytes::Bytes::new()));
    }

    /// Answers a sync: all is durable.
    fn sync(&self, next: (Frame, Reply)) {
        self.server.0.lock().unwrap().push_front(next);
        self.server.synced(1);
    }

    /// What an fsync tells. `batch`: what becomes of what was not sent before; a sync is answered when it is asked for.
    fn fsync(&self, handle: HandleId, batch: Option<Option<Errno>>) -> Result<(), Errno> {
        let (reply, heard) = told();
        data::fsync(self.cx(FILE), &FsyncIn { fh: handle.0, ..FsyncIn::default() })(reply);
        if let Some(refused) = batch {
            self.batch(refused);
        }
        loop {
            if let Ok(result) = heard.0.try_recv() {
                return result.map(|_| ());
            }
            if let Some(next) = self.next() {
                self.sync(next);
            }
            std::thread::yield_now();
        }
    }
}

#[test]
fn each_descriptor_is_told_once_what_the_server_refused_and_the_data_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let b = leased(&folder.path().join("rescue"));
    b.grant();
    let (first, second) = (b.open(FILE, false), b.open(FILE, false));
    b.write(first, b"ok");
    assert_eq!(b.fsync(first, Some(None)), Ok(()));
    b.write(first, b"lost");
    assert_eq!(b.fsync(first, Some(Some(Errno::ENOSPC))), Err(Errno::ENOSPC));
    assert_eq!(b.fsync(first, None), Ok(()), "once");
    let args = FlushIn { fh: second.0, ..FlushIn::default() };
    let (reply, heard) = told();
    open::flush(b.cx(FILE), &args).expect("there is something to tell")(reply);
    assert_eq!(heard.now(), Err(Errno::ENOSPC), "a close tells too");
    assert_eq!(b.fsync(second, None), Ok(()));
    let third = b.open(FILE, false);
    assert_eq!(b.fsync(third, None), Ok(()), "it was told to others");

    let report = b.mount.late().report();
    let [line] = &report.failures[..] else { panic!("{report:?}") };
    assert_eq!((line.op.as_str(), line.ino, line.errno.as_str()), ("write", FILE.0, "ENOSPC"));
    b.mount.late().finish();
    let items = late::list(&folder.path().join("rescue")).unwrap();
    assert_eq!((items.len(), items[0].bytes), (1, 4));
    assert_eq!(&std::fs::read(&items[0].data).unwrap()[1..], b"lost");
    let (tell, hears) = std::sync::mpsc::channel();
    b.mount.flush(move |result| tell.send(result).unwrap());
    b.sync(b.awaited());
    assert_eq!(hears.recv().unwrap(), Err(Errno::ENOSPC), "so is who flushes the whole mount");
}

//! Admission: a request begins when no lease of another session is in its way; until then it is parked, outside of its
//! connection's order, and begun anew. What it finds on its way is checked after the look.

use super::Core;
use super::dispatch::{Answering, Membership, refuse};
use super::needs::{self, Through};
use crate::base::limits::FRAME_BODY_BYTES_MAX;
use crate::base::{Errno, Ino, Name};
use crate::server::apply::Found;
use crate::server::session::{Held, InHand, Parked, Stamp};
use crate::wire::{Frame, FrameKind, Mutation, Query, WireFault, answer, lease, mutation, query};
use bytes::Bytes;
use std::sync::Arc;

/// Longest answer to `ReadDir`; leaves room for the record around the last entry, and for grants.
const LISTING_BYTES_MAX: u32 = 1500 << 10;

const _: () = {
    let entries = LISTING_BYTES_MAX as usize / answer::entry_bytes(1, true) + 1;
    assert!(LISTING_BYTES_MAX as usize + 4096 + lease::grants_bytes(entries + 1) <= FRAME_BODY_BYTES_MAX);
};

/// A frame whose work has not begun, and where its answer goes.
pub(super) type Request = (Frame, Answering);

impl Core {
    /// Parks a request while grace runs; `None`: it waits, or was refused.
    pub(super) fn thawed(self: &Arc<Self>, member: &Membership, request: Request) -> Option<Request> {
        let park = |given| self.park(member, given);
        match self.sessions.leases.freeze(member.session.id, request, park) {
            Ok(request) => Some(request),
            Err(Held::Parked) => None,
            Err(Held::Full((frame, answering))) => {
                drop(refuse(&frame, Errno::EAGAIN, answering));
                None
            }
        }
    }

    /// What is kept of a request that waits.
    pub(super) fn park(self: &Arc<Self>, member: &Membership, (frame, answering): Request) -> Parked {
        let (core, member) = (Arc::clone(self), member.clone());
        let (session, link) = (member.session.id, member.link);
        let bytes = frame.body.len() + frame.payload.len();
        let run = Box::new(move || {
            let session = Arc::clone(&member.session);
            match core.sessions.take(&session, member.link) {
                Ok(in_hand) => {
                    if let Err(fault) = core.work(&in_hand, &member, frame, answering) {
                        tracing::warn!(session = %session.id, "a request that waited: {fault}");
                    }
                }
                Err(errno) if session.is_over() => drop(refuse(&frame, errno, answering)),
                // Its connection went away in this moment, as it does when a server ends: the client sends it again on the next
                // one, and must not hear of an error from this one.
                Err(_) => {}
            }
        });
        Parked { session, link, bytes, run }
    }

    /// What is kept of a batch that is done again: it is done also when its connection is gone by then, as long as the session is
    /// not. Sent once more it is answered from the record.
    fn park_again(self: &Arc<Self>, member: &Membership, (frame, answering): Request) -> Parked {
        let (core, member) = (Arc::clone(self), member.clone());
        let (session, link) = (member.session.id, member.link);
        let bytes = frame.body.len() + frame.payload.len();
        let run = Box::new(move || {
            let session = Arc::clone(&member.session);
            match core.sessions.take_of_any(&session) {
                Ok(_in_hand) => {
                    if let Err(fault) = core.execute(&member, (frame, answering)) {
                        tracing::warn!(session = %session.id, "a batch that was to be done again: {fault}");
                    }
                }
                Err(errno) if session.is_over() => drop(refuse(&frame, errno, answering)),
                // Its connection went away in this moment, as it does when a server ends: the client sends it again on the next
                // one, and must not hear of an error from this one.
                Err(_) => {}
            }
        });
        Parked { session, link, bytes, run }
    }

    /// A batch that was sent to the server before, too. What that had done is answered from the record, unless it was lost with
    /// the power: then it is done again when everybody has sent what was lost to him, in the order of the commits in which it
    /// was done, since one client's changes stand on another's. What nobody has answered comes last.
    pub(super) fn again(
        self: &Arc<Self>,
        in_hand: &InHand<'_>,
        member: &Membership,
        request: Request,
    ) -> Result<(), WireFault> {
        let (frame, id) = (&request.0, in_hand.session().id);
        if self.volume.has_done(id, &frame.body, &frame.payload) {
            return self.execute(member, request);
        }
        let order = if frame.header.before == 0 { u64::MAX } else { frame.header.before };
        let park = |given| self.park_again(member, given);
        match self.sessions.leases.queue(id, order, request, park) {
            Err(()) => Ok(()),
            // There is no room. Nobody has been granted anything since the restart.
            Ok(request) if self.sessions.replays(id) => self.execute(member, request),
            Ok(request) => self.batch(in_hand, member, request),
        }
    }

    /// A query that tells of `ino`.
    pub(super) fn ask(
        self: &Arc<Self>,
        in_hand: &InHand<'_>,
        member: &Membership,
        ino: Ino,
        request: Request,
    ) {
        let (session, leases) = (in_hand.session().id, &self.sessions.leases);
        let mut inos = vec![ino];
        let mut request = Some(request);
        loop {
            let Some(given) = request.take() else { return };
            let now = self.sessions.now();
            let begun = leases.begin_read(session, &inos, now, given, |given| self.park(member, given));
            let ((frame, answering), stamp) = match begun {
                Ok(begun) => begun,
                Err(Held::Parked) => return,
                Err(Held::Full((frame, answering))) => return drop(refuse(&frame, Errno::EAGAIN, answering)),
            };
            let Ok(query) = query::decode(&frame.body) else { return answering.done(Err(Errno::EPROTO)) };
            match self.look(member, &query, stamp, ino) {
                Ok((body, payload, granting)) => {
                    answering.frame(FrameKind::Answer, body, payload);
                    if let Some(granting) = granting {
                        leases.sent(granting);
                    }
                    return;
                }
                Err(more) => {
                    inos.truncate(1);
                    inos.extend(more);
                    request = Some((frame, answering));
                }
            }
        }
    }

    /// Looks, and ends the read that began at `stamp`. `Err`: these inodes too are to be asked for, and then looked again.
    fn look(
        &self,
        member: &Membership,
        query: &Query<'_>,
        stamp: Stamp,
        ino: Ino,
    ) -> Result<(Vec<u8>, Bytes, Option<crate::server::session::Granting>), Vec<Ino>> {
        let (session, leases) = (member.session.id, &self.sessions.leases);
        let shorter = match *query {
            Query::ReadDir { ino, cookie, bytes_max, plus } => {
                Some(Query::ReadDir { ino, cookie, bytes_max: bytes_max.min(LISTING_BYTES_MAX), plus })
            }
            _ => None,
        };
        let mut result = self.volume.query(session, shorter.as_ref().unwrap_or(query));
        let mut told = vec![ino];
        let mut found = Vec::new();
        match &mut result {
            Ok(Found::Attr(attr)) if attr.ino != ino => {
                found.push(attr.ino);
                told.push(attr.ino);
            }
            Ok(Found::Listing(listing)) => {
                let foreign = leases.foreign(session, stamp, listing.entries().map(|entry| entry.ino));
                listing.hide(|ino| foreign.contains(&ino));
                told.extend(listing.entries().filter(|entry| entry.attr.is_some()).map(|entry| entry.ino));
            }
            // What is not there at all has no directory to be leased, or an inode that is gone.
            Err(errno) if *errno != Errno::ENOENT => told.clear(),
            _ => {}
        }
        let grants = member.leases && needs::grants(query);
        let told = if grants { &told[..] } else { &[] };
        let (mut grants, granting) = leases.end_read(session, stamp, &found, told, self.sessions.now())?;
        // Nobody else can change that before the answer is sent, and the recall of the grant after it.
        self.volume.mark_plain(&mut grants);
        let mut body = Vec::new();
        let payload = Found::encode(&result, &mut body);
        lease::encode_grants(&mut body, &grants);
        Ok((body, payload, granting))
    }

    /// A batch. Local mutations are executed at once, in their order: the gate of the volume asks for each whether a lease
    /// is in its way. Waited ones wait.
    pub(super) fn batch(
        self: &Arc<Self>,
        in_hand: &InHand<'_>,
        member: &Membership,
        request: Request,
    ) -> Result<(), WireFault> {
        let id = in_hand.session().id;
        let waited = |frame: &Frame| {
            let mut all = mutation::decode_batch(&frame.body, &frame.payload);
            all.any(|one| one.is_ok_and(|(origin, _)| origin.at.is_none()))
        };
        if !waited(&request.0) {
            return self.execute(member, request);
        }
        let (writes, reads) = named(&request.0);
        let leases = &self.sessions.leases;
        let park = |given| self.park(member, given);
        let begun = leases.begin_write(id, &writes, &reads, self.sessions.now(), request, park);
        let request = match begun {
            Ok(request) => request,
            Err(held) => return not_now(held),
        };
        let (more, reads) = self.found(member, &request.0, &writes);
        let begun = leases.begin_write(id, &more, &reads, self.sessions.now(), request, park);
        let result = match begun {
            Ok(request) => {
                let result = self.execute(member, request);
                leases.end_write(&more);
                result
            }
            Err(held) => not_now(held),
        };
        leases.end_write(&writes);
        result
    }

    fn execute(&self, member: &Membership, (frame, answering): Request) -> Result<(), WireFault> {
        let id = member.session.id;
        match self.volume.apply(id, &frame.body, &frame.payload, frame.header.settled) {
            Ok(outcomes) => {
                self.sessions.leases.told(id, self.volume.committed());
                answering.frame(FrameKind::Outcomes, outcomes, Bytes::new());
                Ok(())
            }
            Err(fault) => {
                answering.done(Err(Errno::EPROTO));
                Err(fault)
            }
        }
    }

    /// The inodes that the names of a batch stand for: those it will change, without those it has said itself, and those it
    /// will tell of.
    fn found(&self, member: &Membership, frame: &Frame, said: &[Ino]) -> (Vec<Ino>, Vec<Ino>) {
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        for mutation in mutations(frame) {
            for (parent, name, through) in needs::of_mutation(&mutation).names.into_iter().flatten() {
                let Some(ino) = self.stands_for(member, parent, name) else { continue };
                match through {
                    Through::Write if !said.contains(&ino) && !writes.contains(&ino) => writes.push(ino),
                    Through::Write => {}
                    Through::Read => reads.push(ino),
                }
            }
        }
        (writes, reads)
    }

    fn stands_for(&self, member: &Membership, parent: Ino, name: Name<'_>) -> Option<Ino> {
        match self.volume.query(member.session.id, &Query::Lookup { parent, name }) {
            Ok(Found::Attr(attr)) => Some(attr.ino),
            _ => None,
        }
    }
}

/// The inodes that the mutations of a batch name: those they change, and those they tell of.
fn named(frame: &Frame) -> (Vec<Ino>, Vec<Ino>) {
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for mutation in mutations(frame) {
        let needs = needs::of_mutation(&mutation);
        writes.extend_from_slice(needs.writes.as_slice());
        reads.extend_from_slice(needs.reads.as_slice());
    }
    writes.sort_unstable();
    writes.dedup();
    (writes, reads)
}

fn mutations(frame: &Frame) -> impl Iterator<Item = Mutation<'_>> {
    mutation::decode_batch(&frame.body, &frame.payload).filter_map(|one| one.ok()?.1.ok())
}

fn not_now(held: Held<Request>) -> Result<(), WireFault> {
    if let Held::Full((frame, answering)) = held {
        refuse(&frame, Errno::EAGAIN, answering)?;
    }
    Ok(())
}

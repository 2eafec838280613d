//! The thread that receives on one connection: frames are checked, matched with their requests, and given to
//! whoever waits. It ends with the connection, and tells the link's thread why.

use super::LinkFault;
use super::answers;
use super::channel::{Lane, Live, Taken};
use super::remote::Shared;
use super::request::{Done, InFlight};
use crate::base::limits::{FRAME_BODY_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX};
use crate::wire::frame::HEADER_BYTES;
use crate::wire::{FrameKind, Grants, Header, Notice, WireFault, notice};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

/// Starts the thread.
pub(super) fn start(shared: Arc<Shared>, lane: Lane, live: Live) -> Result<JoinHandle<()>, LinkFault> {
    let name = match lane {
        Lane::Metadata => "link-meta",
        Lane::Data => "link-data",
    };
    let body = move || {
        // Tells the link's thread also when a closure panicked.
        let mut ended = Ended { shared: &shared, generation: live.generation, lane, fault: None };
        ended.fault = Some(receive(&shared, lane, &live));
    };
    std::thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map_err(|cause| LinkFault::System { what: "thread", cause })
}

struct Ended<'a> {
    shared: &'a Shared,
    generation: u64,
    lane: Lane,
    fault: Option<LinkFault>,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let fault =
            self.fault.take().unwrap_or_else(|| self.shared.protocol("an answer made this program panic"));
        self.shared.broken(self.lane, self.generation, fault);
    }
}

/// Receives until the connection ends; says why it did.
fn receive(shared: &Shared, lane: Lane, live: &Live) -> LinkFault {
    // Whole frames lie in one piece, so that answers are borrowed from here. Grows to the largest frame that came.
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut start, mut end) = (0, 0);
    loop {
        let needed = match frames(shared, lane, live, &buffer[start..end]) {
            Ok((used, needed)) => {
                start += used;
                needed
            }
            Err(fault) => return fault,
        };
        if start == end {
            (start, end) = (0, 0);
        }
        if buffer.len() - start < needed {
            buffer.copy_within(start..end, 0);
            (start, end) = (0, end - start);
            if buffer.len() < needed {
                buffer.resize(needed, 0);
            }
        }
        match live.socket.read(&mut buffer[end..]) {
            Ok(0) => return LinkFault::Closed { target: shared.name(), what: "requests were going on" },
            Ok(read) => end += read,
            Err(cause) => return LinkFault::Broken { target: shared.name(), cause },
        }
    }
}

/// Handles the whole frames in `bytes`. Returns how many bytes they took, and how long the frame after them is, as far
/// as that is known.
fn frames(shared: &Shared, lane: Lane, live: &Live, bytes: &[u8]) -> Result<(usize, usize), LinkFault> {
    let wire = |cause| LinkFault::Wire { target: shared.name(), cause };
    let mut used = 0;
    loop {
        let rest = &bytes[used..];
        let Some((head, rest)) = rest.split_first_chunk::<HEADER_BYTES>() else {
            return Ok((used, HEADER_BYTES));
        };
        let header = Header::decode(head).map_err(wire)?;
        let (body_bytes, payload_bytes) = (header.body_bytes as usize, header.payload_bytes as usize);
        let whole = HEADER_BYTES + body_bytes + payload_bytes;
        if rest.len() < body_bytes + payload_bytes {
            return Ok((used, whole));
        }
        let (body, rest) = rest.split_at(body_bytes);
        header.check_body(body).map_err(wire)?;
        shared.heard(lane, whole);
        dispatch(shared, lane, live, &header, body, &rest[..payload_bytes])?;
        used += whole;
    }
}

fn dispatch(
    shared: &Shared,
    lane: Lane,
    live: &Live,
    header: &Header,
    body: &[u8],
    payload: &[u8],
) -> Result<(), LinkFault> {
    let wire = |cause: WireFault| LinkFault::Wire { target: shared.name(), cause };
    if header.session != live.session {
        return Err(shared.protocol("it sent a frame of another session"));
    }
    if header.version != live.version {
        return Err(shared.protocol("it changed the protocol version"));
    }
    if header.sequence >= shared.next_sequence.load(Ordering::Acquire) {
        return Err(shared.protocol("it answered what was not asked"));
    }
    let channel = shared.channel(lane);
    let log = lane == Lane::Metadata;
    match header.kind {
        FrameKind::Answer => {
            if log {
                // Before the closure: whoever asked for a sync then knows what it made durable.
                shared.durable(header.durable());
            }
            let (answer, grants) = answers::answer(header, body, payload).map_err(wire)?;
            let fits = |f: &InFlight| match f.done {
                Done::Call(_) if header.payload_bytes <= f.payload_bytes_max => Ok(()),
                Done::Call(_) => Err(shared.protocol("it sent more bytes than were asked for")),
                Done::Batch(..) | Done::Log(_) => {
                    Err(shared.protocol("it answered mutations as if they were a query"))
                }
            };
            match channel.take(live.generation, header.sequence, fits)? {
                Taken::Found(found) => {
                    shared.left(&found);
                    shared.lived(found.asked);
                    if let Done::Call(done) = found.done {
                        done(answer, if log { grants } else { Grants::default() });
                    }
                }
                Taken::Nobody => shared.ignored(),
            }
        }
        FrameKind::Outcomes => {
            let fits = |f: &InFlight| match &f.done {
                Done::Log(span)
                    if answers::log_outcomes(header, body).is_ok_and(|told| span.matches(&told)) =>
                {
                    Ok(())
                }
                Done::Batch(tickets, _)
                    if answers::outcomes(header, body)
                        .is_ok_and(|told| tickets.match_all(told.as_slice())) =>
                {
                    Ok(())
                }
                Done::Batch(..) | Done::Log(_) => Err(shared.protocol("it told outcomes of other mutations")),
                Done::Call(_) => Err(shared.protocol("it answered a query as if it were mutations")),
            };
            match channel.take(live.generation, header.sequence, fits)? {
                Taken::Found(found) => {
                    shared.left(&found);
                    shared.lived(found.asked);
                    match found.done {
                        Done::Batch(_, done) => {
                            done(Ok(answers::outcomes(header, body).map_err(wire)?.as_slice()));
                        }
                        Done::Log(span) => {
                            let outcomes = answers::log_outcomes(header, body).map_err(wire)?;
                            if let Some(owner) = shared.owner() {
                                owner.answered(span.first, &outcomes);
                            }
                        }
                        Done::Call(_) => {}
                    }
                }
                Taken::Nobody => shared.ignored(),
            }
        }
        FrameKind::Notice if log => notices(shared, body).map_err(wire)?,
        _ => return Err(shared.protocol("it sent a frame that only a client sends, or only in a handshake")),
    }
    // Behind outcomes that the frame brought, so that nothing is durable before it is known to be applied. One connection tells
    // it, so that it never goes back.
    if log {
        shared.durable(header.durable());
    }
    Ok(())
}

/// Recalls go to the owner together.
fn notices(shared: &Shared, body: &[u8]) -> Result<(), WireFault> {
    let mut recalls = Vec::new();
    for notice in notice::decode(body) {
        match notice {
            Ok(Notice::Recall(recall)) => recalls.push(recall),
            Ok(Notice::Durable) => {}
            // One of a later version, which does not count on being understood.
            Err(WireFault::Unknown { .. }) => shared.ignored(),
            Err(fault) => return Err(fault),
        }
    }
    if !recalls.is_empty()
        && let Some(owner) = shared.owner()
    {
        owner.recalled(&recalls);
    }
    Ok(())
}

/// Some hundred small answers, or a first piece of a large one.
const BUFFER_BYTES: usize = 64 << 10;

const _: () = assert!(
    HEADER_BYTES + FRAME_BODY_BYTES_MAX + FRAME_PAYLOAD_BYTES_MAX <= 8 << 20,
    "memory of one connection that received the largest frame"
);

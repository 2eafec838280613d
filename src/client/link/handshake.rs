//! What is said on a connection before requests: hello, proof of the secret, welcome; and the re-assertion of what
//! the session holds. All of it on the calling thread, each step with a deadline.

use super::options::{Held, random_bytes};
use super::socket::Socket;
use super::{LinkFault, LinkOptions};
use crate::base::{Errno, SessionId};
use crate::wire::frame::HEADER_BYTES;
use crate::wire::hello::{self, Challenge, Hello, Proof, Refusal, Welcome};
use crate::wire::{Frame, FrameKind, Header, Query, WireFault, query, version};
use bytes::Bytes;
use std::io;
use std::time::{Duration, Instant};

/// How a connection introduces itself.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) target: &'a str,
    pub(super) options: &'a LinkOptions,
    pub(super) session: SessionId,
    pub(super) resumed: bool,
    /// It is the connection for metadata of a client that wants leases.
    pub(super) leases: bool,
    /// Volume known from before, or nothing.
    pub(super) volume: &'a [u8],
}

impl Terms<'_> {
    /// Shakes hands.
    pub(super) fn shake(&self, socket: &Socket) -> Result<Welcome, LinkFault> {
        let deadline = Instant::now() + self.options.handshake_timeout;
        let nonce: [u8; NONCE_BYTES] = random_bytes()?;
        let hello = Hello {
            version_oldest: u32::from(version::OLDEST),
            version_newest: u32::from(version::NEWEST),
            session: self.session.0.to_le_bytes().to_vec(),
            resumed: self.resumed,
            host: self.options.host.clone(),
            pid: std::process::id(),
            mount_point: self.options.mount_point.clone(),
            nonce: nonce.to_vec(),
            volume: self.volume.to_vec(),
            observer: self.options.observer,
            leases: self.leases,
        };
        self.send_cold(socket, FrameKind::Hello, hello::encode(&hello), deadline)?;
        let mut frame = self.receive(socket, deadline, "handshake")?;
        match (frame.header.kind, &self.options.secret) {
            (FrameKind::Challenge, Some(secret)) => {
                let challenge: Challenge = self.cold(&frame)?;
                let proof = prove(secret.bytes(), &nonce, &challenge)
                    .ok_or_else(|| LinkFault::SecretUnproved { target: self.target.to_owned() })?;
                let proof = hello::encode(&Proof { proof });
                self.send_cold(socket, FrameKind::Proof, proof, deadline)?;
                frame = self.receive(socket, deadline, "handshake")?;
            }
            (FrameKind::Challenge, None) => {
                return Err(LinkFault::SecretWanted { target: self.target.to_owned() });
            }
            (FrameKind::Welcome, Some(_)) => {
                return Err(LinkFault::SecretUnproved { target: self.target.to_owned() });
            }
            _ => {}
        }
        self.welcome(&frame)
    }

    /// Says what the session holds, in pieces, and waits for each answer. The last piece, which is empty, goes out behind
    /// what the log sends again. ESTALE: the session is lost.
    pub(super) fn reassert(
        &self,
        socket: &Socket,
        version: u16,
        held: &Held,
        next_sequence: &dyn Fn() -> u64,
    ) -> Result<Result<(), Errno>, LinkFault> {
        let mut holds = held.holds.chunks(HOLDS_PER_PIECE);
        let mut locks = held.locks.chunks(LOCKS_PER_PIECE);
        while holds.len() > 0 || locks.len() > 0 {
            let (some_holds, some_locks) =
                (holds.next().unwrap_or_default(), locks.next().unwrap_or_default());
            let piece =
                Query::Reassert { holds: some_holds.to_vec(), locks: some_locks.to_vec(), last: false };
            let mut body = Vec::new();
            query::encode(&mut body, &piece);
            let sequence = next_sequence();
            let deadline = Instant::now() + self.options.handshake_timeout;
            let frame = Frame::new(FrameKind::Call, version, self.session, sequence, body, Bytes::new());
            self.send(socket, &frame, deadline)?;
            let frame = self.answer_to(socket, sequence, deadline)?;
            match super::answers::answer(&frame.header, &frame.body, &frame.payload) {
                Ok((Ok(_), _)) => {}
                Ok((Err(errno), _)) => return Ok(Err(errno)),
                Err(cause) => return Err(self.wire(cause)),
            }
        }
        Ok(Ok(()))
    }

    /// Ends the session at the server, if that still listens.
    pub(super) fn bye(&self, socket: &Socket, version: u16, sequence: u64) {
        let frame = Frame::new(FrameKind::Bye, version, self.session, sequence, Vec::new(), Bytes::new());
        // Without it the session ends with its lease.
        let _ = socket.write_all_by(&frame.header.encode(), Instant::now() + BYE_TIMEOUT);
    }

    fn answer_to(&self, socket: &Socket, sequence: u64, deadline: Instant) -> Result<Frame, LinkFault> {
        loop {
            let frame = self.receive(socket, deadline, "taking the session up again")?;
            if frame.header.sequence == sequence && frame.header.kind == FrameKind::Answer {
                return Ok(frame);
            }
            // A late answer to what will be asked again; the answer to that counts.
            if frame.header.sequence >= sequence {
                return Err(self.protocol("it answered what was not asked"));
            }
        }
    }

    fn welcome(&self, frame: &Frame) -> Result<Welcome, LinkFault> {
        match frame.header.kind {
            FrameKind::Welcome => {}
            FrameKind::Refusal => {
                let Refusal { reason, retry } = self.cold(frame)?;
                // It goes to a terminal and a log as one line.
                let reason = reason.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect();
                return Err(LinkFault::Refused { target: self.target.to_owned(), reason, retry });
            }
            _ => return Err(self.protocol("it answered a hello with something else than a welcome")),
        }
        let welcome: Welcome = self.cold(frame)?;
        let spoken = u32::from(version::OLDEST)..=u32::from(version::NEWEST);
        if !spoken.contains(&welcome.version) {
            return Err(LinkFault::Version { target: self.target.to_owned(), found: welcome.version });
        }
        if welcome.volume.len() != VOLUME_BYTES {
            return Err(self.protocol("it named no volume"));
        }
        Ok(welcome)
    }

    fn send_cold(
        &self,
        socket: &Socket,
        kind: FrameKind,
        body: Vec<u8>,
        deadline: Instant,
    ) -> Result<(), LinkFault> {
        self.send(socket, &Frame::new(kind, 0, self.session, 0, body, Bytes::new()), deadline)
    }

    fn send(&self, socket: &Socket, frame: &Frame, deadline: Instant) -> Result<(), LinkFault> {
        let mut bytes = frame.header.encode().to_vec();
        bytes.extend_from_slice(&frame.body);
        socket.write_all_by(&bytes, deadline).map_err(|cause| self.io(cause, "handshake"))
    }

    fn receive(&self, socket: &Socket, deadline: Instant, what: &'static str) -> Result<Frame, LinkFault> {
        let io = |cause| self.io(cause, what);
        let mut head = [0; HEADER_BYTES];
        socket.read_exact_by(&mut head, deadline).map_err(io)?;
        let header = Header::decode(&head).map_err(|cause| self.wire(cause))?;
        let mut body = vec![0; header.body_bytes as usize];
        socket.read_exact_by(&mut body, deadline).map_err(io)?;
        header.check_body(&body).map_err(|cause| self.wire(cause))?;
        let mut payload = vec![0; header.payload_bytes as usize];
        socket.read_exact_by(&mut payload, deadline).map_err(io)?;
        Ok(Frame { header, body, payload: payload.into() })
    }

    fn cold<M: prost::Message + Default>(&self, frame: &Frame) -> Result<M, LinkFault> {
        hello::decode(&frame.body).map_err(|cause| self.wire(cause))
    }

    fn io(&self, cause: io::Error, what: &'static str) -> LinkFault {
        let target = self.target.to_owned();
        match cause.kind() {
            io::ErrorKind::TimedOut => {
                let waited_ms = self.options.handshake_timeout.as_millis();
                LinkFault::TimedOut { target, what, waited_ms }
            }
            io::ErrorKind::UnexpectedEof => LinkFault::Closed { target, what },
            _ => LinkFault::Broken { target, cause },
        }
    }

    fn wire(&self, cause: WireFault) -> LinkFault {
        LinkFault::Wire { target: self.target.to_owned(), cause }
    }

    fn protocol(&self, what: &'static str) -> LinkFault {
        LinkFault::Protocol { target: self.target.to_owned(), what }
    }
}

/// Our proof, if the server's is right.
fn prove(secret: &[u8], nonce: &[u8], challenge: &Challenge) -> Option<Vec<u8>> {
    use ring::hmac::{HMAC_SHA256, Key, sign, verify};
    if challenge.nonce.len() != NONCE_BYTES {
        return None;
    }
    let key = Key::new(HMAC_SHA256, secret);
    let message = |side: &[u8]| [side, nonce, &challenge.nonce].concat();
    verify(&key, &message(b"ringfs server"), &challenge.proof).ok()?;
    Some(sign(&key, &message(b"ringfs client")).as_ref().to_vec())
}

/// For the last frame to leave.
pub(super) const BYE_TIMEOUT: Duration = Duration::from_millis(500);

const NONCE_BYTES: usize = 32;
const VOLUME_BYTES: usize = 16;

/// A reason is one line for a person.
const REASON_CHARS_MAX: usize = 500;

/// 128 KiB of a body.
const HOLDS_PER_PIECE: usize = 16_384;

/// 192 KiB of a body.
const LOCKS_PER_PIECE: usize = 4096;

const _: () = assert!(HOLDS_PER_PIECE * 8 + LOCKS_PER_PIECE * 64 < crate::base::limits::FRAME_BODY_BYTES_MAX);

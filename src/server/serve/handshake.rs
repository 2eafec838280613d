//! The first frames of a connection: who is there, does it know the secret, and which session is it.
//!
//! Nothing a stranger sends costs more than [`HELLO_BYTES_MAX`] of memory and one thread for a bounded time. A peer
//! that is refused learns why, except that of a failed proof it learns only that.

use super::Core;
use super::dispatch::{Member, Membership, Standing};
use super::frames::{FrameReader, ReadFault};
use super::secret::{Secret, Side};
use super::socket::Socket;
use crate::base::SessionId;
use crate::server::session::{About, Claim, Closer, Entry};
use crate::wire::hello::{self, Challenge, Hello, Proof, Refusal, Welcome};
use crate::wire::{Frame, FrameKind, WireFault, version};
use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use std::io::{self, Read};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Largest body of a handshake frame.
const HELLO_BYTES_MAX: usize = 64 << 10;

const NONCE_BYTES: usize = 32;

/// Why a connection ended in its handshake.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShakeFault {
    /// It was told why.
    #[error("refused: {0}")]
    Refused(String),
    /// It said nothing that can be answered.
    #[error(transparent)]
    Read(#[from] ReadFault),
    /// It went before it said anything: a probe of a port.
    #[error("the peer said nothing")]
    Nothing,
    /// A bad message.
    #[error(transparent)]
    Wire(#[from] WireFault),
    /// It went before it was told.
    #[error("send: {0}")]
    Send(io::Error),
}

/// Reads from a socket; before the handshake is over, no later than a deadline.
pub(super) struct Timed<'s> {
    socket: &'s Socket,
    until: Option<Instant>,
}

impl<'s> Timed<'s> {
    pub(super) fn new(socket: &'s Socket, until: Instant) -> Self {
        Self { socket, until: Some(until) }
    }

    /// The peer is known: it may be silent for so long, or without a limit where its session has one.
    pub(super) fn trust(&mut self, silence: Option<Duration>) -> io::Result<()> {
        self.until = None;
        self.socket.set_read_timeout(silence)
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(until) = self.until {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.socket.set_read_timeout(Some(left))?;
        }
        let mut socket = self.socket;
        socket.read(buffer)
    }
}

impl Core {
    /// Shakes hands. Returns what the connection may do, and the welcome to be sent first.
    pub(super) fn shake(
        &self,
        socket: &Arc<Socket>,
        reader: &mut FrameReader<Timed<'_>>,
    ) -> Result<(Member, Frame), ShakeFault> {
        let shaken = self.shake_hands(socket, reader);
        let refusal = match &shaken {
            Err(ShakeFault::Wire(fault) | ShakeFault::Read(ReadFault::Wire(fault))) => match fault {
                // Not our protocol: our frames would mean nothing to it.
                WireFault::NotRingfs { .. } => None,
                fault => Some(Refusal { reason: fault.to_string(), retry: false }),
            },
            Err(ShakeFault::Read(ReadFault::Silent)) => {
                Some(Refusal { reason: "the handshake took too long".to_owned(), retry: true })
            }
            _ => None,
        };
        if let Some(refusal) = refusal {
            // The fault above is what is reported, whether or not the peer still hears of it.
            drop(say(socket, FrameKind::Refusal, &hello::encode(&refusal)));
        }
        shaken
    }

    fn shake_hands(
        &self,
        socket: &Arc<Socket>,
        reader: &mut FrameReader<Timed<'_>>,
    ) -> Result<(Member, Frame), ShakeFault> {
        let hello: Hello = match expect(reader, FrameKind::Hello)? {
            Some(hello) => hello,
            None => return Err(ShakeFault::Nothing),
        };
        if let Some(secret) = &self.options.secret
            && !challenge(secret, &hello, socket, reader)?
        {
            let reason = "this server asks for a secret, and the proof of it was not right".to_owned();
            return Err(refuse(socket, Refusal { reason, retry: false }));
        }
        let closing = Arc::clone(socket);
        let closer: Closer = Box::new(move || closing.shutdown(Shutdown::Both));
        let (member, welcome) =
            self.welcome(&hello, closer, false).map_err(|refusal| refuse(socket, refusal))?;
        let body = hello::encode(&welcome);
        let frame = Frame::new(FrameKind::Welcome, member.version, member.id, 0, body, Bytes::new());
        Ok((member, frame))
    }

    /// What a peer that may connect is told, and what it may do.
    pub(super) fn welcome(
        &self,
        hello: &Hello,
        closer: Closer,
        local: bool,
    ) -> Result<(Member, Welcome), Refusal> {
        let no = |reason: String| Refusal { reason, retry: false };
        let number = |version: u32| u16::try_from(version).unwrap_or(u16::MAX);
        let (oldest, newest) = (number(hello.version_oldest), number(hello.version_newest));
        let version = version::agree(oldest, newest).ok_or_else(|| {
            no(format!(
                "the client speaks protocol versions {oldest} to {newest}, this server {} to {}: use the same \
                 release on both sides",
                version::OLDEST,
                version::NEWEST
            ))
        })?;
        let volume = self.volume.store().superblock().uuid.clone();
        if !hello.volume.is_empty() && hello.volume != volume {
            return Err(no("this server serves another volume than before: mount anew".to_owned()));
        }
        if self.stopping() {
            return Err(Refusal { reason: "the server is stopping".to_owned(), retry: true });
        }
        let id = match <[u8; 16]>::try_from(&hello.session[..]) {
            Ok(id) => SessionId(u128::from_le_bytes(id)),
            Err(_) if hello.observer => SessionId(0),
            Err(_) => return Err(no("the client names no session".to_owned())),
        };
        let (standing, session_known) = if hello.observer {
            (Standing::Observer, false)
        } else {
            let about = About::new(hello, local);
            let claim = Claim { id, resumed: hello.resumed, about, closer };
            match self.sessions.claim(claim) {
                Ok(Entry::Member { session, link, known }) => {
                    let (leases, syncs) = (hello.leases, Arc::default());
                    (Standing::Session(Membership { session, link, leases, syncs }), known)
                }
                Ok(Entry::Fenced) => (Standing::Fenced, false),
                Err(refused) => return Err(Refusal { reason: refused.reason, retry: refused.retry }),
            }
        };
        let member = matches!(standing, Standing::Session(_));
        let name_key = if member { self.volume.store().names().key().to_vec() } else { Vec::new() };
        let welcome = Welcome {
            version: u32::from(version),
            volume,
            epoch: self.epoch,
            session_known,
            lease_ms: self.lease_ms(),
            read_only: false,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            name_key,
            clock_nanos: self.volume.now().to_nanos(),
            grace_ms: self.sessions.grace().map_or(0, |(ms, _)| u32::try_from(ms).unwrap_or(u32::MAX)),
        };
        Ok((Member { id, version, standing }, welcome))
    }
}

/// Proves the secret to the client and asks for its proof; says whether that was right.
fn challenge(
    secret: &Secret,
    hello: &Hello,
    socket: &Socket,
    reader: &mut FrameReader<Timed<'_>>,
) -> Result<bool, ShakeFault> {
    let mut nonce = vec![0; NONCE_BYTES];
    let random = SystemRandom::new().fill(&mut nonce);
    // A client without a nonce has no secret; it is challenged all the same, so that it can say that it needs one.
    let fresh = random.is_ok() && hello.nonce.len() == NONCE_BYTES;
    let proof = secret.prove(Side::Server, &hello.nonce, &nonce);
    let challenge = Challenge { nonce, proof };
    say(socket, FrameKind::Challenge, &hello::encode(&challenge)).map_err(ShakeFault::Send)?;
    let Some(Proof { proof }) = expect(reader, FrameKind::Proof)? else {
        return Err(ShakeFault::Read(ReadFault::Cut));
    };
    Ok(secret.proves(Side::Client, &hello.nonce, &challenge.nonce, &proof) && fresh)
}

/// The next message, which must be of this kind; `None` when the stream ends.
fn expect<M: prost::Message + Default>(
    reader: &mut FrameReader<Timed<'_>>,
    kind: FrameKind,
) -> Result<Option<M>, ShakeFault> {
    let Some(frame) = reader.next(HELLO_BYTES_MAX)? else { return Ok(None) };
    if frame.header.kind != kind {
        let kind = frame.header.kind.number();
        return Err(WireFault::Invalid { kind, what: "out of turn in a handshake" }.into());
    }
    Ok(Some(hello::decode(&frame.body)?))
}

fn refuse(socket: &Socket, refusal: Refusal) -> ShakeFault {
    // Whether the peer hears it or not, it is refused.
    drop(say(socket, FrameKind::Refusal, &hello::encode(&refusal)));
    ShakeFault::Refused(refusal.reason)
}

/// Sends a small frame to a peer that has been sent almost nothing so far: it fits the socket's buffer.
pub(super) fn say(socket: &Socket, kind: FrameKind, body: &[u8]) -> io::Result<()> {
    let frame = Frame::new(kind, 0, SessionId(0), 0, body.to_vec(), Bytes::new());
    let bytes = [&frame.header.encode()[..], body].concat();
    match socket.send(&[io::IoSlice::new(&bytes)], false)? {
        sent if sent == bytes.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

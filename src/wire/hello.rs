//! The handshake: cold messages, protobuf, so that either side may grow fields without the other noticing.

use super::WireFault;
use prost::Message;

/// Client's first message on each connection.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Hello {
    /// Oldest protocol version the client speaks.
    #[prost(uint32, tag = "1")]
    pub version_oldest: u32,
    /// Newest.
    #[prost(uint32, tag = "2")]
    pub version_newest: u32,
    /// 16 bytes: the session. All connections of a mount name the same.
    #[prost(bytes = "vec", tag = "3")]
    pub session: Vec<u8>,
    /// The session existed before: the client reconnects and will re-assert what it holds.
    #[prost(bool, tag = "4")]
    pub resumed: bool,
    /// Host name, for the operator.
    #[prost(string, tag = "5")]
    pub host: String,
    /// Process id, for the operator.
    #[prost(uint32, tag = "6")]
    pub pid: u32,
    /// Mount point, for the operator.
    #[prost(string, tag = "7")]
    pub mount_point: String,
    /// 32 random bytes the server signs, when a secret is in use.
    #[prost(bytes = "vec", tag = "8")]
    pub nonce: Vec<u8>,
    /// Volume the client knows from an earlier connection (16 bytes) or nothing.
    #[prost(bytes = "vec", tag = "9")]
    pub volume: Vec<u8>,
    /// An operator's tool that asks for status alone: no session is made.
    #[prost(bool, tag = "10")]
    pub observer: bool,
    /// The client wants leases: this connection, the one for metadata, brings grants and notices. The one for data does not
    /// say so.
    #[prost(bool, tag = "11")]
    pub leases: bool,
}

/// Server's answer to a hello where a secret is in use.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Challenge {
    /// 32 random bytes for the client to sign.
    #[prost(bytes = "vec", tag = "1")]
    pub nonce: Vec<u8>,
    /// HMAC-SHA256 with the secret over "ringfs server", client nonce, server nonce: the server knows it too.
    #[prost(bytes = "vec", tag = "2")]
    pub proof: Vec<u8>,
}

/// Client's answer to a challenge.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Proof {
    /// HMAC-SHA256 with the secret over "ringfs client", client nonce, server nonce.
    #[prost(bytes = "vec", tag = "1")]
    pub proof: Vec<u8>,
}

/// The connection is accepted.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Welcome {
    /// Protocol version in force.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// 16 bytes: the volume.
    #[prost(bytes = "vec", tag = "2")]
    pub volume: Vec<u8>,
    /// Counts starts of the server; one that is higher than before means it restarted.
    #[prost(uint64, tag = "3")]
    pub epoch: u64,
    /// The server knew the session. When false to a resumed client, what it held is gone.
    #[prost(bool, tag = "4")]
    pub session_known: bool,
    /// Milliseconds a silent session lives.
    #[prost(uint32, tag = "5")]
    pub lease_ms: u32,
    /// The volume takes no changes.
    #[prost(bool, tag = "6")]
    pub read_only: bool,
    /// Version of the program, for the operator.
    #[prost(string, tag = "7")]
    pub program: String,
    /// 16 bytes: the key of the volume's hash of names, by which a client knows the cookie of a name
    /// ([`crate::base::name_hash`]). Nothing for an observer.
    #[prost(bytes = "vec", tag = "8")]
    pub name_key: Vec<u8>,
    /// The server's clock at this welcome, in nanoseconds since 1970. Times of mutations that the client completes are
    /// by this clock.
    #[prost(uint64, tag = "9")]
    pub clock_nanos: u64,
    /// Milliseconds until the grace period after a restart of the server is over, at the latest; 0 outside of one.
    #[prost(uint32, tag = "10")]
    pub grace_ms: u32,
}

/// The connection is refused, for good unless `retry`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Refusal {
    /// One line for the user, naming the remedy.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// It may work later (server is starting or full).
    #[prost(bool, tag = "2")]
    pub retry: bool,
}

/// Bytes of a cold message.
#[must_use]
pub fn encode(message: &impl Message) -> Vec<u8> {
    message.encode_to_vec()
}

/// A cold message from its bytes.
///
/// # Errors
/// [`WireFault::Cold`].
pub fn decode<M: Message + Default>(body: &[u8]) -> Result<M, WireFault> {
    M::decode(body).map_err(|error| WireFault::Cold(error.to_string()))
}

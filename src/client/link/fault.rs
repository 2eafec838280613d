//! What can go wrong between this program and its server, by who is to blame, each with a remedy.

use crate::wire::{WireFault, version};
use std::io;

/// Why there is no session. One line for the user.
#[derive(Debug, thiserror::Error)]
pub enum LinkFault {
    /// Nobody listens.
    #[error(
        "no ringfs server at {target} ({cause}): start one with `ringfs serve STORE --listen {target}` or check the address"
    )]
    Absent {
        /// Address.
        target: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The address cannot be used.
    #[error("cannot connect to {target}: {cause}; check the address, the network and the permissions")]
    Connect {
        /// Address.
        target: String,
        /// What the system said.
        cause: io::Error,
    },
    /// No answer in time.
    #[error(
        "{target} did not answer within {waited_ms} ms ({what}): check that a ringfs server listens there and is not stopped"
    )]
    TimedOut {
        /// Address.
        target: String,
        /// What was waited for.
        what: &'static str,
        /// How long, in milliseconds.
        waited_ms: u128,
    },
    /// The connection ended in the middle of the handshake or after it.
    #[error("{target} closed the connection ({what}): see the server's log")]
    Closed {
        /// Address.
        target: String,
        /// What was waited for.
        what: &'static str,
    },
    /// The connection broke.
    #[error("connection to {target} broke: {cause}")]
    Broken {
        /// Address.
        target: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The server agreed to a version this program does not speak.
    #[error(
        "{target} wants protocol version {found}, this program speaks {} to {}: use the same release on both sides",
        version::OLDEST,
        version::NEWEST
    )]
    Version {
        /// Address.
        target: String,
        /// What it answered.
        found: u32,
    },
    /// The server said no, with its reason.
    #[error("{target} refused the connection: {reason}")]
    Refused {
        /// Address.
        target: String,
        /// The server's own words, which name the remedy.
        reason: String,
        /// It may work later.
        retry: bool,
    },
    /// The server wants a secret.
    #[error("{target} wants a secret: give the one the server was started with (--secret-file)")]
    SecretWanted {
        /// Address.
        target: String,
    },
    /// The server has no secret, or another one.
    #[error("{target} does not know the shared secret: give the same --secret-file on both sides")]
    SecretUnproved {
        /// Address.
        target: String,
    },
    /// Bytes that are not the protocol.
    #[error("{target}: {cause}")]
    Wire {
        /// Address.
        target: String,
        /// What was wrong.
        cause: WireFault,
    },
    /// Frames that are the protocol, but make no sense where they came.
    #[error("{target} broke the protocol: {what}; use the same release on both sides")]
    Protocol {
        /// Address.
        target: String,
        /// What it did.
        what: &'static str,
    },
    /// Another volume answers at the address.
    #[error(
        "{target} serves another volume than before: start the server on the store it had, or mount anew"
    )]
    OtherVolume {
        /// Address.
        target: String,
    },
    /// The server is silent for longer than its lease.
    #[error("{target} has been silent for {silent_ms} ms: connecting anew")]
    Silent {
        /// Address.
        target: String,
        /// Milliseconds since its last frame.
        silent_ms: u64,
    },
    /// This host refused something the link needs.
    #[error("this host has no {what} for the link: {cause}")]
    System {
        /// What.
        what: &'static str,
        /// What the system said.
        cause: io::Error,
    },
}

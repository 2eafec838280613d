//! The link: one session with the server, kept alive over cut connections and restarts of the server.
//!
//! In come queries and batches of mutations, each with a closure for what comes back; out go frames on two
//! connections: metadata, and data (reads, and batches with a payload), so that file bytes never delay metadata.
//! Or, for a server in this process, plain calls ([`Target::Local`]).
//!
//! Nothing here blocks the caller on the network. A frame goes straight to the socket when that has room; else the
//! link's own thread sends it. Each connection has a thread that receives. Closures run on the thread that
//! received the answer, or inside [`Link::call`] itself; they must not block and may call the link again. No lock of
//! the link is held while one runs.
//!
//! When a connection is lost, requests stay in flight. The link connects anew until it is closed, tells the server
//! what the session holds ([`Owner::held`]), sends what the owner's log has to send again ([`Owner::replay`], by the original
//! bytes: the server knows the ticket and does nothing twice), ends the re-assertion, sends all other requests in flight
//! again in the order of the sequences, then new ones. Should the server have forgotten the session, everything in
//! flight fails with EIO and a fresh session begins ([`Owner::lost`]).
//!
//! What the server says unasked (recalls, what is durable) goes to the [`Owner`] on the thread that receives metadata, in its
//! place among the answers: a grant is known before it is recalled.
//!
//! Order: requests of one connection arrive in the order they were made here. Between the two connections there is
//! none: who needs it waits for the answer.
//!
//! Absent on purpose: what requests mean, grouping mutations, caching.
#![forbid(unsafe_code)]

mod answers;
mod channel;
mod clock;
mod fault;
mod handshake;
mod keeper;
mod local;
mod options;
mod receive;
mod remote;
mod request;
mod socket;
mod status;
#[cfg(test)]
mod tests;

pub use answers::{LogOutcomes, Tickets};
pub use clock::boottime;
pub use fault::LinkFault;
pub use local::LocalNotices;
pub use options::{Held, LinkOptions, Logged, Owner, Secret, Target, random_session};
pub use status::LinkStatus;

use crate::base::{Errno, Time};
use crate::wire::hello::Welcome;
use crate::wire::{Answer, Grants, Outcome, Query};
use bytes::Bytes;
use local::Local;
use remote::Shared;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Number of a request within its session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Sequence(pub u64);

/// Encoded mutations that go out as one frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// Their tickets, in the order of their records.
    pub tickets: Tickets,
    /// Their records.
    pub body: Bytes,
    /// Their data.
    pub payload: Bytes,
}

/// What became of an interrupted request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interrupted {
    /// It was failed with EINTR: there is no connection, and it changes nothing. A `Hold` may have reached the server:
    /// drop the inode if nothing else here holds it.
    Failed,
    /// The server was told to stop waiting for the lock, or will be; the answer comes.
    Cancelling,
    /// The answer comes as ever; should the connection be lost first, it fails as above.
    Kept,
}

/// See the module.
pub struct Link {
    target: String,
    way: Way,
}

enum Way {
    Local(Box<Local>),
    Remote(Arc<Shared>),
}

impl Link {
    /// Connects and shakes hands, on the calling thread, once; starts the link's threads. The welcome tells volume,
    /// lease and whether the volume is read-only.
    ///
    /// # Errors
    /// [`LinkFault`], one line that names address and remedy.
    pub fn open(target: Target, options: LinkOptions) -> Result<(Arc<Self>, Welcome), LinkFault> {
        let name = target.to_string();
        let (way, welcome) = match target {
            Target::Local { peer, welcome, notices } => {
                (Way::Local(Box::new(Local::new(peer, welcome.clone(), notices, &options))), welcome)
            }
            Target::Unix(_) | Target::Tcp(_) => {
                let (shared, welcome) = Shared::open(target, options)?;
                (Way::Remote(shared), welcome)
            }
        };
        Ok((Arc::new(Self { target: name, way }), welcome))
    }

    /// Whom to ask when a session is taken up again. Set once, before anything is held; without one the link says
    /// that nothing is.
    pub fn set_owner(&self, owner: Weak<dyn Owner>) {
        match &self.way {
            Way::Local(local) => local.set_owner(owner),
            // A second owner is a bug that changes nothing: the first stays.
            Way::Remote(shared) => drop(shared.owner.set(owner)),
        }
    }

    /// Asks. `done` gets the answer exactly once: bytes in it are borrowed from the receive buffer. Errors besides
    /// the server's own: EIO (session lost), EINTR ([`Link::interrupt`]), ENOTCONN (closed), ENOMEM (too much in
    /// flight), EOPNOTSUPP (an answer of a newer protocol).
    pub fn call<F>(&self, query: &Query<'_>, done: F) -> Sequence
    where
        F: FnOnce(Result<Answer<'_>, Errno>) + Send + 'static,
    {
        match &self.way {
            Way::Local(local) => local.call(query, |answer, _| done(answer)),
            Way::Remote(shared) => shared.call(query, |answer, _| done(answer)),
        }
    }

    /// Asks, and takes the grants that come with the answer, also with a refusal. They are borrowed as the answer is. A
    /// recall of one of them comes later, by [`Owner::recalled`].
    pub fn call_leased<F>(&self, query: &Query<'_>, done: F) -> Sequence
    where
        F: FnOnce(Result<Answer<'_>, Errno>, Grants<'_>) + Send + 'static,
    {
        match &self.way {
            Way::Local(local) => local.call(query, done),
            Way::Remote(shared) => shared.call(query, done),
        }
    }

    /// Sends a batch of the owner's log; [`Owner::answered`] tells what became of it, possibly before this returns. Batches of
    /// local mutations arrive in the order of these calls. One that goes out while there is no connection, or is on its way
    /// when that is lost, is forgotten here: the owner gives it to the next ([`Owner::replay`]).
    pub fn send(&self, batch: Logged) {
        match &self.way {
            Way::Local(local) => local.send(batch),
            Way::Remote(shared) => shared.send(batch),
        }
    }

    /// When the request was sent whose answer showed last that the session lives, by [`boottime`]: leases are valid for a
    /// lease time from then. Of a server in this process: now.
    #[must_use]
    pub fn answered_since(&self) -> Duration {
        match &self.way {
            Way::Local(_) => boottime(),
            Way::Remote(shared) => shared.answered_since(),
        }
    }

    /// The server's clock at `at` of [`boottime`], as measured at the last welcome.
    #[must_use]
    pub fn server_time(&self, at: Duration) -> Time {
        match &self.way {
            Way::Local(local) => local.clock.at(at),
            Way::Remote(shared) => shared.clock.at(at),
        }
    }

    /// What the server said last when it was connected to.
    #[must_use]
    pub fn welcome(&self) -> Welcome {
        match &self.way {
            Way::Local(local) => local.welcome.clone(),
            Way::Remote(shared) => shared.info().welcome.clone(),
        }
    }

    /// Sends mutations. `done` gets their outcomes exactly once, one for each ticket in order, or an errno for all:
    /// EIO (session lost: whether they were done is not known), ENOTCONN (closed), ENOMEM (too much in flight, not
    /// sent).
    pub fn batch<F>(&self, batch: Batch, done: F) -> Sequence
    where
        F: FnOnce(Result<&[Outcome], Errno>) + Send + 'static,
    {
        match &self.way {
            Way::Local(local) => local.batch(batch, done),
            Way::Remote(shared) => shared.batch(batch, done),
        }
    }

    /// The caller of a request got a signal. A mutation is never given up.
    pub fn interrupt(&self, sequence: Sequence) -> Interrupted {
        match &self.way {
            Way::Local(local) => {
                local.interrupt(sequence);
                Interrupted::Cancelling
            }
            Way::Remote(shared) => shared.interrupt(sequence),
        }
    }

    /// Waits up to `grace` for what is in flight, takes leave of the server and ends the link's threads. What is
    /// without an answer then fails with ENOTCONN, as do later requests. Not to be called from a `done`.
    pub fn close(&self, grace: Duration) {
        match &self.way {
            Way::Local(local) => local.close(),
            Way::Remote(shared) => {
                shared.begin_close(grace);
                shared.finish_close(grace);
            }
        }
    }

    /// Numbers for the operator.
    #[must_use]
    pub fn status(&self) -> LinkStatus {
        match &self.way {
            Way::Local(local) => local.status(self.target.clone()),
            Way::Remote(shared) => shared.status(),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        match &self.way {
            Way::Local(local) => local.close(),
            // This may be a thread of the link itself: it ends without being waited for.
            Way::Remote(shared) => shared.begin_close(Duration::ZERO),
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("target", &self.target).finish_non_exhaustive()
    }
}

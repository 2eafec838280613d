//! A session of the process the server lives in, and connections without a socket.

use super::Core;
use super::dispatch::{Member, Standing};
use super::status::count;
use crate::server::session::Closer;
use crate::wire::hello::{Hello, Refusal, Welcome};
use crate::wire::{Frame, Notices, Peer, Reply};
use std::sync::Arc;

/// The server as its own process's mount sees it. Frames are worked on by the thread that submits them. Dropping it
/// ends the session.
pub struct LocalPeer {
    core: Arc<Core>,
    member: Member,
}

impl LocalPeer {
    pub(super) fn new(core: &Arc<Core>, hello: &Hello, notices: Notices) -> Result<(Self, Welcome), Refusal> {
        // There is no connection to close; the session's end is told by ESTALE.
        let welcomed = core.welcome(hello, Box::new(|| {}), true);
        let (member, welcome) = welcomed.inspect_err(|_| count(&core.counters.refused, 1))?;
        core.listens(&member, notices);
        Ok((Self { core: Arc::clone(core), member }, welcome))
    }
}

impl Peer for LocalPeer {
    fn submit(&self, frame: Frame, reply: Reply) {
        if let Err(fault) = self.core.take(&self.member, frame, reply) {
            count(&self.core.counters.faults, 1);
            tracing::error!(%fault, "the mount of this process broke the protocol");
        }
    }
}

impl Drop for LocalPeer {
    fn drop(&mut self) {
        if let Standing::Session(member) = &self.member.standing {
            self.core.sessions.bye(&member.session);
            self.core.settle();
        }
    }
}

/// One connection of a client, as the server sees it, whose frames somebody else carries. Dropping it loses the connection.
pub struct CarriedPeer {
    core: Arc<Core>,
    member: Member,
}

impl CarriedPeer {
    pub(super) fn new(
        core: &Arc<Core>,
        hello: &Hello,
        notices: Notices,
        closed: Closer,
    ) -> Result<(Self, Welcome), Refusal> {
        let welcomed = core.welcome(hello, closed, false);
        let (member, welcome) = welcomed.inspect_err(|_| count(&core.counters.refused, 1))?;
        core.listens(&member, notices);
        Ok((Self { core: Arc::clone(core), member }, welcome))
    }
}

impl Peer for CarriedPeer {
    fn submit(&self, frame: Frame, reply: Reply) {
        if let Err(fault) = self.core.take(&self.member, frame, reply) {
            count(&self.core.counters.faults, 1);
            tracing::warn!(%fault, "a carried connection broke the protocol");
        }
    }
}

impl Drop for CarriedPeer {
    fn drop(&mut self) {
        if let Standing::Session(member) = &self.member.standing {
            self.core.sessions.detach(&member.session, member.link);
            self.core.settle();
        }
    }
}

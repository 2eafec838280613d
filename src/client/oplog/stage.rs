//! The life of one mutation, as a table.
//!
//! ```text
//!              send           apply            durable
//!  Accepted ──────────► Sent ────────► Applied ──────────► Durable
//!     │ │               │ │ │          │  ▲
//!     │ └─ fence ─┐     │ │ └─ reject  │  │ apply
//!     │           ▼     │ │      │     │  │
//!     │       Fenced ◄──┘ │      ▼     │  │      restart: the server that applied it is gone and
//!     └─ fold ──► Folded  │  Rejected  │  │      may have lost it; it goes out again
//!                         │      ▲     ▼  │
//!                         │      └──── Resent ── fence, expire ──► Unknown
//!                         └─ expire ─────────────────────────────►
//! ```
//! The six on the right and at the bottom that no arrow leaves are the end: the log forgets such a mutation.

/// Where a mutation stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stage {
    /// It has its ticket and its bytes, and waits to be sent.
    Accepted,
    /// Its bytes are on their way, on this connection or the next.
    Sent,
    /// The server has done it and others see it.
    Applied,
    /// The server that had done it restarted; its bytes are on their way again.
    Resent,
    /// It survives a crash of the server: nothing is left to do.
    Durable,
    /// A later one made it superfluous before it was sent.
    Folded,
    /// The server refused it.
    Rejected,
    /// Its session ended before it was applied.
    Fenced,
    /// Whether it was done will not be known.
    Unknown,
}

/// What happens to a mutation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// Its bytes go to the link.
    Send,
    /// Another takes its place, unsent.
    Fold,
    /// The server has done it.
    Apply,
    /// The server refused it.
    Reject,
    /// The server's disk has it.
    Durable,
    /// The server is another one than that which was asked: what is not durable is asked again.
    Restart,
    /// The session is gone, with the leases that allowed the mutation.
    Fence,
    /// No answer came for longer than the server remembers.
    Expire,
}

impl Stage {
    /// The next stage; `None` is a bug of the caller.
    #[must_use]
    pub fn on(self, event: Event) -> Option<Self> {
        use Event as E;
        Some(match (self, event) {
            (Self::Accepted, E::Send) => Self::Sent,
            (Self::Accepted, E::Fold) => Self::Folded,
            (Self::Accepted | Self::Sent, E::Fence) => Self::Fenced,
            (Self::Sent | Self::Resent, E::Apply) => Self::Applied,
            (Self::Sent | Self::Resent, E::Reject) => Self::Rejected,
            (Self::Sent, E::Expire) | (Self::Resent, E::Fence | E::Expire) => Self::Unknown,
            // Done by a server that lives: it will be durable without the session that asked for it.
            (Self::Applied, E::Fence) => Self::Applied,
            (Self::Applied, E::Durable) => Self::Durable,
            (Self::Applied, E::Restart) => Self::Resent,
            (Self::Accepted, E::Restart | E::Expire) => Self::Accepted,
            (Self::Applied, E::Expire) => Self::Applied,
            (Self::Sent | Self::Resent, E::Restart) => self,
            (stage, E::Restart | E::Fence | E::Expire) if stage.is_end() => stage,
            _ => return None,
        })
    }

    /// Whether the log may forget it.
    #[must_use]
    pub fn is_end(self) -> bool {
        match self {
            Self::Durable | Self::Folded | Self::Rejected | Self::Fenced | Self::Unknown => true,
            Self::Accepted | Self::Sent | Self::Applied | Self::Resent => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Stage};

    #[test]
    fn the_whole_matrix_is_as_drawn() {
        let stages = [
            Stage::Accepted,
            Stage::Sent,
            Stage::Applied,
            Stage::Resent,
            Stage::Durable,
            Stage::Folded,
            Stage::Rejected,
            Stage::Fenced,
            Stage::Unknown,
        ];
        let events = [
            Event::Send,
            Event::Fold,
            Event::Apply,
            Event::Reject,
            Event::Durable,
            Event::Restart,
            Event::Fence,
            Event::Expire,
        ];
        let mut found = String::new();
        for stage in stages {
            found += &format!("{stage:?}:");
            for event in events {
                found += &stage.on(event).map_or(" -".into(), |next| format!(" {next:?}"));
            }
            found += "\n";
        }
        // Columns: send, fold, apply, reject, durable, restart, fence, expire.
        let drawn = "\
            Accepted: Sent Folded - - - Accepted Fenced Accepted\n\
            Sent: - - Applied Rejected - Sent Fenced Unknown\n\
            Applied: - - - - Durable Resent Applied Applied\n\
            Resent: - - Applied Rejected - Resent Unknown Unknown\n\
            Durable: - - - - - Durable Durable Durable\n\
            Folded: - - - - - Folded Folded Folded\n\
            Rejected: - - - - - Rejected Rejected Rejected\n\
            Fenced: - - - - - Fenced Fenced Fenced\n\
            Unknown: - - - - - Unknown Unknown Unknown\n";
        assert_eq!(found, drawn);
    }
}

//! The life of one mutation, as a table.
//!
//! ```text
//!            fill              send             settle
//!  Claimed ────────► Accepted ──────► Sent ──────────────► Settled
//!     │                │  ▲            │                      ▲
//!     │                │  └─ cut ──────┘ (same ticket: the    │
//!     │                │                  server drops        │
//!     │                │                  duplicates by it)   │
//!     └── settle ──────┴── settle ────────────────────────────┘
//! ```
//! A mutation may settle before it was sent: its session ended, or the mount closes.

/// Where a mutation stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stage {
    /// It has a ticket and room in the log; its bytes are being encoded.
    Claimed,
    /// Its bytes are fixed; they wait to be sent, or to be sent again.
    Accepted,
    /// Its bytes are on their way on the present connection.
    Sent,
    /// Its outcome is known here, or never will be.
    Settled,
}

/// What happens to a mutation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// Its bytes are there.
    Fill,
    /// It goes to the link.
    Send,
    /// The connection is gone, the session is not.
    Cut,
    /// The outcome arrived, or the session is gone.
    Settle,
}

impl Stage {
    /// The next stage; `None` is a bug of the caller.
    #[must_use]
    pub fn on(self, event: Event) -> Option<Self> {
        match (self, event) {
            (Self::Claimed, Event::Fill) => Some(Self::Accepted),
            (Self::Accepted, Event::Send) => Some(Self::Sent),
            (Self::Claimed, Event::Cut) => Some(Self::Claimed),
            (Self::Accepted | Self::Sent, Event::Cut) => Some(Self::Accepted),
            (Self::Settled, Event::Cut) => Some(Self::Settled),
            (Self::Claimed | Self::Accepted | Self::Sent, Event::Settle) => Some(Self::Settled),
            (Self::Accepted | Self::Sent | Self::Settled, Event::Fill)
            | (Self::Claimed | Self::Sent | Self::Settled, Event::Send)
            | (Self::Settled, Event::Settle) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Stage};

    #[test]
    fn the_whole_matrix_is_as_drawn() {
        let mut found = String::new();
        for stage in [Stage::Claimed, Stage::Accepted, Stage::Sent, Stage::Settled] {
            for event in [Event::Fill, Event::Send, Event::Cut, Event::Settle] {
                let next = stage.on(event).map_or("-".into(), |next| format!("{next:?}"));
                found += &format!("{stage:?} {event:?} {next}\n");
            }
        }
        let drawn = "Claimed Fill Accepted\nClaimed Send -\nClaimed Cut Claimed\nClaimed Settle Settled\n\
            Accepted Fill -\nAccepted Send Sent\nAccepted Cut Accepted\nAccepted Settle Settled\n\
            Sent Fill -\nSent Send -\nSent Cut Accepted\nSent Settle Settled\n\
            Settled Fill -\nSettled Send -\nSettled Cut Settled\nSettled Settle -\n";
        assert_eq!(found, drawn);
    }
}

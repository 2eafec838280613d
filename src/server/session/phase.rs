//! The life of a session.
//!
//! ```text
//!   stored ──► Awaited ──attached──► Live ──detached──► Lost
//!                 │                  │  ▲                │ │
//!             grace over       lease │  └───attached─────┘ │ lease over
//!                 │         over, bye│                     │
//!                 ▼                  ▼                     │
//!               Ended ◄──────────────┴─────────────────────┘
//! ```

/// Where a session stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Known from before the server's restart, not heard of since.
    Awaited,
    /// At least one connection.
    Live,
    /// No connection; its lease runs.
    Lost,
    /// Over, for good.
    Ended,
}

/// What happens to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// A connection was accepted.
    Attached,
    /// The last connection is gone.
    Detached,
    /// Silent for longer than its lease.
    LeaseOver,
    /// The time to come back after a restart is over.
    GraceOver,
    /// It said goodbye, or the process it shared with the server gave it up.
    Bye,
    /// The operator wants it ended.
    Evicted,
}

impl Phase {
    /// The next phase; `None` where the event cannot happen, and must change nothing.
    pub(super) fn on(self, event: Event) -> Option<Self> {
        match (self, event) {
            (Self::Awaited | Self::Live | Self::Lost, Event::Attached) => Some(Self::Live),
            (Self::Live, Event::Detached) => Some(Self::Lost),
            (Self::Live | Self::Lost, Event::LeaseOver | Event::Bye)
            | (Self::Awaited, Event::GraceOver)
            | (Self::Awaited | Self::Live | Self::Lost, Event::Evicted) => Some(Self::Ended),
            (Self::Live, Event::GraceOver) => Some(Self::Live),
            (Self::Lost, Event::GraceOver) => Some(Self::Lost),
            (Self::Ended, Event::Detached | Event::GraceOver | Event::Bye) => Some(Self::Ended),
            (Self::Awaited, Event::Detached | Event::LeaseOver | Event::Bye)
            | (Self::Lost, Event::Detached)
            | (Self::Ended, Event::Attached | Event::LeaseOver | Event::Evicted) => None,
        }
    }

    /// The word for the operator.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Awaited => "awaited",
            Self::Live => "live",
            Self::Lost => "lost",
            Self::Ended => "ended",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Event::{Attached, Bye, Detached, Evicted, GraceOver, LeaseOver};
    use super::Phase::{Awaited, Ended, Live, Lost};

    #[test]
    fn the_whole_table() {
        let events = [Attached, Detached, LeaseOver, GraceOver, Bye, Evicted];
        let rows = [Awaited, Live, Lost, Ended].map(|phase| {
            let cells = events.map(|event| phase.on(event).map_or("-", super::Phase::word));
            format!("{}: {}", phase.word(), cells.join(" "))
        });
        assert_eq!(
            rows,
            [
                "awaited: live - - ended - ended",
                "live: live lost ended live ended ended",
                "lost: live - ended lost ended ended",
                "ended: - ended - ended ended -",
            ]
        );
    }
}

//! Faults of design that are put in on purpose, one at a time: a simulation that does not find them finds nothing.

/// What is done wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Plant {
    /// An answer that is older than a local change is believed.
    OldAnswer,
    /// A lease is given back under the number of an earlier grant.
    ReturnWithoutNumber,
    /// A lease is given back before what was changed under it is applied.
    ReturnBeforeFlush,
    /// The kernel's caches are not invalidated before a lease is given back.
    KernelKeeps,
    /// Changes are completed, and questions answered, after the leases have expired.
    Expired,
    /// What is sent again after a restart goes under new tickets.
    ReplayAnew,
    /// Two batches leave in the wrong order.
    Swapped,
    /// An inode number is used for two inodes.
    NumberTwice,
    /// What a waited mutation changes is still answered from what was known before.
    NothingForgotten,
    /// A waited mutation does not wait for what was completed before it.
    Overtaken,
    /// A question to the server does not wait for what was completed before it.
    AskedEarly,
    /// The client forgets bytes that are applied and not durable.
    ForgottenEarly,
    /// An fsync is answered when all is applied.
    DurableEarly,
    /// After a restart of the server the leases of before are used.
    LeasesOutliveServer,
    /// After a restart a waited mutation that no server has answered is sent before all others are back.
    ReplayEarly,
    /// A file that is given back open is not said to be.
    OpenNotSaid,
    /// The answer to a sync counts for what the server before had done.
    SyncOfBefore,
    /// What was lost with the power is done again in the order in which it arrives.
    OrderNotSaid,
    /// What the server made is made again under another number.
    NumberForgotten,
}

impl Plant {
    /// Each with a seed that shows it; should that have changed, others are looked for.
    pub(super) const ALL: [(Self, u64); 19] = [
        (Self::OldAnswer, 103),
        (Self::ReturnWithoutNumber, 12),
        (Self::ReturnBeforeFlush, 2),
        (Self::KernelKeeps, 5),
        (Self::Expired, 765),
        (Self::ReplayAnew, 15),
        (Self::Swapped, 2),
        (Self::NumberTwice, 47),
        (Self::NothingForgotten, 61),
        (Self::Overtaken, 53),
        (Self::AskedEarly, 6),
        (Self::ForgottenEarly, 2),
        (Self::DurableEarly, 2),
        (Self::LeasesOutliveServer, 18),
        (Self::ReplayEarly, 319),
        (Self::OpenNotSaid, 330),
        (Self::SyncOfBefore, 121),
        (Self::OrderNotSaid, 121),
        (Self::NumberForgotten, 68),
    ];
}

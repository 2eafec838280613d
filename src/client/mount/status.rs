//! Numbers for the operator.

use super::Mount;
use crate::client::link::LinkStatus;
use crate::client::oplog::LogStatus;
use crate::wire::{Mutation, Query};

/// What was asked for, and whether it was answered from leases.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct OperationCounts {
    /// Answered here.
    pub here: u64,
    /// Asked of the server.
    pub asked: u64,
}

macro_rules! operations {
    ($($field:ident),*) => {
        /// Counts by kind of operation.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
        #[allow(missing_docs, reason = "the fields are named after the operations")]
        pub struct Operations {
            $(pub $field: OperationCounts,)*
        }
    };
}

operations!(
    lookup,
    attributes,
    listing,
    link_target,
    xattr,
    make,
    link,
    unlink,
    rmdir,
    rename,
    set_attributes,
    write,
    other
);

/// Since the mount began.
#[derive(Debug, Default)]
pub(super) struct Counts {
    operations: Operations,
    pub(super) recalls: u64,
    pub(super) failed_late: u64,
}

/// Something that is counted by its kind.
pub(super) trait Counted {
    fn counts<'o>(&self, operations: &'o mut Operations) -> &'o mut OperationCounts;
}

impl Counted for Query<'_> {
    fn counts<'o>(&self, operations: &'o mut Operations) -> &'o mut OperationCounts {
        match self {
            Query::Lookup { .. } => &mut operations.lookup,
            Query::GetAttr { .. } | Query::Parent { .. } => &mut operations.attributes,
            Query::ReadDir { .. } => &mut operations.listing,
            Query::ReadLink { .. } => &mut operations.link_target,
            Query::GetXattr { .. } | Query::ListXattr { .. } => &mut operations.xattr,
            _ => &mut operations.other,
        }
    }
}

impl Counted for Mutation<'_> {
    fn counts<'o>(&self, operations: &'o mut Operations) -> &'o mut OperationCounts {
        match self {
            Mutation::Make { .. } | Mutation::Tmpfile { .. } => &mut operations.make,
            Mutation::Link { .. } => &mut operations.link,
            Mutation::Unlink { .. } => &mut operations.unlink,
            Mutation::Rmdir { .. } => &mut operations.rmdir,
            Mutation::Rename { .. } => &mut operations.rename,
            Mutation::SetAttr { .. } => &mut operations.set_attributes,
            Mutation::Write { .. } | Mutation::Allocate { .. } | Mutation::Copy { .. } => {
                &mut operations.write
            }
            Mutation::SetXattr { .. } | Mutation::RemoveXattr { .. } => &mut operations.xattr,
        }
    }
}

impl Counts {
    /// It was answered here.
    pub(super) fn here(&mut self, what: &impl Counted) {
        what.counts(&mut self.operations).here += 1;
    }

    /// A listing was answered here.
    pub(super) fn listed(&mut self) {
        self.operations.listing.here += 1;
    }

    /// The server is asked.
    pub(super) fn asked(&mut self, what: &impl Counted) {
        what.counts(&mut self.operations).asked += 1;
    }
}

/// Leases, and what is known under them.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct LeaseStatus {
    /// Whether anything is answered from leases at present.
    pub good: bool,
    /// Milliseconds for which they are good if the server is not heard again.
    pub left_ms: u64,
    /// Inodes known.
    pub inodes: usize,
    /// Names known.
    pub names: usize,
    /// Inodes being recalled.
    pub recalls_waiting: usize,
    /// Leases recalled so far.
    pub recalled: u64,
    /// Changes that failed after they were answered.
    pub failed_late: u64,
    /// After too many of these each change waits for the server.
    pub degraded: bool,
    /// Inode numbers in stock.
    pub numbers: u64,
}

/// What `ringfs status` shows of a mount.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct MountStatus {
    /// Inodes the kernel knows, or that are held.
    pub inodes_known: usize,
    /// Inodes the server holds for this mount.
    pub inodes_held: usize,
    /// Inodes without a name that are kept alive by this mount.
    pub inodes_orphaned: usize,
    /// Open files and directories.
    pub handles_open: usize,
    /// Locks granted.
    pub locks_granted: usize,
    /// Changes that are not applied yet.
    pub mutations_unsettled: usize,
    /// Bytes of changes that are not durable yet.
    pub mutation_bytes_unsettled: usize,
    /// Changes that wait for room in the log.
    pub mutations_parked: usize,
    /// Leases.
    pub leases: LeaseStatus,
    /// What was answered here, and what the server was asked.
    pub operations: Operations,
    /// The mutation log.
    pub log: LogStatus,
    /// The way to the server.
    pub link: LinkStatus,
}

impl Mount {
    /// Numbers for the operator.
    #[must_use]
    pub fn status(&self) -> MountStatus {
        let inodes = self.namespace.inodes.counts();
        let now = super::boottime();
        let state = self.state();
        let (log, tree, left) = (state.log.status(), state.tree.counts(), self.leases_left(now, &state));
        let leases = LeaseStatus {
            good: left.is_some(),
            left_ms: left.map_or(0, |left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            inodes: tree.inodes,
            names: tree.names,
            recalls_waiting: tree.recalls,
            recalled: state.counts.recalls,
            failed_late: state.counts.failed_late,
            degraded: state.degraded,
            numbers: state.numbers.left(),
        };
        let operations = state.counts.operations;
        drop(state);
        MountStatus {
            inodes_known: inodes.known,
            inodes_held: inodes.held,
            inodes_orphaned: inodes.orphans,
            handles_open: self.namespace.handles.len(),
            locks_granted: self.namespace.locks.all().len(),
            mutations_unsettled: log.waiting,
            mutation_bytes_unsettled: log.kept_bytes,
            mutations_parked: log.parked,
            leases,
            operations,
            log,
            link: self.link.status(),
        }
    }
}

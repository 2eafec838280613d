//! A client: the real tree and the real log, with what a mount puts around them in a form without threads.

use super::model::Look;
use ringfs::base::{Attr, Caller, Ino, NameHash};
use ringfs::client::oplog::{Limits, Log};
use ringfs::client::tree::{Stamp, Tree, TreeBounds};
use ringfs::wire::{Mutation, Recall, Ticket};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A question on its way.
pub(super) struct Call {
    pub(super) lane: usize,
    pub(super) body: Vec<u8>,
    pub(super) what: What,
    pub(super) asked: u64,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Ping,
    Asserted,
    /// `then`: a directory's listing was asked for in place of this; `since`: the last mutation before the call.
    Ask {
        look: Look,
        stamp: Stamp,
        then: Option<Look>,
        since: Ticket,
    },
    /// `commit`: the last one before it was asked for.
    Sync {
        commit: u64,
    },
    Numbers,
    Hold(Ino),
    Other,
}

/// What goes on when the log has come so far.
#[derive(Clone, Copy, Debug)]
pub(super) enum Todo {
    Ask(Look, bool, Ticket),
    SendWaited(Ticket),
    FinishRecall,
    Fsynced(Ticket),
}

/// A mutation whose outcome somebody waits for.
pub(super) struct Waiter {
    pub(super) names: Vec<(Ino, &'static str)>,
    pub(super) inos: Vec<Ino>,
    /// It changes something that is not known here.
    pub(super) unknown: bool,
    pub(super) stamp: Stamp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Open {
    /// A lease keeps it alive.
    Leased,
    /// The server was asked to hold it.
    Asked,
    /// The server holds it.
    Held,
}

/// What the kernel keeps, each with the time at which it ends.
#[derive(Default)]
pub(super) struct Kernel {
    pub(super) attrs: BTreeMap<Ino, (Attr, u64)>,
    pub(super) names: BTreeMap<(Ino, &'static str), (Option<Ino>, u64)>,
}

/// How far the recalls have come that are being worked on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Recalling {
    Nothing,
    /// The kernel is told.
    Begun(Vec<Ino>),
    /// The log is waited for.
    Stopped(Vec<Ino>),
}

pub(super) struct Client {
    pub(super) id: usize,
    /// Counts crashes: what was meant for an earlier life is void.
    pub(super) life: u64,
    pub(super) alive: bool,
    pub(super) paused_until: u64,
    pub(super) session: u128,
    pub(super) fresh: bool,
    pub(super) epoch: u64,
    pub(super) tree: Tree,
    pub(super) log: Log,
    pub(super) numbers: VecDeque<u64>,
    pub(super) numbers_asked: bool,
    pub(super) links: [Option<u64>; 2],
    pub(super) connecting: bool,
    pub(super) answered_since: u64,
    pub(super) usable: u64,
    /// Error of the measured clock of the server, microseconds.
    pub(super) skew: i64,
    pub(super) sequence: u64,
    pub(super) calls: BTreeMap<u64, Call>,
    pub(super) waiters: BTreeMap<Ticket, Waiter>,
    pub(super) todos: BTreeMap<u64, Todo>,
    pub(super) next_todo: u64,
    /// Of each fsync: what had no outcome when it was called.
    pub(super) fsyncs: BTreeMap<u64, BTreeSet<Ticket>>,
    pub(super) reached: Arc<Mutex<Vec<(u64, bool)>>>,
    pub(super) commit: u64,
    pub(super) durable: u64,
    pub(super) recalls: Vec<Recall>,
    pub(super) recalling: Recalling,
    pub(super) kernel: Kernel,
    pub(super) open: BTreeMap<Ino, Open>,
    /// Held since their last name was taken here.
    pub(super) orphans: Vec<Ino>,
    /// Made by it.
    pub(super) made: BTreeSet<Ino>,
    pub(super) pumping: Option<u64>,
    pub(super) busy: u32,
    /// A batch that is kept back by a planted fault.
    pub(super) held_batch: Option<ringfs::client::oplog::Batch>,
}

impl Client {
    pub(super) fn new(id: usize, life: u64, hash: NameHash, inodes_max: usize) -> Self {
        let bounds = TreeBounds { inodes_max, names_max: 4 * inodes_max };
        Self {
            id,
            life,
            alive: true,
            paused_until: 0,
            session: session(id, life, 0),
            fresh: true,
            epoch: 0,
            tree: Tree::new(hash, bounds),
            log: Log::new(Limits { gather: Duration::from_micros(100), ..Limits::default() }),
            numbers: VecDeque::new(),
            numbers_asked: false,
            links: [None, None],
            connecting: false,
            answered_since: 0,
            usable: 0,
            skew: 0,
            sequence: 1,
            calls: BTreeMap::new(),
            waiters: BTreeMap::new(),
            todos: BTreeMap::new(),
            next_todo: 1,
            fsyncs: BTreeMap::new(),
            reached: Arc::default(),
            commit: 0,
            durable: 0,
            recalls: Vec::new(),
            recalling: Recalling::Nothing,
            kernel: Kernel::default(),
            open: BTreeMap::new(),
            orphans: Vec::new(),
            made: BTreeSet::new(),
            pumping: None,
            busy: 0,
            held_batch: None,
        }
    }

    pub(super) fn connected(&self) -> bool {
        self.links.iter().all(Option::is_some)
    }

    /// A closure for the log, and the note of what it stands for.
    pub(super) fn todo(&mut self, todo: Todo) -> ringfs::client::oplog::Reached {
        let id = self.next_todo;
        self.next_todo += 1;
        self.todos.insert(id, todo);
        let reached = Arc::clone(&self.reached);
        Box::new(move |result| reached.lock().unwrap().push((id, result.is_ok())))
    }

    pub(super) fn caller(&self) -> Caller {
        Caller { uid: 0, gid: 0, pid: u32::try_from(self.id).unwrap() + 1 }
    }

    /// The inodes and names that a mutation changes are not in the kernel's caches any more.
    pub(super) fn kernel_forgets(&mut self, mutation: &Mutation<'_>) {
        // Simpler than the kernel, which knows better what is left.
        let _ = mutation;
        self.kernel.attrs.clear();
        self.kernel.names.clear();
    }
}

pub(super) fn session(id: usize, life: u64, nth: u64) -> u128 {
    (id as u128 + 1) << 96 | u128::from(life) << 32 | (u128::from(nth) + 1)
}

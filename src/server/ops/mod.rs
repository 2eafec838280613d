//! The rules of POSIX, written once, over a transaction. Those that change nothing but attributes are in
//! [`crate::base::posix`], since a client that completes a mutation locally follows them too.
//!
//! Comes in: one [`Mutation`] with its caller and the time, or what a query asks. Goes out: what changed, in the
//! transaction, and the answer. Nothing is owned here: the transaction holds all state, the caller of these functions
//! holds the writer's lock and commits.
//! Absent on purpose: permission bits, ACL evaluation and the sticky bit (the client's kernel enforces them with
//! `default_permissions`), clocks, locks, file bytes (a write brings the place of its chunks), and who holds what open.
//!
//! Errors stand in the order in which a local Linux file system finds them (`fs/namei.c`).
#![forbid(unsafe_code)]

mod acl;
mod copy;
mod data;
mod fallocate;
mod link;
mod lookup;
mod make;
mod readdir;
mod reap;
mod rename;
mod seek;
mod setattr;
mod unlink;
mod xattr;

pub use data::{Piece, Placed, ReadPlan, read_plan};
pub use lookup::{attr, lookup, parent, read_link};
pub use readdir::{Listing, list};
pub use reap::{Reaped, reap};
pub use seek::seek;
pub use xattr::{get_xattr, list_xattr};

use crate::base::{Caller, Errno, Ino, Time};
use crate::server::meta::{Inode, NameHash, StoreFault, Txn, View, inodes};
use crate::wire::{Done, Mutation, SetAttr};

/// Most extents one transaction frees or makes: it bounds the memory of a transaction, and how long others wait
/// for it (about 10 ms). What needs more is done in steps, each a transaction of its own, or answered short.
pub const EXTENTS_PER_STEP: usize = 2048;

/// Why an operation was not done.
#[derive(Debug)]
pub enum Stop {
    /// POSIX says no.
    No(Errno),
    /// The store cannot be read, or is damaged.
    Fault(StoreFault),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::No(errno)
    }
}

impl From<StoreFault> for Stop {
    fn from(fault: StoreFault) -> Self {
        Self::Fault(fault)
    }
}

impl Stop {
    /// What the caller is told. A fault is logged here, once.
    #[must_use]
    pub fn errno(self) -> Errno {
        match self {
            Self::No(errno) => errno,
            Self::Fault(fault) => Errno::from(fault),
        }
    }
}

/// Result of an operation.
pub type Try<T> = Result<T, Stop>;

/// What the rules need besides the transaction.
#[derive(Clone, Copy, Debug)]
pub struct Env {
    /// Hash of names of this volume.
    pub hash: NameHash,
    /// The present time, from the server's clock.
    pub now: Time,
    /// Who asked.
    pub caller: Caller,
    /// Nobody holds what loses its last name by this mutation, and nobody wants to.
    pub unheld: bool,
}

/// Carries out one mutation. `placed` says where the data of a `Write` lies already.
///
/// # Errors
/// `Stop::No` with the errno a local file system would give. The transaction may then hold some of the changes: the
/// caller rolls it back.
pub fn mutate(txn: &mut dyn Txn, env: &Env, mutation: &Mutation<'_>, placed: &[Placed]) -> Try<Done> {
    match *mutation {
        Mutation::Make { parent, name, mode, umask, rdev, target, flags, ino } => {
            let wish = make::Wish { mode, umask, rdev, target, flags, ino };
            make::make(txn, env, parent, name, &wish)
        }
        Mutation::Tmpfile { parent, mode, umask } => make::tmpfile(txn, env, parent, mode, umask),
        Mutation::Link { ino, parent, name } => link::link(txn, env, ino, parent, name),
        Mutation::Unlink { parent, name, ino, .. } => unlink::unlink(txn, env, parent, name, ino),
        Mutation::Rmdir { parent, name, ino, .. } => unlink::rmdir(txn, env, parent, name, ino),
        Mutation::Rename { parent, name, new_parent, new_name, flags, ino, replaced, .. } => {
            let from = rename::Place { parent, name };
            let to = rename::Place { parent: new_parent, name: new_name };
            rename::rename(txn, env, from, to, &rename::Wish { flags, ino, replaced })
        }
        Mutation::SetAttr { ino, set } => setattr::setattr(txn, env, ino, &set),
        Mutation::Write { ino, offset, flags, .. } => data::write(txn, env, ino, offset, flags, placed),
        Mutation::Allocate { ino, mode, offset, len } => {
            fallocate::allocate(txn, env, ino, mode, offset, len)
        }
        Mutation::Copy { source, source_offset, target, target_offset, len } => {
            let from = copy::From { ino: source, offset: source_offset, len };
            copy::copy(txn, env, from, target, target_offset)
        }
        Mutation::SetXattr { ino, name, value, flags, kill_sgid } => {
            xattr::set(txn, env, ino, name, &xattr::Wish { value, flags, kill_sgid })
        }
        Mutation::RemoveXattr { ino, name } => xattr::remove(txn, env, ino, name),
    }
}

/// A part of a mutation that is too large for one transaction: truncations, punched holes and writes over thousands of extents.
/// Returns whether it did anything; then the caller commits and asks again, and at last calls [`mutate`].
///
/// # Errors
/// The store cannot be read.
pub fn step(txn: &mut dyn Txn, env: &Env, mutation: &Mutation<'_>, placed: &[Placed]) -> Try<bool> {
    match *mutation {
        Mutation::SetAttr { ino, set: SetAttr { size: Some(size), .. } } => {
            data::trim_step(txn, env, ino, size)
        }
        Mutation::Allocate { ino, mode, offset, len } => {
            fallocate::punch_step(txn, env, ino, mode, offset, len)
        }
        Mutation::Write { ino, offset, flags, .. } => data::write_step(txn, env, ino, offset, flags, placed),
        _ => Ok(false),
    }
}

/// The inode, which the client knows by number. ESTALE when it is gone: the kernel then walks the path again.
fn must_get(view: &dyn View, ino: Ino) -> Try<Inode> {
    inodes::get(view, ino)?.ok_or(Stop::No(Errno::ESTALE))
}

/// A directory that names can be looked up in.
fn directory(view: &dyn View, ino: Ino) -> Try<Inode> {
    let dir = must_get(view, ino)?;
    if dir.is_dir() { Ok(dir) } else { Err(Errno::ENOTDIR.into()) }
}

/// A directory that may get new names: a removed one may not (`IS_DEADDIR`).
fn living_directory(view: &dyn View, ino: Ino) -> Try<Inode> {
    let dir = directory(view, ino)?;
    if dir.nlink == 0 { Err(Errno::ENOENT.into()) } else { Ok(dir) }
}

/// A regular file, for its data.
fn file(view: &dyn View, ino: Ino) -> Try<Inode> {
    let inode = must_get(view, ino)?;
    match inode.mode & libc::S_IFMT {
        libc::S_IFREG => Ok(inode),
        libc::S_IFDIR => Err(Errno::EISDIR.into()),
        _ => Err(Errno::EINVAL.into()),
    }
}

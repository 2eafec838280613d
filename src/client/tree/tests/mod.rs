//! The tree against the server's own rules.

mod corners;
mod leases;
mod model;
mod server;

use super::{Change, Denied, Known, Made, New, Tree, TreeBounds};
use crate::base::{Attr, Caller, Ino, Name, NameHash, Time};
use crate::wire::{Grant, LeaseMode, Ticket};
use std::ops::ControlFlow;

const HASH: NameHash = NameHash::new([7; 16]);
const ROOT: Ino = Ino::ROOT;
const USER: Caller = Caller { uid: 1000, gid: 100, pid: 1 };

fn name(text: &'static str) -> Name<'static> {
    Name::parse(text.as_bytes()).unwrap()
}

fn at(secs: i64) -> Time {
    Time { secs, nanos: 0 }
}

/// The next change, each one second and one ticket later.
#[derive(Default)]
struct Clock(u64);

impl Clock {
    fn next(&mut self) -> Change {
        self.0 += 1;
        Change { at: at(1000 + i64::try_from(self.0).unwrap()), caller: USER, ticket: Ticket(self.0) }
    }

    /// The ticket of the last one.
    fn last(&self) -> Ticket {
        Ticket(self.0)
    }
}

fn root_attr() -> Attr {
    let (mode, times) = (libc::S_IFDIR | 0o755, at(1000));
    let (nlink, uid, gid, rdev, size, blocks) = (2, 0, 0, 0, 0, 0);
    let (atime, mtime, ctime, btime) = (times, times, times, times);
    Attr { ino: ROOT, mode, nlink, uid, gid, rdev, size, blocks, atime, mtime, ctime, btime }
}

fn grant(ino: Ino, mode: LeaseMode, number: u64) -> Grant {
    Grant { ino, mode, number, plain: true }
}

/// A tree with an empty root that is leased exclusively and complete.
fn rooted() -> (Tree, Clock) {
    let mut tree = Tree::new(HASH, TreeBounds::default());
    tree.granted([grant(ROOT, LeaseMode::Exclusive, 1)]);
    let asked = tree.stamp();
    tree.learn_attr(asked, &root_attr());
    tree.learn_listing(asked, ROOT, 0, &[], true);
    (tree, Clock::default())
}

fn new(ino: u64, mode: u32) -> New<'static> {
    New { ino: Ino(ino), mode, umask: 0o022, rdev: 0, target: b"", exclusive: true }
}

const FILE: u32 = libc::S_IFREG | 0o666;
const DIR: u32 = libc::S_IFDIR | 0o777;

fn make(tree: &mut Tree, clock: &mut Clock, parent: Ino, text: &'static str, ino: u64, mode: u32) -> Attr {
    let made: Result<Made, Denied> = tree.make(&clock.next(), parent, name(text), &new(ino, mode));
    made.unwrap().attr
}

/// Name, inode and cookie.
type Listed = (Vec<u8>, Ino, u64);

/// The entries of a directory, and whether its end was reached.
fn list(tree: &mut Tree, dir: Ino, cookie: u64) -> (Vec<Listed>, Known<bool>) {
    let mut found = Vec::new();
    let end = tree.list(dir, cookie, true, &mut |entry| {
        found.push((entry.name.to_vec(), entry.ino, entry.cookie));
        ControlFlow::Continue(())
    });
    (found, end)
}

fn names(tree: &mut Tree, dir: Ino) -> Vec<String> {
    let (entries, end) = list(tree, dir, 0);
    assert_eq!(end, Known::Yes(true));
    let mut names: Vec<String> =
        entries.into_iter().map(|(name, ..)| String::from_utf8(name).unwrap()).collect();
    names.sort();
    names
}

//! Questions, their answers on the way, and what the tree says instead.

use super::World;
use crate::base::{Attr, Errno, Ino, Name};
use crate::client::tree::{Known, Stamp};
use crate::wire::{Grant, LeaseMode};
use std::ops::ControlFlow;

/// What the server said, on its way.
pub(super) enum Message {
    Attr(Stamp, Attr, Vec<Grant>),
    Name(Stamp, Ino, Name<'static>, Result<Attr, Errno>, Vec<Grant>),
    Listing(Stamp, Ino, u64, crate::server::ops::Listing, Vec<Grant>),
    Target(Ino, Vec<u8>, Vec<Grant>),
}

impl World {
    pub(super) fn grants(&mut self, inos: &[Ino]) -> Vec<Grant> {
        let mut grants = Vec::new();
        for &ino in inos {
            let wish = match self.dice.roll(8) {
                0 => continue,
                1 => LeaseMode::Shared,
                _ => LeaseMode::Exclusive,
            };
            grants.extend(self.behind.grant(ino, wish));
        }
        grants
    }

    /// A question goes to the server and is answered there; the answer is on its way.
    pub(super) fn send(&mut self, question: u64, ino: Ino, name: Name<'static>) {
        let asked = self.tree.stamp();
        let message = match question {
            0 => {
                let Ok(attr) = self.behind.attr(ino) else { return };
                Message::Attr(asked, attr, self.grants(&[ino]))
            }
            1 if !self.tree.should_list_first(ino) => {
                let found = self.behind.lookup(ino, name);
                let child = found.as_ref().ok().map(|attr| attr.ino);
                let granted: Vec<Ino> = [Some(ino), child].into_iter().flatten().collect();
                Message::Name(asked, ino, name, found, self.grants(&granted))
            }
            2 => {
                let Ok(target) = self.behind.read_link(ino) else { return };
                Message::Target(ino, target, self.grants(&[ino]))
            }
            _ => {
                let cookie = self.cookie(ino);
                let bytes = u32::try_from(400 + self.dice.roll(600)).unwrap();
                let Ok(listing) = self.behind.list(ino, cookie, bytes) else { return };
                let mut granted: Vec<Ino> = listing.entries().map(|entry| entry.ino).collect();
                granted.push(ino);
                Message::Listing(asked, ino, cookie, listing, self.grants(&granted))
            }
        };
        self.inbox.push_back(message);
    }

    /// A position in a directory that a listing gave out.
    pub(super) fn cookie(&mut self, dir: Ino) -> u64 {
        let listing = self.behind.list(dir, 0, 1 << 16);
        let mut cookies: Vec<u64> = listing.iter().flat_map(|l| l.entries().map(|e| e.cookie)).collect();
        cookies.extend([0, 0]);
        self.dice.pick(&cookies)
    }

    pub(super) fn deliver(&mut self, count: usize) {
        for _ in 0..count.min(self.inbox.len()) {
            match self.inbox.pop_front() {
                Some(Message::Attr(asked, attr, grants)) => {
                    self.tree.granted(grants);
                    self.tree.learn_attr(asked, &attr);
                }
                Some(Message::Name(asked, parent, name, found, grants)) => {
                    self.tree.granted(grants);
                    match found {
                        Ok(attr) => self.tree.learn_name(asked, parent, name, &attr),
                        Err(Errno::ENOENT) => self.tree.learn_absent(asked, parent, name),
                        Err(_) => {}
                    }
                }
                Some(Message::Listing(asked, dir, cookie, listing, grants)) => {
                    self.tree.granted(grants);
                    let entries: Vec<_> = listing.entries().collect();
                    self.tree.learn_listing(asked, dir, cookie, &entries, listing.is_end());
                }
                Some(Message::Target(ino, target, grants)) => {
                    self.tree.granted(grants);
                    self.tree.learn_target(ino, &target);
                }
                None => break,
            }
        }
    }

    pub(super) fn compare<T: PartialEq + std::fmt::Debug>(
        &mut self,
        found: Known<T>,
        want: Result<T, Errno>,
        what: &str,
    ) {
        let found = match found {
            Known::Yes(found) => Ok(found),
            Known::No(errno) => Err(errno),
            Known::Unknown => {
                self.counts.unknown += 1;
                return;
            }
        };
        self.counts.known += 1;
        assert_eq!(found, want, "{what}");
    }

    /// Everything that the tree says of an inode and a name is what the other server says.
    pub(super) fn look(&mut self, ino: Ino, name: Name<'static>) {
        let found = self.tree.attr(ino);
        self.compare(found, self.plain.attr(ino), "attr");
        let found = self.tree.lookup(ino, name);
        self.compare(found, self.plain.lookup(ino, name), "lookup");
        let found = match self.tree.read_link(ino) {
            Known::Yes(target) => Known::Yes(target.to_vec()),
            Known::No(errno) => Known::No(errno),
            Known::Unknown => Known::Unknown,
        };
        self.compare(found, self.plain.read_link(ino), "read_link");
        if self.plain.attr(ino).is_ok_and(|attr| attr.is_dir() && attr.nlink > 0) {
            let found = self.tree.parent(ino);
            self.compare(found, self.plain.parent(ino), "parent");
        }
        self.look_at_listing(ino);
    }

    pub(super) fn look_at_listing(&mut self, dir: Ino) {
        let cookie = self.cookie(dir);
        let stop = usize::try_from(self.dice.roll(4)).unwrap();
        let mut found = Vec::new();
        let end = self.tree.list(dir, cookie, true, &mut |entry| {
            found.push((entry.name.to_vec(), entry.ino, entry.cookie, entry.kind, entry.attr));
            if found.len() > stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let want = self.plain.list(dir, cookie, 1 << 16);
        let all: Vec<_> = want.iter().flat_map(|want| want.entries()).collect();
        for (at, (name, ino, cookie, kind, attr)) in found.iter().enumerate() {
            let want = &all[at];
            assert_eq!((&name[..], *ino, *cookie, *kind), (want.name, want.ino, want.cookie, want.kind));
            assert!(attr.is_none() || *attr == want.attr, "{attr:?} {want:?}");
        }
        if end == Known::Yes(true) && found.len() <= stop {
            assert_eq!(found.len(), all.len(), "{dir} after {cookie}: {found:?} {all:?}");
        }
        if let Known::No(errno) = end {
            assert_eq!(want.err(), Some(errno));
        }
    }

    /// The mount asks for all it may want to know of a directory, and waits for it.
    pub(super) fn study(&mut self) {
        let dir = self.directory();
        self.apply(usize::MAX);
        let asked = self.tree.stamp();
        let Ok(listing) = self.behind.list(dir, 0, 1 << 16) else { return };
        let mut inos: Vec<Ino> = listing.entries().map(|entry| entry.ino).collect();
        inos.push(dir);
        let grants: Vec<Grant> =
            inos.iter().filter_map(|ino| self.behind.grant(*ino, LeaseMode::Exclusive)).collect();
        self.inbox.push_back(Message::Listing(asked, dir, 0, listing, grants));
        self.send(0, dir, Name::parse(b"a").unwrap());
        self.deliver(usize::MAX);
    }
}

//! What the operator is told: the last failures, numbers, and whether there are too many.

use super::Failure;
use crate::base::Errno;
use crate::wire::Mutation;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// One failure, as `ringfs errors` prints it.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct FailureLine {
    /// Counts failures of this mount from 1.
    pub number: u64,
    /// Seconds since 1970.
    pub seconds: u64,
    /// What was to be done: `create`, `write`, ….
    pub op: String,
    /// Of what, from the root of the mount, as far as it was known; a name at least, where it has one.
    pub path: Option<String>,
    /// The inode; that of the directory for what has a name.
    pub ino: u64,
    /// Symbol of the errno.
    pub errno: String,
    /// Its data is in the rescue area.
    pub rescued: bool,
    /// One line.
    pub what_to_do: String,
}

/// What `ringfs errors` shows.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct LateReport {
    /// Every change waits for the server.
    pub degraded: bool,
    /// The last ones, the oldest first.
    pub failures: Vec<FailureLine>,
    /// Numbers.
    pub status: LateStatus,
}

/// What `ringfs status` shows.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct LateStatus {
    /// Every change waits for the server.
    pub degraded: bool,
    /// Failures since the mount began.
    pub failures: u64,
    /// The same by operation and errno, `write ENOSPC`.
    pub by_kind: BTreeMap<String, u64>,
    /// Bytes of refused writes that were handed to the rescue area.
    pub rescued_bytes: u64,
    /// Bytes of refused writes that are gone: there is no rescue area.
    pub gone_bytes: u64,
    /// The folder of the rescue area.
    pub rescue: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Records {
    lines: VecDeque<FailureLine>,
    status: LateStatus,
    /// Times of the youngest failures, no more than the limit.
    recent: VecDeque<Duration>,
    refusals_max: usize,
    window: Duration,
}

impl Records {
    pub(super) fn new(refusals_max: usize, window: Duration) -> Self {
        Self {
            lines: VecDeque::new(),
            status: LateStatus::default(),
            recent: VecDeque::new(),
            refusals_max: refusals_max.max(1),
            window,
        }
    }

    /// Of the next failure.
    pub(super) fn number(&self) -> u64 {
        self.status.failures + 1
    }

    pub(super) fn add(&mut self, failure: &Failure<'_>, rescued: bool) -> &FailureLine {
        let number = self.number();
        self.status.failures = number;
        let (op, ino, name) = named(failure.mutation);
        if let Mutation::Write { data, .. } = failure.mutation
            && rescued
        {
            self.status.rescued_bytes += data.len() as u64;
        }
        *self.status.by_kind.entry(format!("{op} {}", failure.errno)).or_default() += 1;
        if self.recent.len() == self.refusals_max {
            self.recent.pop_front();
        }
        self.recent.push_back(failure.now);
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        let path = failure.path.or(name).map(|path| String::from_utf8_lossy(path).into_owned());
        self.lines.push_back(FailureLine {
            number,
            seconds: failure.seconds,
            op: op.to_owned(),
            path,
            ino,
            errno: failure.errno.to_string(),
            rescued,
            what_to_do: what_to_do(failure.errno, rescued),
        });
        &self.lines[self.lines.len() - 1]
    }

    /// Data that nobody keeps.
    pub(super) fn gone(&mut self, bytes: u64) {
        self.status.gone_bytes += bytes;
    }

    /// As many as are too many, within the window.
    pub(super) fn too_many(&self) -> bool {
        let span =
            self.recent.back().zip(self.recent.front()).map(|(last, first)| last.saturating_sub(*first));
        self.recent.len() == self.refusals_max && span.is_some_and(|span| span <= self.window)
    }

    pub(super) fn clear(&mut self) {
        self.lines.clear();
        self.recent.clear();
    }

    pub(super) fn lines(&self) -> Vec<FailureLine> {
        self.lines.iter().cloned().collect()
    }

    pub(super) fn status(&self) -> LateStatus {
        self.status.clone()
    }
}

/// The name of a mutation, its inode, and the name it is about.
fn named<'a>(mutation: &Mutation<'a>) -> (&'static str, u64, Option<&'a [u8]>) {
    match *mutation {
        Mutation::Make { parent, name, mode, .. } => {
            let op = match mode & libc::S_IFMT {
                libc::S_IFDIR => "mkdir",
                libc::S_IFLNK => "symlink",
                libc::S_IFREG => "create",
                _ => "mknod",
            };
            (op, parent.0, Some(name.bytes()))
        }
        Mutation::Tmpfile { parent, .. } => ("tmpfile", parent.0, None),
        Mutation::Link { parent, name, .. } => ("link", parent.0, Some(name.bytes())),
        Mutation::Unlink { parent, name, .. } => ("unlink", parent.0, Some(name.bytes())),
        Mutation::Rmdir { parent, name, .. } => ("rmdir", parent.0, Some(name.bytes())),
        Mutation::Rename { parent, name, .. } => ("rename", parent.0, Some(name.bytes())),
        Mutation::SetAttr { ino, .. } => ("setattr", ino.0, None),
        Mutation::Write { ino, .. } => ("write", ino.0, None),
        Mutation::Allocate { ino, .. } => ("fallocate", ino.0, None),
        Mutation::Copy { target, .. } => ("copy", target.0, None),
        Mutation::SetXattr { ino, .. } => ("setxattr", ino.0, None),
        Mutation::RemoveXattr { ino, .. } => ("removexattr", ino.0, None),
    }
}

fn what_to_do(errno: Errno, rescued: bool) -> String {
    let first = match errno {
        Errno::ENOSPC => "make room on the server, then repeat it",
        Errno::EDQUOT => "ask for more quota or remove files, then repeat it",
        Errno::EROFS => "the volume takes no changes now; ask its administrator",
        Errno::ESTALE => {
            "the server gave up this mount's session, or somebody changed the file there; look, then repeat it"
        }
        Errno::EEXIST | Errno::ENOENT | Errno::ENOTEMPTY | Errno::ENOTDIR | Errno::EISDIR => {
            "somebody changed the names on the server meanwhile; look, then repeat it"
        }
        Errno::EACCES | Errno::EPERM => "permissions were changed on the server; ask its administrator",
        _ => "see the server's log for the cause, then repeat it",
    };
    let then = if rescued { "; the data is kept: `ringfs rescue list`" } else { "" };
    format!("{first}{then}")
}

/// Failures that are listed.
pub(super) const LINES_MAX: usize = 256;

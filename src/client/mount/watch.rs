//! What an interrupt means. The kernel sends one, and only one, when the waiting thread gets any signal, or merely has
//! work to do for an io_uring of its own. A local file system lets nothing but death end most calls, and a wait for
//! a lock be ended by a signal that somebody handles. So the signals themselves are looked at, in /proc, and as long as
//! they do not end the request they are looked at again from time to time.

use super::Mount;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Between two looks. A person who presses ^C waits so long.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Requests looked at. What is interrupted beyond that waits for its answer.
const WATCHED_MAX: usize = 4096;

/// Who waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asker {
    /// The kernel's number for the request.
    pub unique: u64,
    /// The waiting thread, 0 when it has no number here.
    pub pid: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Watch(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    watched: Vec<u64>,
    thread_runs: bool,
}

impl Watch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mount {
    /// The caller of request `unique` got a signal, it is said.
    pub fn interrupt(self: &Arc<Self>, unique: u64) {
        if self.pending.interrupt(unique) {
            self.interrupted(unique);
        }
    }

    /// A request that the link has was interrupted.
    pub(super) fn interrupted(self: &Arc<Self>, unique: u64) {
        if self.ended_or_called_off(unique) {
            return;
        }
        let mut state = self.watch.state();
        if state.watched.len() < WATCHED_MAX {
            state.watched.push(unique);
            state.thread_runs = state.thread_runs || self.start_watching();
        }
    }

    /// True: nothing more is to be done about it.
    fn ended_or_called_off(&self, unique: u64) -> bool {
        let Some(request) = self.pending.get(unique) else { return true };
        if request.sequence.is_none() && !request.behind {
            return false;
        }
        let ends = signals(request.asker.pid).map_or(request.lock, |signals| signals.end(request.lock));
        match request.sequence {
            _ if !ends => {}
            Some(sequence) => {
                self.link.interrupt(sequence);
            }
            None => self.call_off(unique),
        }
        ends
    }

    fn start_watching(self: &Arc<Self>) -> bool {
        let mount = Arc::downgrade(self);
        let work = move || {
            loop {
                std::thread::sleep(LOOK_EVERY);
                let Some(mount) = mount.upgrade() else { return };
                let watched = std::mem::take(&mut mount.watch.state().watched);
                let left = watched.into_iter().filter(|unique| !mount.ended_or_called_off(*unique));
                let left: Vec<_> = left.collect();
                let mut state = mount.watch.state();
                state.watched.extend(left);
                if state.watched.is_empty() {
                    state.thread_runs = false;
                    return;
                }
            }
        };
        crate::thread::start("ringfs-watch", work).is_ok()
    }
}

/// Signals that wait for a thread, as bits; signal 1 is bit 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Signals {
    waiting: u64,
    blocked: u64,
}

impl Signals {
    /// Whether they end a request. The kernel turns every signal that kills into SIGKILL for each thread. One that only
    /// stops the program or lets it go on ends no wait for a lock: it goes on by itself on a local file system.
    fn end(self, lock: bool) -> bool {
        const STOPS: u64 = bit(libc::SIGSTOP)
            | bit(libc::SIGTSTP)
            | bit(libc::SIGTTIN)
            | bit(libc::SIGTTOU)
            | bit(libc::SIGCONT);
        let dies = self.waiting & bit(libc::SIGKILL) != 0;
        dies || (lock && self.waiting & !self.blocked & !STOPS != 0)
    }
}

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// The signals of a thread. A thread that is gone is as good as killed. `None`: it cannot be looked at.
fn signals(pid: u32) -> Option<Signals> {
    if pid == 0 {
        return None;
    }
    match std::fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => parse(&status),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Some(Signals { waiting: bit(libc::SIGKILL), blocked: 0 })
        }
        Err(_) => None,
    }
}

fn parse(status: &str) -> Option<Signals> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let waiting = field("SigPnd:")? | field("ShdPnd:")?;
    Some(Signals { waiting, blocked: field("SigBlk:")? })
}

#[cfg(test)]
mod tests {
    use super::{Signals, bit, parse, signals};

    #[test]
    fn only_death_ends_a_question_and_any_handled_signal_a_lock() {
        let waiting = |signal| Signals { waiting: bit(signal), blocked: 0 };
        let ends = |signals: Signals| (signals.end(false), signals.end(true));
        assert_eq!(ends(Signals { waiting: 0, blocked: 0 }), (false, false), "io_uring has work for it");
        assert_eq!(ends(waiting(libc::SIGALRM)), (false, true));
        assert_eq!(ends(waiting(libc::SIGKILL)), (true, true));
        assert_eq!(ends(waiting(libc::SIGTSTP)), (false, false));
        let blocked = Signals { waiting: bit(libc::SIGALRM), blocked: bit(libc::SIGALRM) };
        assert_eq!(ends(blocked), (false, false));
    }

    #[test]
    fn the_systems_own_words_are_understood() {
        let ours = signals(std::process::id()).expect("we can look at ourselves");
        assert!(!ours.end(false));
        let status =
            "Name:\tx\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000002\nSigBlk:\t0000000000000002\n";
        assert_eq!(parse(status), Some(Signals { waiting: 0x102, blocked: 2 }));
        assert_eq!(parse("Name:\tx\n"), None);
        assert_eq!(signals(0), None);
        assert!(signals(u32::MAX).is_some_and(|gone| gone.end(false)));
    }
}

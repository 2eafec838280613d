//! Threads and their place among others: which policy the scheduler has for one, and starting one with the ordinary policy.
//!
//! A new thread inherits the policy of the one that starts it. Queue threads may be yielding when they do, so whatever they may
//! start begins through [`start`]: otherwise it would stay behind every other program for its whole life.
#![allow(unsafe_code, reason = "two system calls that no safe crate wraps")]

use nix::unistd::{Pid, gettid};
use std::io;
use std::thread::{Builder, JoinHandle};

/// How the scheduler treats a thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// `SCHED_OTHER`: like most.
    Ordinary,
    /// `SCHED_IDLE`: behind whatever else wants its core, and preempted by it at once.
    Yielding,
    /// Another one, which somebody has chosen.
    Other,
}

/// The policy of a thread of this process.
///
/// # Errors
/// There is no such thread.
pub fn policy(thread: Pid) -> io::Result<Policy> {
    // SAFETY: the call takes a number and touches no memory of this process.
    let number = unsafe { libc::syscall(libc::SYS_sched_getscheduler, thread.as_raw()) };
    match i32::try_from(number) {
        Ok(libc::SCHED_OTHER) => Ok(Policy::Ordinary),
        Ok(libc::SCHED_IDLE) => Ok(Policy::Yielding),
        Ok(number) if number < 0 => Err(io::Error::last_os_error()),
        _ => Ok(Policy::Other),
    }
}

/// Gives a thread of this process another policy; [`Policy::Other`] cannot be given. By system call, since not every C library
/// has the function.
///
/// # Errors
/// There is no such thread, or this process may not: leaving [`Policy::Yielding`] needs `CAP_SYS_NICE` or `RLIMIT_NICE`.
pub fn set_policy(thread: Pid, policy: Policy) -> io::Result<()> {
    let number = match policy {
        Policy::Ordinary => libc::SCHED_OTHER,
        Policy::Yielding => libc::SCHED_IDLE,
        Policy::Other => return Err(io::ErrorKind::InvalidInput.into()),
    };
    // Neither of the two has priorities.
    let priority: libc::c_int = 0;
    // SAFETY: the record of parameters is one integer, `priority`, which the kernel reads during the call.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_setscheduler, thread.as_raw(), number, &raw const priority) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Starts a thread that is ordinary also when the one that starts it yields. That one is ordinary from then on, and whoever
/// watches it finds out when there is reason to: were it the new thread that changes, it might wait long for its first moment.
///
/// # Errors
/// The system gives no thread.
pub fn start<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let own = gettid();
    if policy(own).is_ok_and(|policy| policy == Policy::Yielding) {
        set_policy(own, Policy::Ordinary)?;
    }
    Builder::new().name(name.to_owned()).spawn(work)
}

#[cfg(test)]
mod tests {
    use super::{Policy, policy, set_policy, start};
    use nix::unistd::gettid;

    #[test]
    fn what_a_yielding_thread_starts_is_ordinary() {
        let yielding = start("yielding", || {
            let own = gettid();
            set_policy(own, Policy::Yielding).unwrap();
            assert_eq!(policy(own).unwrap(), Policy::Yielding);
            let inherits = std::thread::spawn(|| policy(gettid()).unwrap()).join().unwrap();
            assert_eq!(inherits, Policy::Yielding, "why `start` is needed");
            start("started", || policy(gettid()).unwrap()).map(|started| started.join().unwrap())
        });
        match yielding.unwrap().join().unwrap() {
            Ok(started) => assert_eq!(started, Policy::Ordinary),
            // Who may not leave never yields; see `kernel::transport::may_yield`.
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
        }
    }

    #[test]
    fn a_policy_that_is_nobodys_cannot_be_given() {
        assert!(set_policy(gettid(), Policy::Other).is_err());
    }
}

//! FUSE over io_uring (Linux 6.14 and newer): a queue for every possible CPU, a pinned thread for every CPU that can be
//! used, one system call per request.
//!
//! In: a mounted device whose INIT is not answered yet. Out: threads that serve. Owns rings, entries and their memory.
//! The kernel uses the ring from the moment each of its queues has an entry, and with the feature agreed and a queue
//! missing it would wait for ever: so everything that can fail is done before INIT is answered, and a refusal
//! after it makes the kernel go back to the device.

mod entry;
mod owner;
mod queue;

pub(super) use owner::{GROWTH_MAX, Owner, RingLease, Seat};

use super::channel::Channel;
use super::dispatch::Dispatcher;
use super::fault::TransportFault;
use super::handler::Negotiated;
use super::running::{End, Shared};
use super::{cpus, probe};
use crate::kernel::abi::InitFlags;
use queue::Queue;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Which thread serves what.
#[derive(Debug)]
pub(super) struct Plan {
    /// CPU and queues of each thread; the own queue first.
    threads: Vec<(usize, Vec<u16>)>,
    depth: usize,
    payload_bytes: usize,
    /// For tests: what REGISTER says of the payload.
    claim_bytes: Option<usize>,
}

impl Plan {
    /// Spreads the queues of all `possible` CPUs over threads on the `usable` ones.
    pub(super) fn new(
        usable: &[usize],
        possible: usize,
        depth: usize,
        payload_bytes: usize,
        claim_bytes: Option<usize>,
    ) -> Self {
        let mut threads: Vec<(usize, Vec<u16>)> = usable.iter().map(|&cpu| (cpu, Vec::new())).collect();
        let count = threads.len();
        for qid in 0..possible {
            let own = usable.iter().position(|&cpu| cpu == qid);
            let Ok(id) = u16::try_from(qid) else { break };
            threads[own.unwrap_or(qid % count)].1.push(id);
        }
        threads.retain(|(_, qids)| !qids.is_empty());
        Self { threads, depth: depth.max(1), payload_bytes, claim_bytes }
    }
}

/// Threads that have their rings and wait for INIT to be answered.
pub(super) struct Prepared {
    go: Vec<Sender<Negotiated>>,
    reports: Receiver<Result<(), String>>,
    pub(super) owners: Vec<Arc<Owner>>,
}

impl Prepared {
    /// Maps the memory, starts the threads and builds their rings. Thread numbers start at 0.
    ///
    /// # Errors
    /// Why this transport cannot be used; nothing is left behind.
    pub(super) fn new(plan: &Plan, shared: &Arc<Shared>, device: &Arc<Channel>) -> Result<Self, String> {
        let (report, reports) = channel();
        let mut prepared = Self { go: Vec::new(), reports, owners: Vec::new() };
        for (number, (cpu, qids)) in plan.threads.iter().enumerate() {
            let qids: Vec<u16> = qids.iter().flat_map(|&qid| std::iter::repeat_n(qid, plan.depth)).collect();
            let owner = Owner::new(qids.len(), plan.payload_bytes, shared.new_token_counters())
                .map_err(|error| format!("no memory for its queues: {error}"))?;
            let owner = Arc::new(owner);
            prepared.owners.push(owner.clone());
            let (go, gone) = channel();
            prepared.go.push(go);
            let start = Start {
                cpu: *cpu,
                qids,
                owner,
                device: device.clone(),
                shared: shared.clone(),
                number,
                claim_bytes: plan.claim_bytes,
            };
            let report = report.clone();
            shared
                .spawn(format!("ringfs-q{cpu}"), move || start.run(&report, &gone))
                .map_err(|fault| fault.to_string())?;
        }
        prepared.reported()?;
        Ok(prepared)
    }

    /// Registers every entry, now that INIT is answered.
    ///
    /// # Errors
    /// Why the kernel refused. It sends everything to the device then; the threads need not be stopped.
    pub(super) fn register(self, negotiated: &Negotiated) -> Result<(), String> {
        for go in &self.go {
            // A thread that is gone has reported why.
            let _ = go.send(*negotiated);
        }
        self.reported()
    }

    /// Waits for one report of each thread.
    fn reported(&self) -> Result<(), String> {
        let mut result = Ok(());
        for _ in &self.go {
            let report = self.reports.recv().unwrap_or_else(|_| Err("its threads died".to_owned()));
            result = result.and(report);
        }
        result
    }
}

/// What a queue thread starts with.
struct Start {
    cpu: usize,
    qids: Vec<u16>,
    owner: Arc<Owner>,
    device: Arc<Channel>,
    shared: Arc<Shared>,
    number: usize,
    claim_bytes: Option<usize>,
}

impl Start {
    fn run(self, report: &Sender<Result<(), String>>, go: &Receiver<Negotiated>) -> Option<End> {
        let counters = self.shared.new_counters();
        if let Err(error) = cpus::pin(self.cpu) {
            // Served from another core each request costs a wake-up across cores, but it works.
            tracing::warn!("cannot pin a queue thread to CPU {}: {error}", self.cpu);
        }
        let mut queue = match Queue::new(self.owner, self.device.raw(), &self.qids) {
            Ok(queue) => queue,
            Err(error) => {
                let _ = report.send(Err(probe::ring_refusal(&error)));
                return None;
            }
        };
        let _ = report.send(Ok(()));
        let negotiated = go.recv().ok()?;
        let setxattr_ext = negotiated.flags.has(InitFlags::SETXATTR_EXT);
        let dispatcher =
            Dispatcher { handler: self.shared.handler.clone(), counters, thread: self.number, setxattr_ext };
        let registered = queue.register(self.claim_bytes, &dispatcher);
        let _ = report.send(registered.map_err(|errno| {
            format!("the kernel refused its queues ({})", std::io::Error::from_raw_os_error(errno))
        }));
        // Also when some were refused: entries of the other queues stay with the kernel until the mount ends.
        match queue.serve(&dispatcher, self.shared.join_watch()) {
            Ok(()) => None,
            Err(error) => Some(End::Failed(format!("io_uring_enter: {error}"))),
        }
    }
}

/// What the device's own thread and the fallback need to know if the plan cannot be made.
pub(super) fn plan(
    depth: usize,
    payload_bytes: usize,
    claim_bytes: Option<usize>,
) -> Result<Plan, TransportFault> {
    let usable = cpus::usable().map_err(TransportFault::system("cannot tell the usable CPUs"))?;
    let possible = cpus::possible().map_err(TransportFault::system("cannot tell the possible CPUs"))?;
    Ok(Plan::new(&usable, possible, depth, payload_bytes, claim_bytes))
}

#[cfg(test)]
mod tests {
    use super::Plan;

    #[test]
    fn every_possible_cpu_has_a_queue_and_own_queues_stay_at_home() {
        let plan = Plan::new(&[2, 5], 8, 4, 4096, None);
        assert_eq!(plan.threads.iter().map(|(cpu, _)| *cpu).collect::<Vec<_>>(), [2, 5]);
        assert!(plan.threads[0].1.contains(&2) && plan.threads[1].1.contains(&5));
        let mut all: Vec<u16> = plan.threads.iter().flat_map(|(_, qids)| qids.clone()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..8).collect::<Vec<_>>());
    }
}

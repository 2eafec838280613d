//! Which CPUs there are, which this process may use, and pinning to them.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::io;

/// CPUs the kernel keeps a queue for: their number, whether they are online or not.
pub(super) fn possible() -> io::Result<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let cpus =
        parse_list(&text).ok_or_else(|| io::Error::other(format!("strange list of CPUs: {text:?}")))?;
    Ok(cpus.len())
}

/// CPUs this thread may run on that are online: pinning to any other fails. Never empty.
pub(super) fn usable() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let online =
        std::fs::read_to_string("/sys/devices/system/cpu/online").ok().and_then(|text| parse_list(&text));
    let cpus: Vec<usize> = (0..CpuSet::count())
        .filter(|&cpu| allowed.is_set(cpu).unwrap_or(false))
        .filter(|cpu| online.as_ref().is_none_or(|list| list.contains(cpu)))
        .collect();
    if cpus.is_empty() { Err(io::Error::other("no CPU is both online and allowed")) } else { Ok(cpus) }
}

/// Pins the calling thread.
pub(super) fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Reads `0-3,8,10-11`.
fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        // No machine has as many: a broken file must not fill the memory.
        if last >= 1 << 16 || first > last {
            return None;
        }
        cpus.extend(first..=last);
    }
    (!cpus.is_empty()).then_some(cpus)
}

#[cfg(test)]
mod tests {
    use super::parse_list;

    #[test]
    fn lists_of_cpus_are_read_and_nonsense_is_not() {
        assert_eq!(parse_list("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_list("0"), Some(vec![0]));
        for bad in ["", "a", "3-1", "0-99999999"] {
            assert_eq!(parse_list(bad), None, "{bad}");
        }
    }
}

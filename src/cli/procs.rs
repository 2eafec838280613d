//! Who keeps a mount busy: looks through /proc, best effort, without touching the mount.

use std::path::{Path, PathBuf};

/// How many processes an error names.
const NAMED_MAX: usize = 5;

/// Processes with a descriptor, a directory or a mapping on the mount, as `name (pid)`; one line for an error.
#[must_use]
pub(super) fn users_of(point: &Path, number: u64) -> String {
    let mut users = Vec::new();
    let mut more = 0;
    for pid in pids() {
        if pid == std::process::id() || !uses(pid, point, number) {
            continue;
        }
        if users.len() < NAMED_MAX {
            users.push(format!("{} ({pid})", name_of(pid)));
        } else {
            more += 1;
        }
    }
    match (users.is_empty(), more) {
        (true, _) => "none of the processes visible here; another container or a mount inside it may".into(),
        (false, 0) => users.join(", "),
        (false, more) => format!("{} and {more} more", users.join(", ")),
    }
}

/// Start time of a process in clock ticks since boot: together with its number it names it for good.
#[must_use]
pub(super) fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the name, may hold spaces and parentheses; the fields after it do not.
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_ascii_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?.parse().ok()?;
    (state != "Z" && state != "X").then_some(start)
}

fn pids() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).collect()
}

fn uses(pid: u32, point: &Path, number: u64) -> bool {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let inside = |link: PathBuf| std::fs::read_link(link).is_ok_and(|target| target.starts_with(point));
    if ["cwd", "root", "exe"].iter().any(|link| inside(proc.join(link))) {
        return true;
    }
    if let Ok(descriptors) = std::fs::read_dir(proc.join("fd"))
        && descriptors.flatten().any(|entry| inside(entry.path()))
    {
        return true;
    }
    // ADDRESS PERMS OFFSET MAJOR:MINOR INODE PATH, the device in hexadecimal.
    let device = format!("00:{number:02x}");
    std::fs::read_to_string(proc.join("maps"))
        .is_ok_and(|maps| maps.lines().any(|line| line.split_ascii_whitespace().nth(3) == Some(&device)))
}

fn name_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .map_or_else(|_| "?".into(), |name| name.trim().into())
}

#[cfg(test)]
mod tests {
    use super::{start_of, users_of};
    use std::path::Path;

    #[test]
    fn a_living_process_has_a_start_and_a_dead_one_has_none() {
        assert!(start_of(std::process::id()).is_some());
        assert_eq!(start_of(u32::MAX), None);
    }

    #[test]
    fn a_process_with_an_open_file_below_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let point = folder.path().canonicalize().unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").current_dir(&point).spawn().unwrap();
        let users = users_of(&point, u64::MAX);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(users, format!("sleep ({})", child.id()));
        assert!(users_of(Path::new("/nowhere"), u64::MAX).starts_with("none"));
    }
}

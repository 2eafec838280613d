//! What needs no mount: help, wrong command lines, `doctor`, `bench`, and paths that are not on ringfs.

use crate::fixture::{RINGFS, ringfs, run};
use std::process::{Command, Stdio};

#[test]
fn help_goes_to_the_output_and_names_every_command() {
    let help = ringfs(&["help"]).ok();
    for command in ["mount", "umount", "serve", "status", "flush", "info", "fsck", "doctor", "bench"] {
        assert!(help.out.contains(&format!("\n  {command} ")), "{command}");
        let of_command = ringfs(&[command, "--help"]).ok();
        assert!(of_command.out.contains("Usage: ringfs "), "{command}");
    }
    assert!(help.err.is_empty());
    assert!(ringfs(&["--version"]).ok().out.starts_with("ringfs "));
}

#[test]
fn a_wrong_command_line_is_one_line_and_exit_code_two() {
    ringfs(&["mont", "/a", "/b"]).fails(2, &["mont", "ringfs help"]);
    ringfs(&["mount", "/a"]).fails(2, &["<DIR>"]);
    ringfs(&["mount", "/a", "/b", "--transport", "warp"]).fails(2, &["warp", "uring"]);
    ringfs(&["mount", "/a", "/b", "-o", "rw,blorp"]).fails(2, &["blorp"]);
    ringfs(&["mount", "tcp://host", "/b", "-f"]).fails(2, &["tcp://host", "tcp://HOST:PORT"]);
    ringfs(&["serve", "/a"]).fails(2, &["--listen"]);
    ringfs(&["umount", "--force", "--lazy", "/a"]).fails(2, &["--lazy"]);
    ringfs(&["bench", "/tmp", "--threads", "0"]).fails(2, &["--threads"]);
}

#[test]
fn paths_that_are_not_ringfs_are_named_with_where_to_look() {
    ringfs(&["umount", "/proc"]).fails(1, &["/proc", "type proc"]);
    ringfs(&["umount", "/nowhere/at/all"]).fails(1, &["not a mount point", "ringfs status"]);
    ringfs(&["flush", "/"]).fails(1, &["not of ringfs"]);
    ringfs(&["info", "/etc/passwd"]).fails(1, &["not on a ringfs mount"]);
    ringfs(&["status", "/etc"]).fails(1, &["not on a ringfs mount"]);
}

#[test]
fn doctor_judges_every_thing_once_and_its_json_says_the_same() {
    let text = ringfs(&["doctor"]);
    let json = ringfs(&["doctor", "--json"]);
    assert_eq!(text.code, json.code);
    let value = json.json();
    let checks = value["checks"].as_array().unwrap();
    assert!(checks.len() >= 8);
    for check in checks {
        let state = check["state"].as_str().unwrap();
        assert!(text.out.contains(&format!("{state:<4}  {}", check["name"].as_str().unwrap())), "{check}");
        assert_eq!(check["remedy"].as_str().unwrap().is_empty(), state == "OK", "{check}");
    }
    let failed = checks.iter().any(|check| check["state"] == "FAIL");
    assert_eq!(json.code, if failed { 4 } else { 0 });
}

#[test]
fn bench_runs_on_any_file_system_and_cleans_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let table = ringfs(&["bench", path, "--files", "20", "--threads", "2", "--size", "100", "--fsync"]).ok();
    let phases: Vec<_> = table.out.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(phases[..7], ["phase", "create", "stat", "read", "rename", "list", "unlink"]);
    let json = ringfs(&["bench", path, "--files", "20", "--json", "--shared"]).ok().json();
    assert_eq!(json["phases"][0]["calls"], 20);
    assert_eq!(std::fs::read_dir(path).unwrap().count(), 0);
    ringfs(&["bench", "/nowhere"]).fails(1, &["/nowhere"]);
}

#[test]
fn a_reader_that_goes_away_does_not_hurt() {
    let mut child =
        Command::new(RINGFS).arg("doctor").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let status = child.wait().unwrap();
    assert!(matches!(status.code(), Some(0 | 4)), "{status:?}");
}

#[test]
fn without_proc_the_mount_table_is_missed_with_a_reason() {
    if !crate::fixture::can_mount() {
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", "mount -t tmpfs none /proc && exec \"$0\" status", RINGFS]);
    run(command).fails(1, &["/proc/self/mountinfo", "is /proc mounted"]);
}

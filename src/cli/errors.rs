//! `ringfs errors`: what was answered as done and refused later.

use super::args::ErrorsArgs;
use super::fail::{Exit, Failure};
use super::print;
use super::target::{MEMORY_PATIENCE, ask_daemon, mount_at};
use crate::client::late::LateReport;
use crate::control::Ask;

/// Runs the command.
///
/// # Errors
/// The daemon does not answer.
pub(super) fn run(args: &ErrorsArgs) -> Result<Exit, Failure> {
    let mount = mount_at(&args.dir)?;
    let failed = |why: String| Failure::new(format!("{}: {why}", args.dir.display()));
    let answer = ask_daemon(&mount, Ask::Errors { clear: args.clear }, MEMORY_PATIENCE)
        .map_err(|fault| failed(fault.to_string()))?;
    let report: LateReport =
        serde_json::from_value(answer.clone()).map_err(|error| failed(format!("not understood: {error}")))?;
    if args.json {
        print::json(&answer)?;
    } else {
        print::text(&text(&report, args.clear))?;
    }
    Ok(if report.failures.is_empty() || args.clear { Exit::Ok } else { Exit::Found })
}

fn text(report: &LateReport, cleared: bool) -> String {
    let mut out = String::new();
    for line in &report.failures {
        let path = line.path.as_deref().unwrap_or("?");
        out += &format!(
            "{:>5}  {}  {} {path} (inode {}): {}\n       {}\n",
            line.number, line.seconds, line.op, line.ino, line.errno, line.what_to_do
        );
    }
    let status = &report.status;
    if status.failures == 0 {
        out += "nothing was refused late\n";
    } else {
        let listed = report.failures.len();
        out += &format!("{} refused late since the mount began, {listed} listed\n", status.failures);
    }
    if status.gone_bytes > 0 {
        out += &format!("{} of data are gone: there was no rescue area\n", print::bytes(status.gone_bytes));
    }
    if report.degraded && cleared {
        out += "changes are completed locally again\n";
    } else if report.degraded {
        out += "every change waits for the server, since too many were refused; `ringfs errors --clear` ends that\n";
    }
    out
}

#[cfg(test)]
mod tests {
    use super::text;
    use crate::client::late::{FailureLine, LateReport, LateStatus};

    #[test]
    fn the_list_is_for_people() {
        let line = FailureLine {
            number: 7,
            seconds: 1_700_000_000,
            op: "write".into(),
            path: Some("dir/file".into()),
            ino: 42,
            errno: "ENOSPC".into(),
            rescued: true,
            what_to_do: "make room".into(),
        };
        let status = LateStatus { failures: 9, gone_bytes: 2048, ..LateStatus::default() };
        let report = LateReport { degraded: true, failures: vec![line], status };
        let told = text(&report, false);
        assert!(
            told.contains("    7  1700000000  write dir/file (inode 42): ENOSPC\n       make room\n"),
            "{told}"
        );
        assert!(told.contains("9 refused late since the mount began, 1 listed") && told.contains("2.0 KiB"));
        assert!(told.contains("every change waits") && text(&report, true).contains("locally again"));
        let nothing = LateReport { degraded: false, failures: Vec::new(), status: LateStatus::default() };
        assert_eq!(text(&nothing, false), "nothing was refused late\n");
    }
}

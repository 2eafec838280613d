//! `ringfs status`: asks daemons through their control sockets, servers through their address; never a mount itself.

use super::args::StatusArgs;
use super::fail::{Exit, Failure};
use super::mountinfo::Mount;
use super::print;
use super::server_address;
use super::target::{MEMORY_PATIENCE, all_mounts, ask_daemon, mount_of};
use crate::control::{Ask, ControlFault};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Runs the command. Of several mounts all are shown, also when one does not answer.
///
/// # Errors
/// The target is not there or does not answer.
pub(super) fn run(args: &StatusArgs) -> Result<Exit, Failure> {
    match &args.target {
        Some(target) if server_address::is_address(target) => {
            let status = server_address::status(target, args.secret_file.as_deref())?;
            show(args.json, &status, &format!("server {target}"))?;
            Ok(Exit::Ok)
        }
        Some(target) => {
            let (mount, _) = mount_of(Path::new(target))?;
            let status = of_mount(&mount).map_err(|fault| no_answer(&mount, &fault))?;
            show(args.json, &status, &title(&mount))?;
            Ok(Exit::Ok)
        }
        None => every_mount(args),
    }
}

fn every_mount(args: &StatusArgs) -> Result<Exit, Failure> {
    let mounts = all_mounts()?;
    let mut exit = Exit::Ok;
    let mut statuses = Vec::with_capacity(mounts.len());
    for mount in &mounts {
        statuses.push(of_mount(mount).unwrap_or_else(|fault| {
            exit = Exit::Failed;
            json!({ "mount": of_table(mount), "error": no_answer(mount, &fault).to_string() })
        }));
    }
    if args.json {
        print::json(&json!({ "mounts": statuses }))?;
        return Ok(exit);
    }
    if mounts.is_empty() {
        print::text("no ringfs mounts on this host\n")?;
    }
    for (mount, status) in mounts.iter().zip(&statuses) {
        show(false, status, &title(mount))?;
    }
    Ok(exit)
}

fn of_mount(mount: &Mount) -> Result<Value, ControlFault> {
    let answer = ask_daemon(mount, Ask::Status, MEMORY_PATIENCE)?;
    let mut status = Map::new();
    status.insert("mount".into(), of_table(mount));
    if let Value::Object(told) = answer {
        status.extend(told);
    }
    Ok(Value::Object(status))
}

/// What the mount table alone says.
fn of_table(mount: &Mount) -> Value {
    let waiting = std::fs::read_to_string(format!("/sys/fs/fuse/connections/{}/waiting", mount.number));
    json!({
        "point": mount.point,
        "source": mount.source,
        "options": mount.options,
        "connection": mount.number,
        "requests_waiting": waiting.ok().and_then(|text| text.trim().parse::<u64>().ok()),
    })
}

fn title(mount: &Mount) -> String {
    format!("{} on {}", mount.source, mount.point.display())
}

fn no_answer(mount: &Mount, fault: &ControlFault) -> Failure {
    let point = mount.point.display();
    let remedy = match fault {
        ControlFault::Unreachable { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            format!(
                "its daemon is gone, or belongs to a user you may not ask; `ringfs umount {point}` cleans up"
            )
        }
        ControlFault::Unreachable { .. } => {
            format!("`ringfs umount {point}` cleans up if its daemon is gone")
        }
        _ => format!("`ringfs umount --force {point}` ends it"),
    };
    Failure::new(format!("{point}: {fault}; {remedy}"))
}

/// Parts of a mount's status, in the order in which a person looks for the cause of something.
const SHOWN_FIRST: [&str; 9] =
    ["error", "mount", "transport", "link", "client", "requests", "system_calls", "yielding", "daemon"];

fn show(as_json: bool, status: &Value, title: &str) -> Result<(), Failure> {
    if as_json {
        return print::json(status);
    }
    let mut text = format!("{title}\n");
    // What a person asks first comes first; JSON has no order.
    for part in SHOWN_FIRST {
        if let Some(value) = status.get(part) {
            tree(&mut text, &json!({ part: value }), 1);
        }
    }
    let mut rest = status.clone();
    if let Some(fields) = rest.as_object_mut() {
        fields.retain(|name, _| !SHOWN_FIRST.contains(&name.as_str()));
    }
    tree(&mut text, &rest, 1);
    print::text(&text)
}

/// Nested objects as indented lines; what is empty or unknown is left out.
pub(super) fn tree(text: &mut String, value: &Value, depth: usize) {
    let Value::Object(fields) = value else { return };
    for (name, value) in fields {
        let label = name.replace('_', " ");
        match value {
            Value::Null => {}
            Value::Object(inner) if inner.is_empty() => {}
            Value::Array(items) if items.is_empty() => {}
            Value::Object(_) => {
                text.push_str(&format!("{:indent$}{label}:\n", "", indent = depth * 2));
                tree(text, value, depth + 1);
            }
            Value::Array(items) if name == "warnings" => {
                text.push_str(&format!("{:indent$}{label}:\n", "", indent = depth * 2));
                for item in items {
                    let line = scalar_text(name, item);
                    text.push_str(&format!("{:indent$}{line}\n", "", indent = depth * 2 + 2));
                }
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                for (number, item) in items.iter().enumerate() {
                    text.push_str(&format!("{:indent$}{label} {number}:\n", "", indent = depth * 2));
                    tree(text, item, depth + 1);
                }
            }
            scalar => {
                let shown = scalar_text(name, scalar);
                let width = 28_usize.saturating_sub(depth * 2);
                text.push_str(&format!("{:indent$}{label:<width$} {shown}\n", "", indent = depth * 2));
            }
        }
    }
}

fn scalar_text(name: &str, value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(|item| scalar_text(name, item)).collect::<Vec<_>>().join(" "),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.into(),
        Value::Number(number) if name.split('_').any(|word| word == "bytes") => {
            number.as_u64().map_or_else(|| number.to_string(), print::bytes)
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::tree;
    use serde_json::json;

    #[test]
    fn a_status_is_told_in_indented_lines_without_what_is_unknown() {
        let mut text = String::new();
        let status = json!({
            "transport": { "in_use": "uring", "why_not_better": null, "flags": ["A", "B"], "empty": {} },
            "memory_bytes": 2048,
            "sessions": [{ "host": "a", "alive": true }],
            "warnings": ["one thing", "another"],
        });
        tree(&mut text, &status, 1);
        let lines: Vec<_> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let expected = [
            "memory bytes 2.0 KiB",
            "sessions 0:",
            "alive yes",
            "host a",
            "transport:",
            "flags A B",
            "in use uring",
            "warnings:",
            "one thing",
            "another",
        ];
        assert_eq!(lines, expected);
    }
}

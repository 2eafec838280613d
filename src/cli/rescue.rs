//! `ringfs rescue`: the data of writes that were refused late. It works on the files of the rescue area, so that it needs no
//! mount; a mount is asked only where they are.

use super::args::{RescueAction, RescueArgs};
use super::fail::Failure;
use super::print;
use super::target::{MEMORY_PATIENCE, ask_daemon, mount_at};
use crate::client::late::{self, Item};
use crate::control::Ask;
use std::path::{Path, PathBuf};

/// Runs the command.
///
/// # Errors
/// One line that names what could not be done.
pub(super) fn run(args: &RescueArgs) -> Result<(), Failure> {
    match &args.action {
        RescueAction::List { dir, json } => {
            let items = late::list(&area(dir)?).map_err(Failure::new)?;
            if *json {
                return print::json(&serde_json::to_value(&items).unwrap_or_default());
            }
            print::text(&text(&items))
        }
        RescueAction::Show { dir, id } => {
            print::text(&late::range_lines(&area(dir)?, id).map_err(Failure::new)?)
        }
        RescueAction::Save { dir, id, to } => {
            let bytes = late::retrieve(&area(dir)?, id, to).map_err(Failure::new)?;
            print::text(&format!("{}: {}\n", to.display(), print::bytes(bytes)))
        }
        RescueAction::Drop { dir, id } => late::discard(&area(dir)?, id).map_err(Failure::new),
    }
}

/// The folder of a rescue area: that of a mount, or itself.
fn area(dir: &Path) -> Result<PathBuf, Failure> {
    let Ok(mount) = mount_at(dir) else { return Ok(dir.to_owned()) };
    let failed = |why: String| Failure::new(format!("{}: {why}", dir.display()));
    let told = ask_daemon(&mount, Ask::Errors { clear: false }, MEMORY_PATIENCE)
        .map_err(|fault| failed(fault.to_string()))?;
    let folder = told.pointer("/status/rescue").and_then(|folder| folder.as_str()).map(PathBuf::from);
    folder.ok_or_else(|| failed("it has no rescue area; `ringfs mount --rescue FOLDER` makes one".into()))
}

fn text(items: &[Item]) -> String {
    if items.is_empty() {
        return "nothing was rescued\n".to_owned();
    }
    let line = |item: &Item| {
        let path = if item.path.is_empty() { "?" } else { &item.path };
        let bytes = print::bytes(item.bytes);
        format!("{:>12}  {bytes:>10}  {}  {:<8} {path}\n", item.id, item.seconds, item.errno)
    };
    items.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::{area, text};
    use crate::client::late::Item;
    use std::path::Path;

    #[test]
    fn what_is_no_mount_is_taken_for_the_area_itself() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(area(folder.path()).unwrap(), folder.path());
    }

    #[test]
    fn the_list_names_the_path_or_says_that_it_does_not_know_it() {
        let item = |path: &str| Item {
            id: "12".into(),
            path: path.into(),
            errno: "EIO".into(),
            seconds: 5,
            bytes: 4096,
            data: Path::new("/x").into(),
        };
        let told = text(&[item("a/b"), item("")]);
        assert!(told.contains("4.0 KiB  5  EIO      a/b\n") && told.ends_with(" ?\n"), "{told}");
        assert_eq!(text(&[]), "nothing was rescued\n");
    }
}

//! `ringfs info`: what is known of one file or directory, from its attributes, its map of data, and its mount.

use super::args::{InfoArgs, Question};
use super::fail::Failure;
use super::print;
use super::probe::{self, Answer};
use super::status::tree;
use super::target::{MEMORY_PATIENCE, ask_daemon, mount_of};
use crate::control::Ask;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use serde_json::{Value, json};
use std::fs::{File, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Data ranges told of one file; a file with more says so.
const RANGES_MAX: usize = 64;

/// How long the mount itself may take to answer.
const MOUNT_PATIENCE: Duration = Duration::from_secs(10);

/// Runs the command.
///
/// # Errors
/// The path is not on a ringfs mount, or the mount does not answer.
pub(super) fn run(args: &InfoArgs) -> Result<(), Failure> {
    let (mount, path) = mount_of(&args.path)?;
    let mut info = json!({
        "path": path,
        "mount": mount.point,
        "source": mount.source,
        "file": ask_mount(&path)?,
    });
    if let Ok(status) = ask_daemon(&mount, Ask::Status, MEMORY_PATIENCE) {
        info["transport"] = status["transport"]["in_use"].clone();
        info["volume"] = status["link"]["volume"].clone();
    }
    if args.json {
        return print::json(&info);
    }
    let mut text = String::new();
    tree(&mut text, &info, 0);
    print::text(&text)
}

/// Asks the mount, which may hang.
fn ask_mount(path: &Path) -> Result<Value, Failure> {
    let shown = path.display();
    match probe::ask(Question::Describe, path, MOUNT_PATIENCE)? {
        Answer::Ok(value) => Ok(value),
        Answer::Errno(errno) => {
            Err(Failure::new(format!("{shown}: {}", std::io::Error::from_raw_os_error(errno.raw()))))
        }
        Answer::Silent => Err(Failure::new(format!(
            "{shown}: the mount did not answer within {} s; `ringfs status {shown}` works without it",
            MOUNT_PATIENCE.as_secs()
        ))),
    }
}

/// What its attributes and its map of data say of a file.
///
/// # Errors
/// The mount's own.
pub(super) fn describe(path: &Path) -> std::io::Result<Value> {
    let meta = std::fs::symlink_metadata(path)?;
    let mut value = json!({
        "inode": meta.ino(),
        "type": kind(&meta),
        "mode": format!("{:04o}", meta.mode() & 0o7777),
        "links": meta.nlink(),
        "uid": meta.uid(),
        "gid": meta.gid(),
        "size_bytes": meta.size(),
        "stored_bytes": meta.blocks().saturating_mul(512),
        "modified": seconds(meta.modified()),
        "accessed": seconds(meta.accessed()),
        "changed": format!("{}.{:09}", meta.ctime(), meta.ctime_nsec()),
        "created": seconds(meta.created()),
    });
    if meta.is_symlink() {
        value["target"] = std::fs::read_link(path)?.display().to_string().into();
    }
    if meta.is_file() {
        // Attributes are readable without the right to read the bytes.
        if let Ok(file) = File::open(path) {
            let (ranges, all) = data_ranges(&file, meta.size())?;
            value["data_ranges"] = ranges.iter().map(|(from, to)| format!("{from}..{to}")).collect();
            value["all_ranges_shown"] = all.into();
        }
    }
    Ok(value)
}

/// Byte ranges that hold data, in order, and whether these are all.
fn data_ranges(file: &File, size: u64) -> std::io::Result<(Vec<(u64, u64)>, bool)> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < size {
        let from = match seek(file, at, Whence::SeekData) {
            Err(Errno::ENXIO) => break,
            other => other?,
        };
        if ranges.len() == RANGES_MAX {
            return Ok((ranges, false));
        }
        let to = seek(file, from, Whence::SeekHole)?;
        ranges.push((from, to));
        at = to;
    }
    Ok((ranges, true))
}

fn seek(file: &File, from: u64, whence: Whence) -> Result<u64, Errno> {
    let from = i64::try_from(from).map_err(|_past| Errno::ENXIO)?;
    let found = lseek(file, from, whence)?;
    u64::try_from(found).map_err(|_negative| Errno::EIO)
}

fn kind(meta: &Metadata) -> &'static str {
    let kind = meta.file_type();
    match () {
        () if kind.is_file() => "file",
        () if kind.is_dir() => "directory",
        () if kind.is_symlink() => "symlink",
        () if kind.is_fifo() => "fifo",
        () if kind.is_socket() => "socket",
        () if kind.is_char_device() => "character device",
        () if kind.is_block_device() => "block device",
        () => "unknown",
    }
}

/// Seconds and nanoseconds since the epoch, exact.
fn seconds(time: std::io::Result<SystemTime>) -> Option<String> {
    let since = time.ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{}.{:09}", since.as_secs(), since.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::{data_ranges, describe};
    use std::io::{Seek, SeekFrom, Write};

    #[test]
    fn ranges_of_data_leave_holes_out() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 4096]).unwrap();
        file.seek(SeekFrom::Start(1 << 20)).unwrap();
        file.write_all(&[2; 4096]).unwrap();
        let size = (1 << 20) + 4096;
        let (ranges, all) = data_ranges(&file, size).unwrap();
        assert!(all);
        assert_eq!(ranges.first().map(|r| r.0), Some(0));
        assert_eq!(ranges.last().map(|r| r.1), Some(size));
    }

    #[test]
    fn a_symlink_is_described_itself_not_its_target() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        let value = describe(&link).unwrap();
        assert_eq!((value["type"].as_str(), value["target"].as_str()), (Some("symlink"), Some("nowhere")));
    }
}

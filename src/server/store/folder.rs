//! The folder of a store: may it be used, by whom, and which format is in it.

use super::OpenFault;
use crate::server::meta::superblock::FORMAT;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Held as long as the store is open; the system drops it with the process.
pub(super) struct Lock {
    _file: File,
}

const MARK: &str = "format";
const MARK_NEW: &str = "format.new";
const MARK_TEXT: &str = "ringfs store format ";
/// What a folder may hold that is not marked yet: a store whose making was interrupted, or the root of a disk.
const OWN_NAMES: [&str; 5] = ["lock", "meta", "segments", MARK_NEW, "lost+found"];

fn disk_fault(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenFault {
    let path = path.to_path_buf();
    move |source| OpenFault::Disk { action, path, source }
}

/// Makes the folder if it is missing, refuses it if it is something else, and locks it. Says whether it holds a
/// finished store.
pub(super) fn enter(folder: &Path) -> Result<(Lock, bool), OpenFault> {
    match std::fs::metadata(folder) {
        Ok(found) if !found.is_dir() => return Err(OpenFault::NotAFolder { path: folder.to_path_buf() }),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(folder).map_err(disk_fault("make", folder))?;
        }
        Err(error) => return Err(disk_fault("open", folder)(error)),
    }
    // Before anything is written: a folder of somebody else is left as it is.
    if !read_mark(folder)? {
        refuse_strangers(folder)?;
    }
    let lock = take_lock(folder)?;
    // Once more: another process may have finished making the store before it let the lock go.
    let marked = read_mark(folder)?;
    Ok((lock, marked))
}

fn refuse_strangers(folder: &Path) -> Result<(), OpenFault> {
    for entry in std::fs::read_dir(folder).map_err(disk_fault("list", folder))? {
        let name = entry.map_err(disk_fault("list", folder))?.file_name();
        if !OWN_NAMES.iter().any(|own| name == **own) && name != MARK {
            return Err(OpenFault::NotAStore { path: folder.to_path_buf() });
        }
    }
    Ok(())
}

fn take_lock(folder: &Path) -> Result<Lock, OpenFault> {
    let path = folder.join("lock");
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = file.map_err(disk_fault("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let read = file.read_to_string(&mut text);
            let pid = read.ok().and_then(|_| text.trim().parse().ok());
            return Err(OpenFault::InUse { path: folder.to_path_buf(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(disk_fault("lock", &path)(error)),
    }
    // Only for the message to a second process; a full disk must not keep the store from being opened.
    let note = || {
        file.rewind()?;
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())
    };
    let _noted = { note }();
    Ok(Lock { _file: file })
}

/// Whether the folder holds a finished store; refuses a format this program does not know.
fn read_mark(folder: &Path) -> Result<bool, OpenFault> {
    let path = folder.join(MARK);
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(disk_fault("read", &path))?,
    };
    let number = std::str::from_utf8(&text).ok().and_then(|text| {
        let number = text.lines().next()?.strip_prefix(MARK_TEXT)?;
        number.parse().ok()
    });
    check_format(folder, number.ok_or(OpenFault::BadFormat { path })?)?;
    Ok(true)
}

/// Refuses a format this program does not know.
pub(super) fn check_format(folder: &Path, found: u32) -> Result<(), OpenFault> {
    if found <= FORMAT {
        return Ok(());
    }
    Err(OpenFault::Newer { path: folder.to_path_buf(), found, known: FORMAT })
}

/// Marks the folder as a finished store, for good.
pub(super) fn mark(folder: &Path) -> Result<(), OpenFault> {
    let (new, path): (PathBuf, PathBuf) = (folder.join(MARK_NEW), folder.join(MARK));
    let write = || {
        let mut file = File::create(&new)?;
        writeln!(file, "{MARK_TEXT}{FORMAT}")?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(disk_fault("write", &path))
}

/// 16 random bytes of the system.
pub(super) fn random() -> Result<[u8; 16], OpenFault> {
    let random = ring::rand::generate(&ring::rand::SystemRandom::new());
    random.map(ring::rand::Random::expose).map_err(|_| OpenFault::NoRandom)
}

//! What belongs to the whole host: changed by one test at a time, and put back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static HOST: RwLock<()> = RwLock::new(());

/// Held by tests that mount: the host stays as it is meanwhile.
pub(crate) fn as_it_is() -> RwLockReadGuard<'static, ()> {
    HOST.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Held by a test that changes the host.
pub(crate) struct Host {
    undo: Vec<Undo>,
    _alone: RwLockWriteGuard<'static, ()>,
}

enum Undo {
    Write(PathBuf, Vec<u8>),
    Mode(PathBuf, u32),
}

impl Host {
    pub(crate) fn alone() -> Self {
        let alone = HOST.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        Self { undo: Vec::new(), _alone: alone }
    }

    /// Writes a parameter; false when this host does not have it.
    pub(crate) fn set(&mut self, path: &str, value: &str) -> bool {
        let Ok(before) = fs::read(path) else {
            eprintln!("skipped: this host has no {path}");
            return false;
        };
        if fs::write(path, value).is_err() {
            eprintln!("skipped: {path} cannot be changed here");
            return false;
        }
        self.undo.push(Undo::Write(path.into(), before));
        true
    }

    pub(crate) fn chmod(&mut self, path: &str, mode: u32) {
        let before = fs::metadata(path).unwrap().permissions().mode();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        self.undo.push(Undo::Mode(path.into(), before));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for undo in self.undo.drain(..).rev() {
            match undo {
                Undo::Write(path, value) => fs::write(path, value).unwrap(),
                Undo::Mode(path, mode) => {
                    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap()
                }
            }
        }
    }
}

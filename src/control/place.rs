//! Where control sockets lie: `FOLDER/mount-N.sock`, N being the number of the FUSE connection (the minor device
//! number of the mount, as in /sys/fs/fuse/connections/N).

use nix::unistd::{Uid, User};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Folders that may hold the sockets of mounts made by `uid`, best first. Only folders that nobody else can write to
/// are used ([`usable`]), so a stranger cannot stand in for a daemon.
#[must_use]
pub fn folders(uid: Uid) -> Vec<PathBuf> {
    let mut folders = Vec::with_capacity(3);
    if uid.is_root() {
        folders.push(PathBuf::from("/run/ringfs"));
    } else {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| uid == nix::unistd::geteuid());
        if let Some(runtime) = runtime {
            folders.push(PathBuf::from(runtime).join("ringfs"));
        }
        folders.push(PathBuf::from(format!("/run/user/{uid}/ringfs")));
    }
    folders.push(PathBuf::from(format!("/tmp/ringfs-{uid}")));
    folders
}

/// Path of the socket of connection `number` in `folder`.
#[must_use]
pub fn socket_in(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("mount-{number}.sock"))
}

/// The existing socket of connection `number`, of a mount made by `uid`.
#[must_use]
pub fn find(uid: Uid, number: u64) -> Option<PathBuf> {
    let candidates = folders(uid).into_iter().filter(|folder| usable(folder, uid));
    candidates.map(|folder| socket_in(&folder, number)).find(|path| path.exists())
}

/// Makes (mode 0700) and returns the first folder that can be made and is ours alone.
///
/// # Errors
/// One line that names every folder tried.
pub fn make_folder(uid: Uid) -> Result<PathBuf, String> {
    let mut tried = Vec::new();
    for folder in folders(uid) {
        let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
        match made {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                tried.push(format!("{}: {error}", folder.display()));
            }
            _ if usable(&folder, uid) => return Ok(folder),
            _ => {
                tried.push(format!("{}: not a folder that only {} can write to", folder.display(), who(uid)))
            }
        }
    }
    Err(format!("no place for the control socket ({})", tried.join("; ")))
}

/// Whether `folder` is a real directory owned by `uid` and writable by nobody else.
fn usable(folder: &Path, uid: Uid) -> bool {
    std::fs::symlink_metadata(folder)
        .is_ok_and(|meta| meta.is_dir() && meta.uid() == uid.as_raw() && meta.mode() & 0o022 == 0)
}

fn who(uid: Uid) -> String {
    User::from_uid(uid).ok().flatten().map_or_else(|| format!("user {uid}"), |user| user.name)
}

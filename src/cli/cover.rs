//! What a mount must not cover: the files that its own daemon works with. A daemon that opens a file below its own
//! mount point waits for an answer of itself, and not even SIGKILL ends it then.

use super::args::MountArgs;
use super::fail::Failure;
use super::server_address;
use crate::client::link::Target;
use crate::control::place;
use std::path::{Path, PathBuf};

/// Refuses a mount at `point`, as the mount table will call it, that would cover its source, its log or the folder of
/// its control socket.
///
/// # Errors
/// [`super::fail::Exit::Usage`], with the remedy.
pub(super) fn refuse(args: &MountArgs, point: &Path) -> Result<(), Failure> {
    let shown = point.display();
    let covered = |what: &str, path: &Path, remedy: &str| {
        let real = real(path)?;
        if !real.starts_with(point) {
            return Ok(());
        }
        let path = path.display();
        Err(Failure::usage(format!(
            "{what} {path} is inside the mount point {shown}, which would cover it; {remedy}"
        )))
    };
    if server_address::is_address(&args.source) {
        if let Target::Unix(socket) = server_address::parse(&args.source)? {
            covered("the socket", &socket, "let the server listen elsewhere, or mount elsewhere")?;
        }
    } else if args.source != super::front::NULL {
        let store = Path::new(&args.source);
        let folder = real(store)?;
        if point.starts_with(&folder) {
            let folder = folder.display();
            return Err(Failure::usage(format!(
                "{shown} is the store {folder} or inside it; mount it elsewhere"
            )));
        }
        covered("the store", store, "mount it elsewhere, or move the store")?;
    }
    if let Some(log) = &args.daemon.log {
        covered("the log", log, "give --log a file elsewhere")?;
    }
    // The others are for hosts where this one cannot be made.
    let folders = place::folders(nix::unistd::geteuid());
    if let Some(folder) = folders.iter().find(|folder| folder.parent().is_some_and(Path::is_dir)) {
        covered("the control socket's folder", folder, "mount elsewhere")?;
    }
    Ok(())
}

/// The path without links, as far as it exists. What does not exist yet will be made where it is named.
fn real(path: &Path) -> Result<PathBuf, Failure> {
    let whole = server_address::settled(path)?;
    let found = whole.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    let Some((above, real)) = found else { return Ok(whole) };
    Ok(whole.strip_prefix(above).map_or(real.clone(), |rest| real.join(rest)))
}

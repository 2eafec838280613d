//! `mount -o remount,… DIR`: mount(8) starts the mount helper for that too, which may only change the flags of a
//! mount that is there. The daemon is not asked: read-only and its kin are the kernel's business.

use super::fail::Failure;
use super::target;
use crate::kernel::transport::{MountOptions, Taken};
use nix::mount::MsFlags;
use std::path::Path;
use std::process::ExitCode;

/// Whether the lists of options ask for it.
#[must_use]
pub(super) fn is_asked(lists: &[String]) -> bool {
    lists.iter().flat_map(|list| list.split(',')).any(|word| word == "remount")
}

/// Changes the flags of the mount at `dir`.
///
/// # Errors
/// There is no ringfs mount, an option cannot be changed, or the kernel refuses.
pub(super) fn run(dir: &Path, lists: &[String]) -> Result<ExitCode, Failure> {
    let mount = target::mount_at(dir)?;
    let point = &mount.point;
    let flags = flags(lists, &mount.source)?;
    nix::mount::mount(None::<&str>, point, None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>).map_err(
        |errno| match errno {
            nix::errno::Errno::EPERM => Failure::new("only root may change the options of a mount"),
            nix::errno::Errno::EBUSY => {
                Failure::busy(format!("{} has files open for writing; close them first", point.display()))
            }
            other => Failure::new(format!("the kernel does not remount {}: {other}", point.display())),
        },
    )?;
    Ok(ExitCode::SUCCESS)
}

/// The flags that the lists leave set; the last word wins. mount(8) repeats what the mount table says of the
/// file system (`user_id=0`): such words change nothing.
fn flags(lists: &[String], source: &str) -> Result<MsFlags, Failure> {
    let mut wanted = MountOptions::new(source);
    for word in lists.iter().flat_map(|list| list.split(',')).filter(|word| !word.is_empty()) {
        let name = word.split_once('=').map_or(word, |(name, _)| name);
        let fixed =
            ["remount", "user_id", "group_id", "rootmode", "fd", "max_read", "blksize", "fsname", "subtype"];
        if !fixed.contains(&name) && wanted.take(word) == Taken::Unknown {
            return Err(Failure::usage(format!("a remount cannot change {word}: unmount and mount again")));
        }
    }
    Ok(wanted.flags)
}

#[cfg(test)]
mod tests {
    use super::{flags, is_asked};
    use nix::mount::MsFlags;

    fn lists(text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    #[test]
    fn what_mount_passes_on_for_a_remount_becomes_flags() {
        let given =
            lists("ro,relatime,remount,user_id=0,group_id=0,default_permissions,allow_other,dev,suid");
        assert!(is_asked(&given));
        assert_eq!(flags(&given, "s"), Ok(MsFlags::MS_RDONLY | MsFlags::MS_RELATIME));
        assert_eq!(flags(&lists("ro,remount,rw"), "s"), Ok(MsFlags::empty()));
    }

    #[test]
    fn what_a_remount_cannot_change_is_refused() {
        assert!(!is_asked(&lists("ro,x-remount")));
        assert!(flags(&lists("remount,transport=ring"), "s").unwrap_err().message.contains("transport=ring"));
    }
}

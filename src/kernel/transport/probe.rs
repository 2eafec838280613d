//! Why FUSE over io_uring, or io_uring at all, cannot be used here, in words that say what to do.

use crate::kernel::abi::InitFlags;
use std::io;

/// First kernel with FUSE over io_uring, and the first in which it does not corrupt its lists when a request ends
/// before its commit (CVE-2025-68805).
const FIRST: Version = Version(6, 14, 0);
const FIRST_SOUND: Version = Version(6, 18, 3);

/// Where the administrator allows FUSE over io_uring.
const PARAMETER: &str = "/sys/module/fuse/parameters/enable_uring";

/// A kernel's version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Version(u32, u32, u32);

impl Version {
    /// Reads the numbers a release starts with: `6.18.44-fc` and `6.1` are both good.
    fn parse(release: &str) -> Option<Self> {
        let end = release.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(release.len());
        let mut numbers = release[..end].split('.').map(str::parse::<u32>);
        let first = numbers.next()?.ok()?;
        let mut next = || numbers.next().and_then(Result::ok);
        Some(Self(first, next()?, next().unwrap_or(0)))
    }

    fn running() -> Option<Self> {
        Self::parse(nix::sys::utsname::uname().ok()?.release().to_str()?)
    }
}

/// Why FUSE over io_uring cannot be used, from what the kernel offers and which it is. `forced` overrules the versions
/// known to be unsound, since a distribution may have mended them.
pub(super) fn uring_refusal(offered: InitFlags, forced: bool) -> Option<String> {
    let parameter = std::fs::read_to_string(PARAMETER).ok();
    refusal(offered, forced, Version::running(), parameter.as_deref())
}

fn refusal(
    offered: InitFlags,
    forced: bool,
    version: Option<Version>,
    parameter: Option<&str>,
) -> Option<String> {
    if !offered.has(InitFlags::OVER_IO_URING) {
        return Some(match parameter.map(str::trim) {
            Some("N" | "0") => {
                format!("it is switched off: run `echo Y > {PARAMETER}` as root, then mount again")
            }
            _ if version.is_some_and(|v| v < FIRST) => "the kernel has none before Linux 6.14".to_owned(),
            _ => "the kernel was built without it (CONFIG_FUSE_IO_URING)".to_owned(),
        });
    }
    let unsound = version.is_some_and(|v| v < FIRST_SOUND);
    (unsound && !forced).then(|| {
        "kernels before Linux 6.18.3 can corrupt memory with it: use a newer one, or force it with --transport=uring"
            .to_owned()
    })
}

/// Why a ring could not be built.
pub(super) fn ring_refusal(error: &io::Error) -> String {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    match (error.raw_os_error(), disabled.as_deref().map(str::trim)) {
        (Some(libc::EPERM), Some("1" | "2")) => {
            "io_uring is disabled: run `sysctl kernel.io_uring_disabled=0` as root".to_owned()
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            "io_uring is forbidden here, by seccomp or a security module: allow it in the container's profile"
                .to_owned()
        }
        (Some(libc::ENOSYS), _) => {
            "io_uring is not there: hidden by seccomp, or the kernel was built without it".to_owned()
        }
        (Some(libc::ENOMEM), _) => {
            "no memory for its rings: raise the limit of locked memory (ulimit -l)".to_owned()
        }
        _ => format!("io_uring_setup failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Version, refusal, ring_refusal};
    use crate::kernel::abi::InitFlags;

    #[test]
    fn releases_are_read_as_far_as_they_are_numbers() {
        assert_eq!(Version::parse("6.18.44-fc-v669"), Some(Version(6, 18, 44)));
        assert_eq!(Version::parse("5.10.0-46-cloud-amd64"), Some(Version(5, 10, 0)));
        assert_eq!(Version::parse("7.1+"), Some(Version(7, 1, 0)));
        assert_eq!(Version::parse("unknown"), None);
    }

    #[test]
    fn each_reason_names_its_remedy() {
        let offered = InitFlags::OVER_IO_URING;
        let new = Some(Version(6, 18, 3));
        assert_eq!(refusal(offered, false, new, Some("Y")), None);
        let why = |flags, version, parameter| refusal(flags, false, version, parameter).unwrap();
        assert!(why(InitFlags::NONE, new, Some("N\n")).contains("echo Y >"));
        assert!(why(InitFlags::NONE, Some(Version(6, 1, 0)), None).contains("6.14"));
        assert!(why(InitFlags::NONE, new, None).contains("CONFIG_FUSE_IO_URING"));
        assert!(why(offered, Some(Version(6, 18, 2)), Some("Y")).contains("6.18.3"));
        assert_eq!(refusal(offered, true, Some(Version(6, 14, 0)), Some("Y")), None);
    }

    #[test]
    fn a_missing_system_call_is_not_called_a_permission() {
        assert!(ring_refusal(&std::io::Error::from_raw_os_error(libc::ENOSYS)).contains("not there"));
        assert!(ring_refusal(&std::io::Error::from_raw_os_error(libc::ENOMEM)).contains("ulimit"));
    }
}

//! The mount table, read from /proc/self/mountinfo: finds a ringfs mount without touching it, since it may hang.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// The type of a ringfs mount in the mount table.
pub(super) const FS_TYPE: &str = "fuse.ringfs";

/// One line of the mount table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mount {
    /// Minor device number: of a FUSE mount, the number of its connection under /sys/fs/fuse/connections.
    pub(super) number: u64,
    /// Where it is mounted.
    pub(super) point: PathBuf,
    /// Options of this mount point (`rw,nosuid,…`).
    pub(super) options: String,
    /// Type, such as `fuse.ringfs`.
    pub(super) fs_type: String,
    /// What was mounted.
    pub(super) source: String,
    /// Options of the file system (`user_id=0,…`).
    pub(super) super_options: String,
}

impl Mount {
    /// Whether ringfs serves it.
    #[must_use]
    pub(super) fn is_ringfs(&self) -> bool {
        self.fs_type == FS_TYPE
    }

    /// Who mounted it.
    #[must_use]
    pub(super) fn owner(&self) -> u32 {
        self.super_option("user_id").and_then(|id| id.parse().ok()).unwrap_or(0)
    }

    fn super_option(&self, name: &str) -> Option<&str> {
        self.super_options.split(',').find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
    }
}

/// The mount table of this process, in the order of mounting.
///
/// # Errors
/// /proc is not there.
pub(super) fn table() -> std::io::Result<Vec<Mount>> {
    let bytes = std::fs::read("/proc/self/mountinfo")?;
    Ok(bytes.split(|&b| b == b'\n').filter_map(parse_line).collect())
}

/// The mount at exactly `point` that is on top, if any.
#[must_use]
pub(super) fn at<'t>(table: &'t [Mount], point: &Path) -> Option<&'t Mount> {
    table.iter().rev().find(|mount| mount.point == point)
}

/// The mount that holds `path`: the deepest one, the latest of several at one place.
#[must_use]
pub(super) fn holding<'t>(table: &'t [Mount], path: &Path) -> Option<&'t Mount> {
    let mut best: Option<&Mount> = None;
    for mount in table.iter().filter(|mount| path.starts_with(&mount.point)) {
        let depth = |m: &Mount| m.point.components().count();
        if best.is_none_or(|b| depth(mount) >= depth(b)) {
            best = Some(mount);
        }
    }
    best
}

/// The path from the root, with `.` and `..` taken out by their letters alone: asks no file system.
///
/// # Errors
/// The current directory is gone.
pub(super) fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    let joined = if path.is_absolute() { path.to_owned() } else { std::env::current_dir()?.join(path) };
    let mut clean = PathBuf::from("/");
    for part in joined.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    Ok(clean)
}

/// Most symbolic links followed in one path, as many as the kernel follows (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// What `path` is called in the mount table: links resolved, but never a component that lies on a ringfs mount, since
/// that may hang. Such a rest stays as it is written. A path that cannot be resolved is taken by its letters.
///
/// # Errors
/// The current directory is gone.
pub(super) fn settle(table: &[Mount], path: &Path) -> std::io::Result<PathBuf> {
    let joined = if path.is_absolute() { path.to_owned() } else { std::env::current_dir()?.join(path) };
    let is_link = |path: &Path| std::fs::read_link(path).ok();
    resolve(table, &joined, &is_link).map_or_else(|| absolute(path), Ok)
}

/// Walks an absolute path. `link` tells where a symbolic link leads; `None` for what is no link. `None` for a circle.
fn resolve(table: &[Mount], path: &Path, link: &dyn Fn(&Path) -> Option<PathBuf>) -> Option<PathBuf> {
    let parts = |path: &Path| -> Vec<OsString> {
        path.components().rev().map(|part| part.as_os_str().to_owned()).collect()
    };
    let mut real = PathBuf::from("/");
    let mut rest = parts(path);
    let mut links = 0;
    while let Some(part) = rest.pop() {
        if part == "/" {
            real = part.into();
        } else if part == ".." {
            real.pop();
        } else if part != "." {
            real.push(part);
            let may_hang = holding(table, &real).is_some_and(Mount::is_ringfs);
            if let Some(target) = (!may_hang).then(|| link(&real)).flatten() {
                links += 1;
                if links > LINKS_MAX {
                    return None;
                }
                real.pop();
                rest.extend(parts(&target));
            }
        }
    }
    Some(real)
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAGS…] - TYPE SOURCE SUPER_OPTIONS` (proc_pid_mountinfo(5)).
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let device = text(fields.nth(2)?);
    let number = device.split_once(':')?.1.parse().ok()?;
    let point = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    let options = text(fields.next()?);
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let fs_type = text(rest.next()?);
    let source = text(rest.next()?);
    let super_options = text(rest.next().unwrap_or_default());
    Some(Mount { number, point, options, fs_type, source, super_options })
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

/// Space, tab, newline and backslash stand as `\ooo` in the table.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\').then(|| tail.get(..3)).flatten();
        let value = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match value.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(decoded) => {
                out.push(decoded);
                rest = &tail[3..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{absolute, at, holding, parse_line, resolve};
    use std::path::Path;

    const LINES: [&str; 4] = [
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
        r"90 22 0:51 / /mnt/a\040b rw,nosuid shared:7 master:1 - fuse.ringfs tcp://h:1 rw,user_id=1000,group_id=5",
        "91 22 0:52 / /mnt rw - tmpfs none rw",
        "92 91 0:53 / /mnt rw - fuse.ringfs /srv/store rw,user_id=0,group_id=0",
    ];

    #[test]
    fn a_line_gives_number_place_type_and_owner() {
        let mount = parse_line(LINES[1].as_bytes()).unwrap();
        assert_eq!((mount.number, mount.owner()), (51, 1000));
        assert_eq!(mount.point, Path::new("/mnt/a b"));
        assert_eq!((mount.fs_type.as_str(), mount.source.as_str()), ("fuse.ringfs", "tcp://h:1"));
        assert!(mount.is_ringfs());
        for short in ["", "1 2", "1 2 3 4 5 6", "1 2 0:x / / rw - a b c", r"1 2 0:3 / \04 rw - t"] {
            assert!(parse_line(short.as_bytes()).is_none(), "{short}");
        }
    }

    #[test]
    fn the_topmost_mount_at_a_place_wins() {
        let table: Vec<_> = LINES.iter().filter_map(|line| parse_line(line.as_bytes())).collect();
        assert_eq!(at(&table, Path::new("/mnt")).map(|m| m.number), Some(53));
        assert_eq!(holding(&table, Path::new("/mnt/x/y")).map(|m| m.number), Some(53));
        assert_eq!(holding(&table, Path::new("/mnt/a b/y")).map(|m| m.number), Some(51));
        assert_eq!(holding(&table, Path::new("/mntx")).map(|m| m.fs_type.as_str()), Some("ext4"));
    }

    #[test]
    fn dots_go_away_without_asking_the_file_system() {
        assert_eq!(absolute(Path::new("/a/./b/../c/")).unwrap(), Path::new("/a/c"));
        assert_eq!(absolute(Path::new("/../..")).unwrap(), Path::new("/"));
    }

    #[test]
    fn links_are_followed_as_far_as_a_mount_that_may_hang() {
        let table: Vec<_> = LINES.iter().filter_map(|line| parse_line(line.as_bytes())).collect();
        let link = |path: &Path| {
            assert!(!path.starts_with("/mnt"), "{} may hang", path.display());
            let target = match path.to_str().unwrap() {
                "/home/me/far" => "/mnt",
                "/home/me/near" => "../you",
                "/home/you" => "/srv/./you",
                "/circle" => "circle",
                _ => return None,
            };
            Some(target.into())
        };
        let resolved = |path: &str| resolve(&table, Path::new(path), &link);
        for (path, real) in [
            ("/home/me/far", "/mnt"),
            ("/home/me/far/", "/mnt"),
            ("/home/me/far/x/y", "/mnt/x/y"),
            ("/home/me/far/../home", "/home"),
            ("/home/me/near/a", "/srv/you/a"),
            ("/home/me/near/../a", "/srv/a"),
            ("/mnt/a b/c", "/mnt/a b/c"),
            ("/", "/"),
        ] {
            assert_eq!(resolved(path).as_deref(), Some(Path::new(real)), "{path}");
        }
        assert_eq!(resolved("/circle/x"), None);
    }
}

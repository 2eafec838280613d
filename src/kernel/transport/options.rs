//! Mount options: what the user wrote after `-o`, sorted into what the kernel takes, what only systemd and mount(8)
//! look at, and what is left for the program itself.

use nix::mount::MsFlags;

/// Options of one mount that the kernel or fusermount3 must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// Shown as the source in mountinfo.
    pub source: String,
    /// Generic flags (`ro`, `nosuid`, `nodev`, `noexec`, `noatime`, …).
    pub flags: MsFlags,
    /// Whether users other than the one who mounts may look in. `None`: yes for root, no for others, since an
    /// ordinary user needs `user_allow_other` in /etc/fuse.conf.
    pub allow_other: Option<bool>,
    /// The kernel checks permission bits and ACLs. The product always wants it; the bare floor measurement does not.
    pub default_permissions: bool,
    /// A directory that holds files may be mounted over.
    pub nonempty: bool,
}

impl MountOptions {
    /// What a mount of `source` uses unless told otherwise.
    #[must_use]
    pub fn new(source: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            flags: MsFlags::empty(),
            allow_other: None,
            default_permissions: true,
            nonempty: false,
        }
    }

    /// Takes one option as it stands in `-o` or fstab, without its comma.
    pub fn take(&mut self, option: &str) -> Taken {
        if let Some((_, flag, set)) = FLAGS.iter().find(|(name, _, _)| *name == option) {
            self.flags.set(*flag, *set);
            return Taken::Kernel;
        }
        match option {
            "allow_other" => self.allow_other = Some(true),
            "noallow_other" | "private" => self.allow_other = Some(false),
            "default_permissions" => self.default_permissions = true,
            "nonempty" => self.nonempty = true,
            _ if elsewhere(option) => return Taken::Elsewhere,
            _ => return Taken::Unknown,
        }
        Taken::Kernel
    }

    /// Options that go to fusermount3 as words.
    pub(super) fn words(&self) -> Vec<String> {
        let named = FLAGS.iter().filter(|(_, flag, set)| *set && self.flags.contains(*flag));
        let mut words: Vec<String> = named.map(|(name, _, _)| (*name).to_owned()).collect();
        words.extend([format!("fsname={}", escape(&self.source)), format!("subtype={SUBTYPE}")]);
        if self.default_permissions {
            words.push("default_permissions".to_owned());
        }
        if self.allow_other == Some(true) {
            words.push("allow_other".to_owned());
        }
        words
    }
}

/// The part after `fuse.` in the file-system type.
pub const SUBTYPE: &str = "ringfs";

/// What became of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is part of [`MountOptions`] now.
    Kernel,
    /// It is meant for systemd, mount(8) or the boot, and means nothing here.
    Elsewhere,
    /// Nobody here knows it; the program may.
    Unknown,
}

/// Word, flag, and whether the word sets or clears it.
const FLAGS: [(&str, MsFlags, bool); 16] = [
    ("ro", MsFlags::MS_RDONLY, true),
    ("rw", MsFlags::MS_RDONLY, false),
    ("nosuid", MsFlags::MS_NOSUID, true),
    ("suid", MsFlags::MS_NOSUID, false),
    ("nodev", MsFlags::MS_NODEV, true),
    ("dev", MsFlags::MS_NODEV, false),
    ("noexec", MsFlags::MS_NOEXEC, true),
    ("exec", MsFlags::MS_NOEXEC, false),
    ("noatime", MsFlags::MS_NOATIME, true),
    ("atime", MsFlags::MS_NOATIME, false),
    ("nodiratime", MsFlags::MS_NODIRATIME, true),
    ("diratime", MsFlags::MS_NODIRATIME, false),
    ("sync", MsFlags::MS_SYNCHRONOUS, true),
    ("async", MsFlags::MS_SYNCHRONOUS, false),
    ("dirsync", MsFlags::MS_DIRSYNC, true),
    ("relatime", MsFlags::MS_RELATIME, true),
];

fn elsewhere(option: &str) -> bool {
    let words =
        ["defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail", "_netdev"];
    words.contains(&option) || option.starts_with("x-") || option.starts_with("comment=")
}

/// Commas would end the option, backslashes would escape: fusermount3 wants both escaped.
fn escape(value: &str) -> String {
    value.chars().flat_map(|c| if matches!(c, ',' | '\\') { vec!['\\', c] } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::{MountOptions, Taken};
    use nix::mount::MsFlags;

    #[test]
    fn fstab_words_reach_whom_they_are_for() {
        let mut options = MountOptions::new("unix:/run/s,1");
        for (word, taken) in [
            ("ro", Taken::Kernel),
            ("nosuid", Taken::Kernel),
            ("_netdev", Taken::Elsewhere),
            ("nofail", Taken::Elsewhere),
            ("x-systemd.automount", Taken::Elsewhere),
            ("allow_other", Taken::Kernel),
            ("transport=uring", Taken::Unknown),
        ] {
            assert_eq!(options.take(word), taken, "{word}");
        }
        assert_eq!(options.flags, MsFlags::MS_RDONLY | MsFlags::MS_NOSUID);
        let words = options.words().join(",");
        assert_eq!(words, "ro,nosuid,fsname=unix:/run/s\\,1,subtype=ringfs,default_permissions,allow_other");
    }

    #[test]
    fn the_last_of_two_opposites_wins() {
        let mut options = MountOptions::new("s");
        for word in ["ro", "noexec", "rw"] {
            options.take(word);
        }
        assert_eq!(options.flags, MsFlags::MS_NOEXEC);
    }
}

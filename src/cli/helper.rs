//! The argument forms of mount(8): `ringfs SRC DIR [-o opts]` (what mount.fuse3 starts for `-t fuse.ringfs`) and
//! `mount.ringfs SRC DIR [-sfnv] [-o opts]` (a link in /sbin). Both become `ringfs mount SRC DIR …`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The arguments with `mount` in its place; anything that is not one of the two forms is returned as it is.
#[must_use]
pub(super) fn translate(line: Vec<OsString>) -> Vec<OsString> {
    let program = line.first().map(|name| Path::new(name).file_name().unwrap_or(name).to_owned());
    let program = program.unwrap_or_default();
    let by_name = ["mount.ringfs", "mount.fuse.ringfs"].iter().any(|name| program == *name);
    if !by_name && !line.get(1).is_some_and(|first| is_source(first)) {
        return line;
    }
    let mut out = vec![OsString::from("ringfs"), OsString::from("mount")];
    let mut words = line.into_iter().skip(1);
    while let Some(word) = words.next() {
        match word.to_str() {
            // mount(8) passes these on: sloppy, fake, no mtab, verbose. Nothing here depends on them.
            Some("-s" | "-n" | "-v") if by_name => {}
            // Of a type or name space mount(8) has already taken care.
            Some("-t" | "-N") if by_name => drop(words.next()),
            _ => out.push(word),
        }
    }
    out
}

/// Whether a first argument can only be something to mount: subcommands hold neither a slash nor a colon. A plain
/// word is not taken for a store, so that a mistyped command never makes a directory.
fn is_source(word: &OsStr) -> bool {
    let bytes = word.as_encoded_bytes();
    !bytes.starts_with(b"-") && bytes.iter().any(|&b| b == b'/' || b == b':')
}

#[cfg(test)]
mod tests {
    use super::translate;
    use std::ffi::OsString;

    fn translated(line: &str) -> String {
        let words = line.split(' ').map(OsString::from).collect();
        translate(words).iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_mount_programs_start_becomes_the_mount_command() {
        for (given, meant) in [
            ("/usr/bin/ringfs tcp://h:1 /mnt -o rw,_netdev", "ringfs mount tcp://h:1 /mnt -o rw,_netdev"),
            ("ringfs /srv/store /dev/fd/3 -o ro", "ringfs mount /srv/store /dev/fd/3 -o ro"),
            ("ringfs ./store /mnt", "ringfs mount ./store /mnt"),
            ("ringfs null: /mnt", "ringfs mount null: /mnt"),
            ("/sbin/mount.ringfs store /mnt -v -n -o rw", "ringfs mount store /mnt -o rw"),
            ("/sbin/mount.fuse.ringfs u:/s /mnt -t fuse.ringfs -o rw", "ringfs mount u:/s /mnt -o rw"),
        ] {
            assert_eq!(translated(given), meant);
        }
    }

    #[test]
    fn commands_and_mistyped_commands_stay_what_they_are() {
        for line in ["ringfs mount a b", "ringfs mont a b", "ringfs --help", "ringfs", "ringfs -o /x"] {
            assert_eq!(translated(line), line);
        }
    }
}

//! Mount options as in `-o a,b=c` and /etc/fstab: each word is known, or the mount is refused.

use super::args::{ClientArgs, CloseArg, MountArgs, TransportArg};
use super::fail::Failure;
use crate::client::mount::{CloseWait, Options as ClientOptions};
use crate::kernel::transport::{MountOptions, Taken};
use clap::ValueEnum;
use nix::mount::MsFlags;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// What the options of `args` ask of the kernel. Options that stand for a flag of the command line (`log=FILE`) are
/// written into `args`, where the flag itself wins. Of words that exclude each other the last wins, as with mount(8).
///
/// # Errors
/// The first word that is not an option, or whose value is not one.
pub(super) fn apply(args: &mut MountArgs) -> Result<MountOptions, Failure> {
    let mut kernel = MountOptions::new(args.source.as_str());
    if !nix::unistd::geteuid().is_root() {
        // A user's mount never grants privileges; fusermount3 would add these anyway.
        kernel.flags |= MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    }
    let lists = std::mem::take(&mut args.options);
    for word in lists.iter().flat_map(|list| list.split(',')).filter(|word| !word.is_empty()) {
        match (kernel.take(word), word.split_once('=')) {
            (Taken::Kernel | Taken::Elsewhere, _) => {}
            (Taken::Unknown, Some((name, value))) => valued(args, name, value, word)?,
            (Taken::Unknown, None) => plain(args, word)?,
        }
    }
    args.options = lists;
    Ok(kernel)
}

fn plain(args: &mut MountArgs, word: &str) -> Result<(), Failure> {
    match word {
        "foreground" => args.daemon.foreground = true,
        "bare" => args.bare = true,
        _ => return Err(unknown(word)),
    }
    Ok(())
}

fn valued(args: &mut MountArgs, name: &str, value: &str, word: &str) -> Result<(), Failure> {
    match name {
        "transport" => {
            let transport = TransportArg::from_str(value, false).map_err(|_unnamed| {
                Failure::usage(format!("mount option {word}: use auto, uring, ring or blocking"))
            })?;
            args.transport.get_or_insert(transport);
        }
        "secret" => {
            args.times.secret_file.get_or_insert(PathBuf::from(value));
        }
        "log" => {
            args.daemon.log.get_or_insert(PathBuf::from(value));
        }
        "log_level" => {
            args.daemon.log_level.get_or_insert(value.to_owned());
        }
        "lease" => {
            args.times.lease.get_or_insert(seconds(value, 1, word)?);
        }
        "grace" => {
            args.times.grace.get_or_insert(seconds(value, 0, word)?);
        }
        "store_cache" => {
            args.times.store_cache.get_or_insert(number(value, 2..=1_048_576, word)?);
        }
        "leases" if value == "no" => args.client.sync = true,
        "leases" if value == "yes" => {}
        "yield" if value == "no" => args.no_yield = true,
        "yield" if value == "yes" => {}
        "close" => {
            let close = CloseArg::from_str(value, false).map_err(|_unnamed| {
                Failure::usage(format!("mount option {word}: use async, applied or durable"))
            })?;
            args.client.close.get_or_insert(close);
        }
        "lease_margin" => {
            args.client.lease_margin.get_or_insert(number(value, 0..=86_400_000, word)?);
        }
        "gather" => {
            args.client.gather.get_or_insert(number(value, 0..=1_000_000, word)?);
        }
        "log_operations" => {
            args.client.log_operations.get_or_insert(number(value, 16..=1_000_000, word)?);
        }
        "rescue" => {
            args.client.rescue.get_or_insert(PathBuf::from(value));
        }
        "cache_inodes" => {
            args.client.cache_inodes.get_or_insert(number(value, 64..=100_000_000, word)?);
        }
        // Names in the mount table: ours are fixed.
        "fsname" | "subtype" => {}
        _ => return Err(unknown(word)),
    }
    Ok(())
}

fn seconds(value: &str, least: u32, word: &str) -> Result<u32, Failure> {
    let parsed = value.parse().ok().filter(|seconds| (least..=86_400).contains(seconds));
    parsed.ok_or_else(|| Failure::usage(format!("mount option {word}: use seconds from {least} to 86400")))
}

fn number(value: &str, range: RangeInclusive<u32>, word: &str) -> Result<u32, Failure> {
    let parsed = value.parse().ok().filter(|number| range.contains(number));
    parsed.ok_or_else(|| {
        Failure::usage(format!("mount option {word}: use a number from {} to {}", range.start(), range.end()))
    })
}

/// How the mount uses its leases.
pub(super) fn of_client(args: &ClientArgs) -> ClientOptions {
    let default = ClientOptions::default();
    let size =
        |given: Option<u32>, other: usize| given.map_or(other, |n| usize::try_from(n).unwrap_or(other));
    ClientOptions {
        sync: args.sync,
        close: match args.close {
            None | Some(CloseArg::Async) => CloseWait::Nothing,
            Some(CloseArg::Applied) => CloseWait::Applied,
            Some(CloseArg::Durable) => CloseWait::Durable,
        },
        lease_margin: args.lease_margin.map(|ms| Duration::from_millis(ms.into())),
        gather: args.gather.map_or(default.gather, |us| Duration::from_micros(us.into())),
        log_operations: size(args.log_operations, default.log_operations),
        cache_inodes: size(args.cache_inodes, default.cache_inodes),
    }
}

fn unknown(word: &str) -> Failure {
    Failure::usage(format!("unknown mount option {word}; `ringfs mount --help` lists them"))
}

#[cfg(test)]
mod tests {
    use super::{apply, of_client};
    use crate::cli::args::{Cli, Command, MountArgs, TransportArg};
    use crate::client::mount::{CloseWait, Options as ClientOptions};
    use clap::Parser;
    use nix::mount::MsFlags;
    use std::path::Path;
    use std::time::Duration;

    fn args(words: &[&str]) -> MountArgs {
        let line = ["ringfs", "mount", "null:", "/mnt"];
        match Cli::try_parse_from(line.iter().chain(words)).unwrap().command {
            Command::Mount(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_fstab_and_systemd_write_is_accepted() {
        let list = "defaults,ro,rw,nosuid,nodev,_netdev,nofail,x-systemd.mount-timeout=10,noatime,";
        let kernel = apply(&mut args(&["-o", list, "-o", "x-systemd.automount"])).unwrap();
        assert_eq!(kernel.flags, MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME);
        assert_eq!(kernel.source, "null:");
    }

    #[test]
    fn a_word_that_is_not_known_is_named() {
        for (list, named) in [
            ("rw,blorp", "blorp"),
            ("transport=warp", "transport=warp"),
            ("lease=0", "lease=0"),
            ("ro=1", "ro=1"),
            ("close=never", "close=never"),
            ("log_operations=1", "log_operations=1"),
            ("leases=maybe", "leases=maybe"),
            ("yield=1", "yield=1"),
        ] {
            let failure = apply(&mut args(&["-o", list])).unwrap_err();
            assert!(failure.message.contains(named), "{failure}");
            assert_eq!(failure.exit, crate::cli::fail::Exit::Usage);
        }
    }

    #[test]
    fn own_options_mean_the_same_as_flags_and_flags_win() {
        let mut args = args(&[
            "--log",
            "/l",
            "-o",
            "transport=ring,log=/other,secret=/s,grace=0,yield=no,foreground,nonempty",
        ]);
        let kernel = apply(&mut args).unwrap();
        assert_eq!(args.transport, Some(TransportArg::Ring));
        assert_eq!(args.daemon.log.as_deref(), Some(Path::new("/l")));
        assert_eq!(args.times.secret_file.as_deref(), Some(Path::new("/s")));
        assert_eq!(args.times.grace, Some(0));
        assert!(args.daemon.foreground && args.no_yield && kernel.nonempty);
    }

    #[test]
    fn options_of_leases_are_understood_in_both_forms() {
        let words = "leases=no,close=durable,lease_margin=7,gather=0,log_operations=16,cache_inodes=64";
        let mut listed = args(&["-o", words]);
        apply(&mut listed).unwrap();
        let flags = ["--sync", "--close=durable", "--lease-margin=7", "--gather=0", "--log-operations=16"];
        let flags = args(&[&flags[..], &["--cache-inodes=64"]].concat());
        let options = of_client(&listed.client);
        assert_eq!(options, of_client(&flags.client));
        assert!(options.sync && options.close == CloseWait::Durable);
        assert_eq!((options.log_operations, options.cache_inodes), (16, 64));
        assert_eq!(options.margin(Duration::from_secs(1)), Duration::from_millis(7));
        let default = of_client(&args(&[]).client);
        assert_eq!(default, ClientOptions::default());
        assert_eq!(default.margin(Duration::from_secs(10)), Duration::from_secs(2));
    }
}

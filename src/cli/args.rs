//! The command line. The help texts are the manual; docs/commands.md adds examples.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// A network file system for Linux whose small-file work runs as fast as FUSE itself allows.
#[derive(Parser, Debug)]
#[command(name = "ringfs", version, propagate_version = true, subcommand_required = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong command line, 3 in use, \
4 a check found something wrong.\nErrors are one line on the standard error and name the remedy.\n\
`mount -t fuse.ringfs SOURCE DIR -o OPTIONS` and /etc/fstab work too; see `ringfs mount --help`.")]
pub(super) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Mount a store, or a server, on a directory.
    Mount(MountArgs),
    /// Take a mount away: flush, unmount, wait for its daemon to end.
    #[command(visible_alias = "unmount")]
    Umount(UmountArgs),
    /// Serve a store to other hosts or to several mounts.
    Serve(ServeArgs),
    /// Show what a mount (or every mount of this host) or a server is doing.
    Status(StatusArgs),
    /// Make everything durable that was written to a mount; returns when it is.
    Flush(FlushArgs),
    /// Show what a mount answered as done and the server refused later.
    Errors(ErrorsArgs),
    /// Look after the data of writes that were refused late.
    Rescue(RescueArgs),
    /// Show what ringfs knows of a file or directory on a mount.
    Info(InfoArgs),
    /// End a client's session at a server: its open files, locks and leases are given up.
    Evict(EvictArgs),
    /// Check a store that no server has open.
    Fsck(FsckArgs),
    /// Check whether this host can run ringfs, and how well.
    Doctor(DoctorArgs),
    /// Measure create, stat, read, rename and unlink of small files in any directory.
    Bench(BenchArgs),
    /// Asks a mount that may hang; started by other commands.
    #[command(hide = true)]
    AskMount(AskMountArgs),
}

const SOURCE_HELP: &str = "\
SOURCE is one of
  DIRECTORY        a store; the server runs inside the mount. A missing directory is created.
  unix:PATH        a server on this host (`ringfs serve STORE --listen unix:PATH`)
  tcp://HOST:PORT  a server on another host
  null:            remembers nothing and answers at once: measures the transport alone

Mount options (-o, separated by commas, as in /etc/fstab):
  ro rw            without or with changes
  suid nosuid dev nodev exec noexec atime noatime relatime nodiratime sync dirsync
                   as mount(8) explains
  allow_other      let other users in (default for root; an ordinary user needs
                   `user_allow_other` in /etc/fuse.conf); noallow_other: keep them out
  default_permissions   always on: the kernel checks permissions
  nonempty         mount over a directory that is not empty
  transport=WHICH  as --transport          secret=FILE   as --secret-file
  log=FILE         as --log                log_level=L   as --log-level
  lease=SECONDS grace=SECONDS              as --lease, --grace
  close=WHEN       as --close              lease_margin=MS    as --lease-margin
  gather=US        as --gather             log_operations=N   as --log-operations
  cache_inodes=N   as --cache-inodes       leases=no     as --sync
  store_cache=MIB  as --store-cache
  rescue=FOLDER    as --rescue
  foreground       as --foreground         bare          as --bare
  yield=no         as --no-yield
  _netdev nofail auto noauto user users owner group x-*  for mount(8) and systemd; ignored here

Example line of /etc/fstab:
  tcp://server:7420  /mnt/shared  fuse.ringfs  _netdev,nofail,secret=/etc/ringfs/secret  0 0";

/// `ringfs mount`.
#[derive(Args, Debug, Clone)]
#[command(after_help = SOURCE_HELP)]
pub(super) struct MountArgs {
    /// Store directory, server address or `null:` (see below).
    pub(super) source: String,
    /// Where to mount: a directory, or /dev/fd/N of an opened FUSE device.
    pub(super) dir: PathBuf,
    /// Mount options, separated by commas (see below); may be given several times.
    #[arg(short = 'o', long = "options", value_name = "OPTION,…")]
    pub(super) options: Vec<String>,
    /// How to talk to the kernel.
    #[arg(long, value_enum)]
    pub(super) transport: Option<TransportArg>,
    /// Keep queue threads level with programs: else they step behind them while many requests come (docs/commands.md).
    #[arg(long)]
    pub(super) no_yield: bool,
    /// Ask the kernel for the least: for measuring with `null:`.
    #[arg(long)]
    pub(super) bare: bool,
    #[command(flatten)]
    /// See [`ClientArgs`].
    pub(super) client: ClientArgs,
    #[command(flatten)]
    /// See [`ServerTimes`].
    pub(super) times: ServerTimes,
    #[command(flatten)]
    /// See [`DaemonArgs`].
    pub(super) daemon: DaemonArgs,
}

/// How a mount uses its leases.
#[derive(Args, Debug, Clone, Default)]
pub(super) struct ClientArgs {
    /// Take no leases: each operation is answered by the server, and a change is on its disk when it is answered.
    #[arg(long)]
    pub(super) sync: bool,
    /// What close(2) waits for. Default: async.
    #[arg(long, value_enum, value_name = "WHEN")]
    pub(super) close: Option<CloseArg>,
    /// How long before a lease ends it is not used any more, in milliseconds. Default: a fifth of the lease.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(0..=86_400_000))]
    pub(super) lease_margin: Option<u32>,
    /// How long the first change after a pause waits for others to be sent with it, in microseconds. Default: 100.
    #[arg(long, value_name = "US", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(super) gather: Option<u32>,
    /// How many changes may wait for the server; callers of more wait. Default: 32768.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    pub(super) log_operations: Option<u32>,
    /// How many inodes are remembered. Default: 1048576.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(64..=100_000_000))]
    pub(super) cache_inodes: Option<u32>,
    /// Folder for the data of writes that the server refuses after they were answered (`ringfs rescue`). Default: a
    /// folder named after the mount in ringfs/rescue of /var/lib, or of the user's state folder.
    #[arg(long, value_name = "FOLDER")]
    pub(super) rescue: Option<PathBuf>,
}

/// What close(2) waits for.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CloseArg {
    /// Nothing: what was written follows by itself, within a second.
    Async,
    /// Other mounts see what was written.
    Applied,
    /// What was written is on the server's disk.
    Durable,
}

/// Options of a server, also of the one inside a mount.
#[derive(Args, Debug, Clone, Default)]
pub(super) struct ServerTimes {
    /// How long a silent client keeps its open files and locks, in seconds. Default: 30.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(super) lease: Option<u32>,
    /// How long clients may take to come back after a restart of the server with what they held open and locked, in
    /// seconds; nobody else gets locks meanwhile. Default: the lease.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub(super) grace: Option<u32>,
    /// How long a client may take to give back what another waits for before its session is ended, in seconds. Default:
    /// 10, or the lease if that is shorter.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(super) recall_timeout: Option<u32>,
    /// Memory for the metadata of the store, in MiB: half for blocks of its files, half for single inodes and names that
    /// were lately used. Default: 256.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(2..=1_048_576))]
    pub(super) store_cache: Option<u32>,
    /// File whose content is the secret that client and server share. Not readable by others.
    #[arg(long, value_name = "FILE")]
    pub(super) secret_file: Option<PathBuf>,
}

/// `ringfs evict`.
#[derive(Args, Debug, Clone)]
pub(super) struct EvictArgs {
    /// Server address: `unix:PATH` or `tcp://HOST:PORT`.
    pub(super) server: String,
    /// The session, as `ringfs status SERVER` shows it: eight hexadecimal digits.
    pub(super) session: String,
    /// File whose content is the secret of the server.
    #[arg(long, value_name = "FILE")]
    pub(super) secret_file: Option<PathBuf>,
}

/// Options of a command that becomes a daemon.
#[derive(Args, Debug, Clone, Default)]
pub(super) struct DaemonArgs {
    /// Stay in the foreground and log to the terminal (for systemd: Type=notify).
    #[arg(short = 'f', long)]
    pub(super) foreground: bool,
    /// Append log lines to this file; SIGHUP reopens it. Default of a daemon: the system log.
    #[arg(long, value_name = "FILE")]
    pub(super) log: Option<PathBuf>,
    /// error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL")]
    pub(super) log_level: Option<String>,
}

/// How to talk to the kernel.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TransportArg {
    /// The best that works here; a warning says why it is not `uring`.
    Auto,
    /// FUSE over io_uring: Linux 6.14 and later, with fuse.enable_uring=Y.
    Uring,
    /// The classic protocol through io_uring: Linux 5.10 and later.
    Ring,
    /// The classic protocol with plain reads and writes.
    Blocking,
}

/// `ringfs umount`.
#[derive(Args, Debug, Clone)]
pub(super) struct UmountArgs {
    /// The mount.
    pub(super) dir: PathBuf,
    /// End it even when it hangs or is in use: programs using it get errors, unflushed writes are lost.
    #[arg(long)]
    pub(super) force: bool,
    /// Take it out of the tree now and end it when its last user is gone.
    #[arg(long, conflicts_with = "force")]
    pub(super) lazy: bool,
    /// How long flushing and ending may take together, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(super) timeout: u32,
}

/// `ringfs serve`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "A listen address other than a unix socket or loopback needs --secret-file.\n\
SIGTERM ends the server: what was acknowledged is on the disk, clients wait and go on when it is back.")]
pub(super) struct ServeArgs {
    /// Directory of the store; created when missing.
    pub(super) store: PathBuf,
    /// Where to listen: unix:PATH or tcp://ADDRESS:PORT. May be given several times.
    #[arg(long, required = true, value_name = "ADDRESS")]
    pub(super) listen: Vec<String>,
    #[command(flatten)]
    /// See [`ServerTimes`].
    pub(super) times: ServerTimes,
    #[command(flatten)]
    /// See [`DaemonArgs`].
    pub(super) daemon: DaemonArgs,
}

/// `ringfs status`.
#[derive(Args, Debug, Clone)]
#[command(
    after_help = "A mount is asked through its control socket and never touched, so this works while it hangs."
)]
pub(super) struct StatusArgs {
    /// A mount, or a server address (unix:PATH, tcp://HOST:PORT). Without it: every mount of this host.
    pub(super) target: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
    /// Secret of the server, when an address is asked.
    #[arg(long, value_name = "FILE")]
    pub(super) secret_file: Option<PathBuf>,
}

/// `ringfs flush`.
#[derive(Args, Debug, Clone)]
pub(super) struct FlushArgs {
    /// The mount.
    pub(super) dir: PathBuf,
    /// Give up after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(super) timeout: u32,
}

/// `ringfs errors`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "Programs learn of such errors by fsync(2) and close(2), each descriptor once.\n\
Exit codes: 0 the list is empty, 1 could not ask, 4 something is in it.")]
pub(super) struct ErrorsArgs {
    /// The mount.
    pub(super) dir: PathBuf,
    /// Empty the list; if too many errors made every change wait for the server, that ends.
    #[arg(long)]
    pub(super) clear: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// `ringfs rescue`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "The data lies in plain files, which stay when the mount ends; \
`ringfs status` names their folder.")]
pub(super) struct RescueArgs {
    /// What to do.
    #[command(subcommand)]
    pub(super) action: RescueAction,
}

/// What `ringfs rescue` does. DIR is a mount, or the folder of a rescue area.
#[derive(Subcommand, Debug, Clone)]
pub(super) enum RescueAction {
    /// List what was rescued.
    List {
        /// A mount, or the folder of a rescue area.
        dir: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what is known of one file: its path, and each piece with its offset and errno.
    Show {
        /// A mount, or the folder of a rescue area.
        dir: PathBuf,
        /// As `list` names it.
        id: String,
    },
    /// Copy the data of one file to a new file.
    Save {
        /// A mount, or the folder of a rescue area.
        dir: PathBuf,
        /// As `list` names it.
        id: String,
        /// The new file.
        to: PathBuf,
    },
    /// Remove the data of one file for good.
    Drop {
        /// A mount, or the folder of a rescue area.
        dir: PathBuf,
        /// As `list` names it.
        id: String,
    },
}

/// `ringfs info`.
#[derive(Args, Debug, Clone)]
pub(super) struct InfoArgs {
    /// File or directory on a ringfs mount.
    pub(super) path: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// `ringfs fsck`.
#[derive(Args, Debug, Clone)]
#[command(
    after_help = "Exit codes: 0 clean or everything repaired, 1 could not check, 3 the store is in use, \
4 damage found."
)]
pub(super) struct FsckArgs {
    /// Directory of the store.
    pub(super) store: PathBuf,
    /// Read all file data too and verify its checksums.
    #[arg(long)]
    pub(super) data: bool,
    /// Mend what can be mended without guessing.
    #[arg(long)]
    pub(super) repair: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// `ringfs doctor`.
#[derive(Args, Debug, Clone)]
#[command(
    after_help = "Exit codes: 0 nothing fails (warnings may remain), 4 something that mounts need is missing."
)]
pub(super) struct DoctorArgs {
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// `ringfs bench`.
#[derive(Args, Debug, Clone)]
pub(super) struct BenchArgs {
    /// An existing directory; a folder is made in it and removed afterwards.
    pub(super) dir: PathBuf,
    /// Files in all.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) files: u32,
    /// Threads; each has a directory of its own unless --shared.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(super) threads: u32,
    /// Bytes written to each file.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    pub(super) size: u32,
    /// All threads work in one directory.
    #[arg(long)]
    pub(super) shared: bool,
    /// fsync each file before closing it.
    #[arg(long)]
    pub(super) fsync: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// `ringfs ask-mount`: not for people.
#[derive(Args, Debug, Clone)]
pub(super) struct AskMountArgs {
    /// What to ask.
    #[arg(value_enum)]
    pub(super) question: Question,
    /// About what.
    pub(super) path: PathBuf,
}

/// What a child asks a mount.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Question {
    /// Whether it answers a statfs.
    Statfs,
    /// What a file is like.
    Describe,
}

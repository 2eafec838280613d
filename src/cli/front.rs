//! What answers the kernel behind one mount: nothing (`null:`), a server elsewhere, or a server in this process.

use super::args::MountArgs;
use super::fail::Failure;
use super::options;
use super::own_server::OwnServer;
use super::print;
use super::server_address;
use crate::base::Errno;
use crate::client::late::{LateOptions, LateReport, default_folder};
use crate::client::link::{LinkOptions, Target};
use crate::client::mount::{Mount, Options as ClientOptions};
use crate::client::ops;
use crate::client::serve::{self, Serve};
use crate::kernel::null::{Null, NullOptions};
use crate::kernel::transport::Handler;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The source that remembers nothing.
pub(super) const NULL: &str = "null:";

/// One opened source.
pub(super) struct Front {
    /// As the mount table shows it.
    pub(super) source: String,
    /// The server takes no changes.
    pub(super) read_only: bool,
    handler: Arc<dyn Handler>,
    /// Absent for `null:`.
    client: Option<Arc<Mount>>,
    /// Only with a directory as source; taken when it ends.
    server: Mutex<Option<OwnServer>>,
    /// The volume's name as people write it.
    volume: Option<String>,
}

/// Whether the words about a source make sense, before anything is touched.
///
/// # Errors
/// [`super::fail::Exit::Usage`].
pub(super) fn judge(args: &MountArgs) -> Result<(), Failure> {
    if args.source == NULL {
        return Ok(());
    }
    if args.bare {
        return Err(Failure::usage("--bare is for the source null: alone"));
    }
    if server_address::is_address(&args.source) {
        if args.times.lease.or(args.times.grace).or(args.times.recall_timeout).is_some() {
            return Err(Failure::usage(
                "lease, grace and recall timeout are the server's: give them to `ringfs serve`",
            ));
        }
        return server_address::parse(&args.source).map(|_| ());
    }
    server_address::refuse_unknown_scheme("source", &args.source, "unix:PATH, tcp://HOST:PORT or null:")
}

impl Front {
    /// Opens the source of a mount at `point`.
    ///
    /// # Errors
    /// One line that names the remedy.
    pub(super) fn open(args: &MountArgs, point: &Path) -> Result<Self, Failure> {
        if args.source == NULL {
            return Ok(Self::null(args.bare));
        }
        let client = options::of_client(&args.client);
        let mut options = LinkOptions::new(&point.display().to_string()).map_err(Failure::new)?;
        options.leases = !client.sync;
        let rescue = args.client.rescue.clone().or_else(|| rescue_folder(point));
        let late = LateOptions { rescue, ..LateOptions::default() };
        if server_address::is_address(&args.source) {
            let target = server_address::parse(&args.source)?;
            options.secret = server_address::optional_secret(args.times.secret_file.as_deref())?;
            return Self::connected(target.to_string(), target, (options, client, late), None);
        }
        let folder = server_address::settled(Path::new(&args.source))?;
        let server = OwnServer::open(&folder, &args.times)?;
        let target = server.local(&options)?;
        Self::connected(folder.display().to_string(), target, (options, client, late), Some(server))
    }

    fn null(bare: bool) -> Self {
        // The flags of a real mount on a kernel that has them all: what is measured is what is used.
        let real = NullOptions { flags: serve::features(), open_flags: ops::open_mode(true) };
        let options = if bare { NullOptions::BARE } else { real };
        Self {
            source: NULL.into(),
            read_only: false,
            handler: Arc::new(Null::new(options)),
            client: None,
            server: Mutex::new(None),
            volume: None,
        }
    }

    fn connected(
        source: String,
        target: Target,
        (link, client, late): (LinkOptions, ClientOptions, LateOptions),
        server: Option<OwnServer>,
    ) -> Result<Self, Failure> {
        let (mount, welcome) = Mount::open(target, link, client, late).map_err(Failure::new)?;
        Ok(Self {
            source,
            read_only: welcome.read_only,
            handler: Arc::new(Serve::new(Arc::clone(&mount))),
            client: Some(mount),
            server: Mutex::new(server),
            volume: Some(print::uuid(&welcome.volume)),
        })
    }

    /// What the transport calls.
    pub(super) fn handler(&self) -> Arc<dyn Handler> {
        Arc::clone(&self.handler)
    }

    /// Fields for `ringfs status`; from memory.
    pub(super) fn status(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        if let Some(client) = &self.client {
            let mut status = serde_json::to_value(client.status()).unwrap_or(Value::Null);
            let mut link =
                status.as_object_mut().and_then(|fields| fields.remove("link")).unwrap_or_default();
            if let Some(link) = link.as_object_mut() {
                link.insert("volume".into(), self.volume.clone().into());
            }
            fields.insert("client".into(), status);
            fields.insert("link".into(), link);
        }
        // Whoever closes the server holds this for long.
        if let Ok(server) = self.server.try_lock()
            && let Some(server) = &*server
        {
            fields.insert("server".into(), server.status());
        }
        fields
    }

    /// What failed late; with `clear` the list is emptied.
    pub(super) fn errors(&self, clear: bool) -> Value {
        let report = self.client.as_ref().map_or_else(LateReport::default, |client| {
            let report = client.late().report();
            if clear {
                client.clear_errors();
            }
            report
        });
        serde_json::to_value(report).unwrap_or_default()
    }

    /// Everything durable that was answered before; gives up after `patience`.
    ///
    /// # Errors
    /// One line.
    pub(super) fn flush(&self, patience: Duration) -> Result<(), String> {
        let Some(client) = &self.client else { return Ok(()) };
        let (tell, told) = channel();
        // Nobody listens any more when it comes too late.
        client.flush(move |result| {
            let _ = tell.send(result);
        });
        match told.recv_timeout(patience) {
            Ok(Ok(())) => Ok(()),
            // Told once, by the first flush behind it: trying again helps.
            Ok(Err(errno)) if !client.late().report().failures.is_empty() => Err(format!(
                "a change that had been answered was refused later ({errno}): see `ringfs errors`"
            )),
            Ok(Err(errno)) => Err(format!("the server answered {errno}")),
            Err(_) if client.status().link.connected => {
                Err(format!("the server was not done within {} s", patience.as_secs()))
            }
            Err(_) => Err(format!("the server is away: {}", client.status().link.fault.unwrap_or_default())),
        }
    }

    /// The mount is gone: flushes and leaves. Later calls do nothing.
    ///
    /// # Errors
    /// What could not be made durable.
    pub(super) fn close(&self, patience: Duration) -> Result<(), String> {
        let left = match self.client.as_ref().map_or(Ok(()), |client| client.leave(patience)) {
            // The kernel's own end of the mount has left already; a server that is away has told nothing.
            Err(Errno::ETIMEDOUT) => Err("the server is away".to_owned()),
            other => other.map_err(|errno| format!("the server answered {errno}")),
        };
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        left.and(server.map_or(Ok(()), OwnServer::close))
    }

    /// Closes a source that could not be mounted, and makes a failure of the reason.
    pub(super) fn give_up(&self, reason: impl std::fmt::Display) -> Failure {
        if let Err(why) = self.close(Duration::from_secs(2)) {
            tracing::warn!("{}: {why}", self.source);
        }
        Failure::new(reason)
    }
}

/// Where data goes that the server did not take.
fn rescue_folder(point: &Path) -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from);
    let (state, home) = (folder("XDG_STATE_HOME"), folder("HOME"));
    default_folder(point, nix::unistd::geteuid().is_root(), state.as_deref(), home.as_deref())
}

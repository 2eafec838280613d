//! A store opened by this process, and the server on it: for `ringfs serve`, and inside a mount of a directory.

use super::args::ServerTimes;
use super::fail::Failure;
use super::server_address;
use crate::base::Time;
use crate::client::link::{LinkOptions, LocalNotices, Target};
use crate::server::apply::{Volume, VolumeOptions};
use crate::server::serve::{Listen, ListenFault, Secret, ServeOptions, Server};
use crate::server::store::{OpenFault, Store, StoreOptions};
use crate::wire::hello::Hello;
use crate::wire::version;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// See the module.
pub(super) struct OwnServer {
    server: Server,
}

impl OwnServer {
    /// Opens the store in `folder`, making it when it is missing, and starts a server that nobody can reach yet.
    ///
    /// # Errors
    /// The store is in use, of a newer format, damaged, or cannot be made.
    pub(super) fn open(folder: &Path, times: &ServerTimes) -> Result<Self, Failure> {
        let owner = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let mut options = StoreOptions::new(now(), owner);
        if let Some(mib) = times.store_cache {
            options.cache_bytes = u64::from(mib) << 20;
        }
        let store = Store::open(folder, &options).map_err(open_failure)?;
        let found = *store.found();
        if !found.clean {
            tracing::warn!(torn_bytes = found.torn_bytes, "{} was not closed in order", folder.display());
        }
        let volume = Volume::open(store, VolumeOptions::new(Arc::new(now))).map_err(Failure::new)?;
        let options = serve_options(times)?;
        let server = Server::open(volume, options).map_err(Failure::new)?;
        Ok(Self { server })
    }

    /// Lets clients in at an address; returns it as they would write it.
    ///
    /// # Errors
    /// It is taken, does not exist here, or is open to other hosts without a secret.
    pub(super) fn listen(&self, at: &Listen) -> Result<String, Failure> {
        self.server.listen(at).map_err(|fault| match fault {
            ListenFault::InUse { .. } => Failure::busy(fault),
            fault => Failure::new(fault),
        })
    }

    /// A session of this process, as a mount's link takes it.
    ///
    /// # Errors
    /// The server refuses, as it would refuse a remote client.
    pub(super) fn local(&self, options: &LinkOptions) -> Result<Target, Failure> {
        let hello = Hello {
            version_oldest: u32::from(version::OLDEST),
            version_newest: u32::from(version::NEWEST),
            session: options.session.0.to_le_bytes().to_vec(),
            host: options.host.clone(),
            pid: std::process::id(),
            mount_point: options.mount_point.clone(),
            leases: options.leases,
            ..Hello::default()
        };
        let notices = Arc::<LocalNotices>::default();
        let (peer, welcome) =
            self.server.local(&hello, notices.sink()).map_err(|refusal| Failure::new(refusal.reason))?;
        Ok(Target::Local { peer: Arc::new(peer), welcome, notices })
    }

    /// What the server tells of itself.
    pub(super) fn status(&self) -> Value {
        serde_json::from_str(&self.server.status()).unwrap_or(Value::Null)
    }

    /// Ends the server in order and closes the store.
    ///
    /// # Errors
    /// The disk refused.
    pub(super) fn close(self) -> Result<(), String> {
        self.server.shutdown().map_err(|fault| fault.to_string())
    }
}

fn serve_options(times: &ServerTimes) -> Result<ServeOptions, Failure> {
    let mut options = ServeOptions::default();
    if let Some(lease) = times.lease {
        options.lease = Duration::from_secs(lease.into());
        options.grace = options.lease;
    }
    options.leases.recall_timeout = match times.recall_timeout {
        Some(seconds) => Duration::from_secs(seconds.into()),
        None => options.leases.recall_timeout.min(options.lease),
    };
    if let Some(grace) = times.grace {
        options.grace = Duration::from_secs(grace.into());
    }
    let secret = times.secret_file.as_deref().map(server_address::read_secret_bytes).transpose()?;
    options.secret = secret.map(|bytes| Secret::new(&bytes)).transpose().map_err(Failure::new)?;
    Ok(options)
}

/// A store that cannot be opened, with the exit code for one in use.
pub(super) fn open_failure(fault: OpenFault) -> Failure {
    match fault {
        OpenFault::InUse { .. } => Failure::busy(fault),
        fault => Failure::new(fault),
    }
}

/// The present time.
pub(super) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
}

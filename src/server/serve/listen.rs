//! Binding to an address, and the thread that accepts.

use super::accept::{Acceptor, Listener};
use super::address::Listen;
use super::{Core, accept, accept_ring};
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a server cannot listen. One line for the user.
#[derive(Debug, thiserror::Error)]
pub enum ListenFault {
    /// A live server has the address.
    #[error("{at} is in use by another server: stop it or give another address")]
    InUse {
        /// The address.
        at: Listen,
    },
    /// Something that is no socket has the name.
    #[error("{} exists and is no socket: remove it or give another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The address does not exist here.
    #[error("{at} is no address of this host: {cause}")]
    Resolve {
        /// The address.
        at: Listen,
        /// What the system said.
        cause: io::Error,
    },
    /// Anybody could connect and read and change everything.
    #[error(
        "{at} can be reached from other hosts, and no secret is set: give --secret-file FILE, or listen at 127.0.0.1 \
         or unix:PATH"
    )]
    NeedsSecret {
        /// The address.
        at: Listen,
    },
    /// The system refused.
    #[error("cannot listen at {at}: {cause}")]
    System {
        /// The address.
        at: Listen,
        /// What the system said.
        cause: io::Error,
    },
}

/// An address that is listened at.
pub(super) struct Listening {
    address: String,
    acceptor: Acceptor,
    /// The socket file, with its device and inode: another server may have put its own there since.
    file: Option<(PathBuf, u64, u64)>,
}

impl Listening {
    pub(super) fn start(core: &Arc<Core>, at: &Listen) -> Result<Self, ListenFault> {
        let system = |cause| ListenFault::System { at: at.clone(), cause };
        let (address, acceptor, file) = match at {
            Listen::Tcp(host) => {
                let listener = bind_tcp(core, at, host)?;
                let address = format!("tcp://{}", listener.local_addr().map_err(system)?);
                let acceptor = match core.options.ring && accept_ring::allowed() {
                    true => accept_ring::start(core, listener),
                    false => accept::start(core, Listener::Tcp(listener)),
                };
                (address, acceptor.map_err(system)?, None)
            }
            Listen::Unix(path) => {
                check_free(at, path)?;
                let (listener, file) = bind_unix(path).map_err(system)?;
                let acceptor = accept::start(core, Listener::Unix(listener)).map_err(system)?;
                (at.to_string(), acceptor, Some(file))
            }
        };
        core.connections.add_address(address.clone());
        tracing::info!(address, through = acceptor.through(), "listening");
        Ok(Self { address, acceptor, file })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Accepts no more, and removes the socket file.
    pub(super) fn stop(self) {
        self.acceptor.stop();
        if let Some((path, device, inode)) = self.file
            && fs::symlink_metadata(&path).is_ok_and(|file| (file.dev(), file.ino()) == (device, inode))
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::warn!(path = %path.display(), %error, "the socket file stays");
        }
    }
}

fn bind_tcp(core: &Core, at: &Listen, host: &str) -> Result<TcpListener, ListenFault> {
    let resolved = host.to_socket_addrs().map_err(|cause| ListenFault::Resolve { at: at.clone(), cause })?;
    let addresses: Vec<SocketAddr> = resolved.collect();
    let local = addresses.iter().all(|address| address.ip().to_canonical().is_loopback());
    if !local && core.options.secret.is_none() {
        return Err(ListenFault::NeedsSecret { at: at.clone() });
    }
    TcpListener::bind(&addresses[..]).map_err(|cause| match cause.kind() {
        io::ErrorKind::AddrInUse => ListenFault::InUse { at: at.clone() },
        _ => ListenFault::System { at: at.clone(), cause },
    })
}

/// Whether a unix socket may be made at `path`: nothing is there, or the socket of a server that is gone.
fn check_free(at: &Listen, path: &Path) -> Result<(), ListenFault> {
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => Err(ListenFault::NotASocket { path: path.to_owned() }),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                tracing::info!(path = %path.display(), "replacing the socket file of a server that is gone");
                Ok(())
            }
            // Whoever answers, or does not let us ask, is alive.
            Ok(_) | Err(_) => Err(ListenFault::InUse { at: at.clone() }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(ListenFault::System { at: at.clone(), cause }),
    }
}

type SocketFile = (PathBuf, u64, u64);

/// Binds in a folder that is closed to others, closes the socket file too, and only then gives it its real name: nobody
/// else can connect before that, and the file of a dead server is replaced in one step.
fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let mut folder = path.as_os_str().to_owned();
    folder.push(format!(".{}", std::process::id()));
    let (folder, own) = (PathBuf::from(&folder), PathBuf::from(folder).join("s"));
    // Leftovers of an earlier process with this number; mostly there are none.
    drop(fs::remove_file(&own));
    drop(fs::remove_dir(&folder));
    fs::DirBuilder::new().mode(0o700).create(&folder)?;
    let bound = UnixListener::bind(&own).and_then(|listener| {
        fs::set_permissions(&own, fs::Permissions::from_mode(0o600))?;
        let file = fs::symlink_metadata(&own)?;
        fs::rename(&own, path)?;
        Ok((listener, (path.to_owned(), file.dev(), file.ino())))
    });
    if bound.is_err() {
        // Not there when the bind itself failed.
        drop(fs::remove_file(&own));
    }
    if let Err(error) = fs::remove_dir(&folder) {
        tracing::warn!(path = %folder.display(), %error, "a folder made for the start stays");
    }
    bound
}

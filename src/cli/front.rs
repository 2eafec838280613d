//! What answers the kernel behind one mount: nothing (`null:`), a server elsewhere, or a server in this process.

use super::args::MountArgs;
use super::fail::Failure;
use crate::kernel::abi::InitFlags;
use crate::kernel::null::{Null, NullOptions};
use crate::kernel::transport::Handler;
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The source that remembers nothing.
const NULL: &str = "null:";

/// One opened source.
pub(super) struct Front {
    /// As the mount table shows it.
    pub(super) source: String,
    handler: Arc<dyn Handler>,
}

impl Front {
    /// Opens the source of a mount at `point`.
    ///
    /// # Errors
    /// One line that names the remedy.
    pub(super) fn open(args: &MountArgs, point: &Path) -> Result<Self, Failure> {
        let _ = point;
        if args.source == NULL {
            let options = if args.bare {
                NullOptions::BARE
            } else {
                NullOptions { flags: InitFlags::NONE, open_flags: 0 }
            };
            return Ok(Self { source: NULL.into(), handler: Arc::new(Null::new(options)) });
        }
        Err(Failure::new("not yet"))
    }

    /// What the transport calls.
    #[must_use]
    pub(super) fn handler(&self) -> Arc<dyn Handler> {
        Arc::clone(&self.handler)
    }

    /// Fields for `ringfs status`; from memory.
    #[must_use]
    pub(super) fn status(&self) -> Map<String, Value> {
        Map::new()
    }

    /// Everything durable that was answered before; gives up after `patience`.
    ///
    /// # Errors
    /// One line.
    pub(super) fn flush(&self, patience: Duration) -> Result<(), String> {
        let _ = patience;
        Ok(())
    }

    /// The mount is gone: flushes and leaves. Later calls do nothing.
    ///
    /// # Errors
    /// What could not be made durable.
    pub(super) fn close(&self, patience: Duration) -> Result<(), String> {
        let _ = patience;
        Ok(())
    }

    /// Closes a source that could not be mounted, and makes a failure of the reason.
    pub(super) fn give_up(&self, reason: impl std::fmt::Display) -> Failure {
        if let Err(why) = self.close(Duration::from_secs(2)) {
            tracing::warn!("{}: {why}", self.source);
        }
        Failure::new(reason)
    }
}

//! The other side of a session, however it is reached.

use super::Frame;

/// Where the answer to a frame goes; called exactly once, from any thread.
pub type Reply = Box<dyn FnOnce(Frame) + Send>;

/// Where the server's notices of one session go. Called from any thread, under no lock of the server; must not block, and
/// must not submit a frame from within.
pub type Notices = std::sync::Arc<dyn Fn(Frame) + Send + Sync>;

/// A server that takes frames of one established session. The embedded server is one by a plain call; over a
/// socket the client's link plays the part.
pub trait Peer: Send + Sync {
    /// Takes a `Call`, a `Batch` or a `Bye`. `reply` gets the `Answer` or `Outcomes` of the same sequence, possibly
    /// before this returns; it gets nothing for a `Bye`. Must not block longer than the store needs: what waits for
    /// a lock or for the disk's cache is answered later.
    fn submit(&self, frame: Frame, reply: Reply);
}

//! Who asked.

/// Credentials of the process behind a request, as the kernel states them in the request's header.
///
/// Permission bits, ACLs and the sticky bit are enforced by the client's kernel (`default_permissions`);
/// the server uses these for ownership of what is made and for the rules on setuid and setgid bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Caller {
    /// File-system user id.
    pub uid: u32,
    /// File-system group id.
    pub gid: u32,
    /// Thread id in the daemon's pid namespace, 0 when it has none there.
    pub pid: u32,
}

impl Caller {
    /// The superuser without a process: what the server itself does.
    pub const ROOT: Self = Self { uid: 0, gid: 0, pid: 0 };
}

//! Versions of the protocol, and what each changed. Peers agree on the highest both speak.

/// The first version: one mutation per batch, no leases.
pub const V1: u16 = 1;

/// Oldest version this program speaks.
pub const OLDEST: u16 = V1;

/// Newest version this program speaks.
pub const NEWEST: u16 = V1;

/// The version two peers use, if they have one in common.
#[must_use]
pub fn agree(oldest: u16, newest: u16) -> Option<u16> {
    let version = newest.min(NEWEST);
    (version >= oldest && version >= OLDEST).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::{NEWEST, agree};

    #[test]
    fn peers_use_the_highest_version_both_speak() {
        assert_eq!(agree(1, NEWEST), Some(NEWEST));
        assert_eq!(agree(1, NEWEST + 5), Some(NEWEST));
        assert_eq!(agree(NEWEST + 1, NEWEST + 5), None);
        assert_eq!(agree(0, 0), None);
    }
}

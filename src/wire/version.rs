//! Versions of the protocol, and what each changed. Peers agree on the highest both speak.

/// The first version had one mutation per batch and no leases. It is not spoken any more.
pub const V1: u16 = 1;

/// Leases, grants and notices; local mutations; two acknowledgements.
pub const V2: u16 = 2;

/// Oldest version this program speaks.
pub const OLDEST: u16 = V2;

/// Newest version this program speaks.
pub const NEWEST: u16 = V2;

/// The version two peers use, if they have one in common.
#[must_use]
pub fn agree(oldest: u16, newest: u16) -> Option<u16> {
    let version = newest.min(NEWEST);
    (version >= oldest && version >= OLDEST).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::{NEWEST, V1, agree};

    #[test]
    fn peers_use_the_highest_version_both_speak() {
        assert_eq!(agree(1, NEWEST), Some(NEWEST));
        assert_eq!(agree(1, NEWEST + 5), Some(NEWEST));
        assert_eq!(agree(NEWEST + 1, NEWEST + 5), None);
        assert_eq!(agree(0, 0), None);
        assert_eq!(agree(V1, V1), None);
    }
}

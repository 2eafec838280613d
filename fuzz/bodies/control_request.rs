//! Lines of the control socket, both ways.

use ringfs::control::{Ask, Reply};

/// One input.
pub fn run(data: &[u8]) {
    if let Err(why) = Ask::parse(data) {
        assert!(!why.contains('\n'), "{why}");
    }
    if let Err(why) = Reply::parse(data) {
        assert!(!why.contains('\n'), "{why}");
    }
}

//! Handshake messages: every input is read as each of them.

use ringfs::wire::hello::{self, Challenge, Hello, Proof, Refusal, Welcome};
use ringfs::wire::version;

/// One input.
pub fn run(data: &[u8]) {
    if let Ok(hello) = hello::decode::<Hello>(data) {
        assert_eq!(hello::decode::<Hello>(&hello::encode(&hello)), Ok(hello.clone()));
        let number = |version: u32| u16::try_from(version).unwrap_or(u16::MAX);
        let (oldest, newest) = (number(hello.version_oldest), number(hello.version_newest));
        if let Some(agreed) = version::agree(oldest, newest) {
            assert!((version::OLDEST..=version::NEWEST).contains(&agreed) && agreed <= newest);
        }
    }
    if let Ok(challenge) = hello::decode::<Challenge>(data) {
        assert_eq!(hello::decode::<Challenge>(&hello::encode(&challenge)), Ok(challenge));
    }
    if let Ok(proof) = hello::decode::<Proof>(data) {
        assert_eq!(hello::decode::<Proof>(&hello::encode(&proof)), Ok(proof));
    }
    if let Ok(welcome) = hello::decode::<Welcome>(data) {
        assert_eq!(hello::decode::<Welcome>(&hello::encode(&welcome)), Ok(welcome));
    }
    if let Ok(refusal) = hello::decode::<Refusal>(data) {
        assert_eq!(hello::decode::<Refusal>(&hello::encode(&refusal)), Ok(refusal));
    }
}

//! The shared secret: who knows it may connect. It proves both sides to each other; it does not hide what is said.

use ring::hmac;
use std::fmt;

/// Fewest bytes of a secret.
const SECRET_BYTES_MIN: usize = 16;

/// What client and server both know. Never printed.
#[derive(Clone)]
pub struct Secret(hmac::Key);

/// Whose proof it is; the words are part of it, so that one side's proof is worth nothing from the other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    Client,
    Server,
}

impl Secret {
    /// The secret is these bytes, all of them.
    ///
    /// # Errors
    /// One line for the user: it is too short.
    pub fn new(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < SECRET_BYTES_MIN {
            let count = bytes.len();
            return Err(format!(
                "the secret has {count} bytes; give at least {SECRET_BYTES_MIN} random ones"
            ));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }

    pub(super) fn prove(&self, side: Side, client_nonce: &[u8], server_nonce: &[u8]) -> Vec<u8> {
        hmac::sign(&self.0, &said(side, client_nonce, server_nonce)).as_ref().to_vec()
    }

    /// Compares in constant time.
    pub(super) fn proves(&self, side: Side, client_nonce: &[u8], server_nonce: &[u8], proof: &[u8]) -> bool {
        hmac::verify(&self.0, &said(side, client_nonce, server_nonce), proof).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

fn said(side: Side, client_nonce: &[u8], server_nonce: &[u8]) -> Vec<u8> {
    let words: &[u8] = match side {
        Side::Client => b"ringfs client",
        Side::Server => b"ringfs server",
    };
    [words, client_nonce, server_nonce].concat()
}

#[cfg(test)]
mod tests {
    use super::{Secret, Side};

    #[test]
    fn a_proof_is_worth_something_from_its_own_side_and_nonces_alone() {
        let secret = Secret::new(b"0123456789abcdef").unwrap();
        let same = Secret::new(b"0123456789abcdef").unwrap();
        let proof = secret.prove(Side::Client, &[1; 32], &[2; 32]);
        assert!(same.proves(Side::Client, &[1; 32], &[2; 32], &proof));
        assert!(!same.proves(Side::Server, &[1; 32], &[2; 32], &proof));
        assert!(!same.proves(Side::Client, &[2; 32], &[1; 32], &proof));
        assert!(!same.proves(Side::Client, &[1; 32], &[2; 32], &proof[..31]));
        assert!(Secret::new(b"short").is_err());
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}

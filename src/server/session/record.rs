//! What a session tells of itself, and how that is kept over a restart.

use crate::base::SessionId;
use crate::wire::hello::Hello;
use prost::Message;

/// Longest host name or mount point that is kept; it is for the operator's eyes alone.
pub(crate) const TEXT_BYTES_MAX: usize = 256;

/// Who a client is, for the operator. It is the client's own word.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct About {
    /// Host name.
    #[prost(string, tag = "1")]
    pub host: String,
    /// Process id there.
    #[prost(uint32, tag = "2")]
    pub pid: u32,
    /// Mount point there.
    #[prost(string, tag = "3")]
    pub mount_point: String,
    /// It lives in the server's own process and dies with it: no lease runs, and no restart brings it back.
    #[prost(bool, tag = "4")]
    pub local: bool,
    /// Inode numbers it was given, newest last: first, and one past the last, in turn.
    #[prost(uint64, repeated, tag = "5")]
    pub numbers: Vec<u64>,
}

impl About {
    /// What a hello says.
    #[must_use]
    pub fn new(hello: &Hello, local: bool) -> Self {
        Self {
            host: cut(&hello.host),
            pid: hello.pid,
            mount_point: cut(&hello.mount_point),
            local,
            numbers: Vec::new(),
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// A record that cannot be read still is a session: nothing but names is lost.
    pub(super) fn from_bytes(session: SessionId, bytes: &[u8]) -> Self {
        Self::decode(bytes).unwrap_or_else(|fault| {
            tracing::warn!(%session, %fault, "record of a session is damaged; its host and mount point are unknown");
            Self::default()
        })
    }
}

fn cut(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    match text.char_indices().find(|(at, c)| at + c.len_utf8() > TEXT_BYTES_MAX) {
        Some((at, _)) => text[..at].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::About;
    use crate::base::SessionId;
    use crate::wire::hello::Hello;

    #[test]
    fn what_a_client_says_of_itself_is_cut_and_survives_the_store() {
        let host = format!("a\n{}", "\u{e9}".repeat(2000));
        let about = About::new(&Hello { host, pid: 7, ..Hello::default() }, false);
        assert_eq!((about.host.len(), about.host.starts_with("a\u{e9}")), (255, true));
        assert_eq!(About::from_bytes(SessionId(1), &about.to_bytes()), about);
        assert_eq!(About::from_bytes(SessionId(1), &[255; 9]), About::default());
    }
}

//! Where a server listens, as a user writes it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// An address to listen at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listen {
    /// `unix:PATH`: a socket in the file system, open to its owner alone.
    Unix(PathBuf),
    /// `tcp://HOST:PORT`; port 0 lets the system choose.
    Tcp(String),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err("unix: needs a path".to_owned())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        if let Some(host) = text.strip_prefix("tcp://") {
            let port = host.rsplit_once(':').filter(|(name, _)| !name.is_empty());
            return match port.map(|(_, port)| port.parse::<u16>()) {
                Some(Ok(_)) => Ok(Self::Tcp(host.to_owned())),
                _ => Err(format!("{text} needs a host and a port, as in tcp://127.0.0.1:7440")),
            };
        }
        Err(format!("{text} is no address: give unix:PATH or tcp://HOST:PORT"))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp://{host}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Listen;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for good in ["unix:/run/x y.sock", "tcp://127.0.0.1:0", "tcp://[::1]:7440", "tcp://host:1"] {
            assert_eq!(good.parse::<Listen>().unwrap().to_string(), good);
        }
        for bad in
            ["", "unix:", "tcp://", "tcp://host", "tcp://:7", "tcp://host:70000", "/run/x", "udp://h:1"]
        {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }
}

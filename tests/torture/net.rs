//! A network of its own for the server: a namespace, and for each client a pair of linked interfaces that can be cut.

use std::process::Command;

/// A namespace with two links. Goes away when dropped, and the links with it.
pub(crate) struct Net {
    name: String,
    links: Vec<String>,
    subnet: u8,
}

impl Net {
    /// Makes the namespace; says why not where it cannot.
    pub(crate) fn new() -> Option<Self> {
        let id = std::process::id();
        let subnet = u8::try_from(id % 200).unwrap_or(0) + 20;
        let name = format!("ringfs-{id}");
        let net = Self { links: (0..2).map(|n| format!("rf{}-{n}", id % 100_000)).collect(), name, subnet };
        if let Err(why) = net.build() {
            eprintln!("skipped: needs a network namespace with veth pairs: {why}");
            return None;
        }
        Some(net)
    }

    fn build(&self) -> Result<(), String> {
        ip(&["netns", "add", &self.name])?;
        ip(&["-n", &self.name, "link", "set", "lo", "up"])?;
        for (n, link) in self.links.iter().enumerate() {
            let peer = format!("{link}p");
            ip(&["link", "add", link, "type", "veth", "peer", "name", &peer, "netns", &self.name])?;
            ip(&["addr", "add", &format!("{}/30", self.address(n, 1)), "dev", link])?;
            ip(&["-n", &self.name, "addr", "add", &format!("{}/30", self.address(n, 2)), "dev", &peer])?;
            ip(&["-n", &self.name, "link", "set", &peer, "up"])?;
            ip(&["link", "set", link, "up"])?;
            // Without its link the address is nowhere, not behind the host's default route.
            ip(&["route", "add", "unreachable", &self.subnet(n), "metric", "9999"])?;
        }
        Ok(())
    }

    /// Name of the namespace.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn subnet(&self, link: usize) -> String {
        format!("{}/30", self.address(link, 0))
    }

    fn address(&self, link: usize, end: u8) -> String {
        format!("10.213.{}.{}", self.subnet, u8::try_from(link).unwrap() * 4 + end)
    }

    /// Where a server in the namespace is reached over a link.
    pub(crate) fn server(&self, link: usize) -> String {
        format!("tcp://{}:7420", self.address(link, 2))
    }

    /// Cuts a link: at the server's end the client's packets go nowhere, at the client's it is told so.
    pub(crate) fn cut(&self, link: usize, at_the_server: bool) {
        self.set(link, at_the_server, "down");
    }

    /// Both ends work again.
    pub(crate) fn mend(&self, link: usize) {
        self.set(link, true, "up");
        self.set(link, false, "up");
    }

    fn set(&self, link: usize, at_the_server: bool, to: &str) {
        let (here, there) = (&self.links[link], format!("{}p", self.links[link]));
        let at_the_client: &[&str] = &["link", "set", here, to];
        let words = ["-n", &self.name, "link", "set", &there, to];
        ip(if at_the_server { &words } else { at_the_client }).unwrap();
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for (n, link) in self.links.iter().enumerate() {
            // Not there if building it failed.
            let _ = ip(&["link", "del", link]);
            let _ = ip(&["route", "del", "unreachable", &self.subnet(n), "metric", "9999"]);
        }
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(words: &[&str]) -> Result<(), String> {
    let out = Command::new("ip").args(words).output().map_err(|error| format!("ip: {error}"))?;
    let why = || format!("ip {}: {}", words.join(" "), String::from_utf8_lossy(&out.stderr).trim());
    if out.status.success() { Ok(()) } else { Err(why()) }
}

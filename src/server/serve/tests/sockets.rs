//! Where a server listens, and both ways to accept.

use super::{Client, Rig, Wire, hello};
use crate::server::serve::{Listen, ListenFault, Secret, Server, accept_ring};
use crate::wire::FrameKind;
use crate::wire::hello as cold;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

fn listen(server: &Server, at: &str) -> Result<String, ListenFault> {
    server.listen(&at.parse::<Listen>().unwrap())
}

#[test]
fn both_ways_to_accept_serve_both_families_and_stop() {
    assert!(accept_ring::allowed(), "this test needs a host that allows io_uring");
    for ring in [true, false] {
        let mut rig = Rig::with(|options| options.ring = ring);
        let tcp = listen(rig.server(), "tcp://127.0.0.1:0").unwrap();
        for round in 0..20 {
            assert!(rig.client(round + 1).is_open());
            let stream = TcpStream::connect(tcp.strip_prefix("tcp://").unwrap()).unwrap();
            // The same frames over the other family; the client of these tests holds any stream.
            let mut wire = Wire(std::os::fd::OwnedFd::from(stream).into());
            wire.say(FrameKind::Hello, cold::encode(&hello(round + 1, false)));
            let welcome = wire.welcome().unwrap();
            let session = crate::base::SessionId(round + 1);
            assert!(Client { wire, welcome, session, sequence: 0 }.is_open());
        }
        rig.server().shutdown().unwrap();
        assert!(!rig.socket().exists(), "the socket file is removed");
        assert!(TcpStream::connect(tcp.strip_prefix("tcp://").unwrap()).is_err());
        rig.crash();
    }
}

#[test]
fn other_hosts_are_served_only_with_a_secret() {
    let rig = Rig::new();
    for at in ["tcp://0.0.0.0:0", "tcp://[::]:0", "tcp://[::ffff:10.0.0.1]:0"] {
        let fault = listen(rig.server(), at).unwrap_err();
        assert!(matches!(fault, ListenFault::NeedsSecret { .. }), "{fault}");
        assert!(fault.to_string().contains("--secret-file"), "{fault}");
    }
    for at in ["tcp://127.0.0.1:0", "tcp://127.9.9.9:0"] {
        listen(rig.server(), at).unwrap();
    }
    let safe = Rig::with(|options| options.secret = Some(Secret::new(&[7; 32]).unwrap()));
    listen(safe.server(), "tcp://0.0.0.0:0").unwrap();
}

#[test]
fn an_address_in_use_or_unknown_is_told() {
    let rig = Rig::new();
    let taken = listen(rig.server(), "tcp://127.0.0.1:0").unwrap();
    assert!(matches!(listen(rig.server(), &taken), Err(ListenFault::InUse { .. })));
    let nowhere = listen(rig.server(), "tcp://no-such-host.invalid:1");
    assert!(matches!(nowhere, Err(ListenFault::Resolve { .. })));
    let unix = rig.server().listen(&Listen::Unix("/no/such/folder/socket".into()));
    assert!(matches!(unix, Err(ListenFault::System { .. })));
}

#[test]
fn the_socket_file_of_a_dead_server_is_replaced_and_nothing_else() {
    let rig = Rig::new();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| Listen::Unix(folder.path().join(name));
    // A dead server leaves its file.
    drop(UnixListener::bind(folder.path().join("dead")).unwrap());
    rig.server().listen(&at("dead")).unwrap();
    assert!(Client::connect(&folder.path().join("dead"), 1, false).is_open());
    let live = rig.server().listen(&at("dead"));
    assert!(matches!(live, Err(ListenFault::InUse { .. })));
    fs::write(folder.path().join("file"), b"precious").unwrap();
    let file = rig.server().listen(&at("file"));
    assert!(matches!(file, Err(ListenFault::NotASocket { .. })));
    assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"precious");
    let mode = fs::metadata(folder.path().join("dead")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "others cannot connect");
    let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["dead", "file"], "nothing else is left behind");
}

#[test]
fn a_server_that_stops_leaves_the_socket_file_of_its_successor() {
    let rig = Rig::new();
    fs::remove_file(rig.socket()).unwrap();
    let _successor = UnixListener::bind(rig.socket()).unwrap();
    rig.server().shutdown().unwrap();
    assert!(rig.socket().exists());
}

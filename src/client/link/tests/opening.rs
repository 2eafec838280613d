//! The first connection: who is let in, and what the user reads when nobody is.

use super::super::{Link, LinkFault, LinkOptions, Secret, Target};
use super::peer::{Server, VOLUME};
use crate::wire::FrameKind;
use crate::wire::hello::{Challenge, Hello, Proof, Refusal, Welcome};
use ring::hmac;
use std::io::Write;
use std::time::Duration;

/// The fault, checked to be one line that names the server.
fn fault(opened: Result<(std::sync::Arc<Link>, Welcome), LinkFault>, target: &Target) -> LinkFault {
    let fault = opened.expect_err("it must not open");
    let text = fault.to_string();
    assert!(text.contains(&target.to_string()) && !text.contains('\n'), "{text}");
    fault
}

#[test]
fn an_absent_server_is_told_with_the_command_that_starts_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let target = Target::Unix(path.clone());
    let absent = fault(Link::open(target.clone(), LinkOptions::new("/mnt").unwrap()), &target);
    assert!(matches!(absent, LinkFault::Absent { .. }) && absent.to_string().contains("ringfs serve"));
    // A socket nobody listens on any more.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let refused = fault(Link::open(target.clone(), LinkOptions::new("/mnt").unwrap()), &target);
    assert!(matches!(refused, LinkFault::Absent { .. }), "{refused}");
    let target = Target::Tcp("127.0.0.1:1".into());
    let refused = fault(Link::open(target.clone(), LinkOptions::new("/mnt").unwrap()), &target);
    assert!(matches!(refused, LinkFault::Absent { .. }), "{refused}");
    let target = Target::Tcp("no-port".into());
    let refused = fault(Link::open(target.clone(), LinkOptions::new("/mnt").unwrap()), &target);
    assert!(matches!(refused, LinkFault::Connect { .. }), "{refused}");
}

#[test]
fn a_refusal_is_passed_on_as_one_line() {
    let server = Server::new();
    let opening = server.open(Server::options());
    let mut conn = server.accept();
    conn.hello();
    conn.cold(FrameKind::Refusal, &Refusal { reason: "wrong version:\nupgrade\x1b[1m".into(), retry: false });
    let refused = fault(opening.join().unwrap(), &server.target());
    assert!(matches!(refused, LinkFault::Refused { retry: false, .. }));
    assert!(refused.to_string().ends_with("wrong version:upgrade[1m"), "{refused}");
}

#[test]
fn a_version_this_program_does_not_speak_is_told() {
    let server = Server::new();
    let opening = server.open(Server::options());
    let mut conn = server.accept();
    conn.hello();
    conn.welcome(&Welcome { version: 99, ..server.welcome(false) });
    let refused = fault(opening.join().unwrap(), &server.target());
    assert!(matches!(refused, LinkFault::Version { found: 99, .. }), "{refused}");
}

#[test]
fn a_server_of_another_kind_is_told() {
    let server = Server::new();
    let opening = server.open(Server::options());
    let mut conn = server.accept();
    conn.hello();
    let page = format!("HTTP/1.1 400 Bad Request\r\n{}", "x".repeat(64));
    conn.stream.write_all(page.as_bytes()).unwrap();
    let refused = fault(opening.join().unwrap(), &server.target());
    assert!(refused.to_string().contains("does not speak the ringfs protocol"), "{refused}");
}

#[test]
fn a_server_that_hangs_up_or_is_silent_is_told() {
    let server = Server::new();
    let opening = server.open(Server::options());
    drop(server.accept());
    let closed = fault(opening.join().unwrap(), &server.target());
    assert!(matches!(closed, LinkFault::Closed { .. } | LinkFault::Broken { .. }), "{closed}");

    let mut options = Server::options();
    options.handshake_timeout = Duration::from_millis(30);
    let opening = server.open(options);
    let _conn = server.accept();
    let silent = fault(opening.join().unwrap(), &server.target());
    assert!(matches!(silent, LinkFault::TimedOut { waited_ms: 30, .. }), "{silent}");
}

#[test]
fn a_hello_says_who_comes() {
    let server = Server::new();
    let options = Server::options();
    let session = options.session;
    let opening = server.open(options);
    let mut conn = server.accept();
    let hello = conn.hello();
    assert_eq!((conn.session, hello.resumed, hello.observer), (session, false, false));
    assert_eq!((hello.pid, hello.mount_point.as_str()), (std::process::id(), "/mnt"));
    assert!(!hello.host.is_empty() && hello.nonce.len() == 32 && hello.volume.is_empty());
    drop(conn);
    assert!(opening.join().unwrap().is_err());
}

fn sign(secret: &[u8], side: &[u8], hello: &Hello, nonce: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::sign(&key, &[side, &hello.nonce, nonce].concat()).as_ref().to_vec()
}

fn with_secret(secret: &[u8]) -> LinkOptions {
    LinkOptions { secret: Some(Secret::new(secret)), ..Server::options() }
}

#[test]
fn both_sides_prove_the_secret() {
    let server = Server::new();
    let opening = server.open(with_secret(b"swordfish"));
    let mut conns = Vec::new();
    for _ in 0..2 {
        let mut conn = server.accept();
        let hello = conn.hello();
        let nonce = vec![3; 32];
        let proof = sign(b"swordfish", b"ringfs server", &hello, &nonce);
        conn.cold(FrameKind::Challenge, &Challenge { nonce: nonce.clone(), proof });
        let frame = conn.frame();
        assert_eq!(frame.header.kind, FrameKind::Proof);
        let proof: Proof = crate::wire::hello::decode(&frame.body).unwrap();
        assert_eq!(proof.proof, sign(b"swordfish", b"ringfs client", &hello, &nonce));
        conn.welcome(&server.welcome(false));
        conns.push(conn);
    }
    let (link, welcome) = opening.join().unwrap().unwrap();
    assert_eq!(welcome.volume, VOLUME);
    assert!(link.status().connected && !format!("{:?}", with_secret(b"swordfish")).contains("swordfish"));
}

#[test]
fn a_server_that_cannot_prove_the_secret_learns_nothing() {
    let server = Server::new();
    // Another secret, a nonce of the wrong length, no secret at all.
    for (secret, nonce_bytes) in [(&b"trout"[..], 32), (b"swordfish", 31), (b"", 0)] {
        let opening = server.open(with_secret(b"swordfish"));
        let mut conn = server.accept();
        let hello = conn.hello();
        if nonce_bytes == 0 {
            conn.welcome(&server.welcome(false));
        } else {
            let nonce = vec![3; nonce_bytes];
            let proof = sign(secret, b"ringfs server", &hello, &nonce);
            conn.cold(FrameKind::Challenge, &Challenge { nonce, proof });
        }
        let refused = fault(opening.join().unwrap(), &server.target());
        assert!(matches!(refused, LinkFault::SecretUnproved { .. }), "{refused}");
    }
}

#[test]
fn a_secret_that_is_wanted_and_not_there_is_told() {
    let server = Server::new();
    let opening = server.open(Server::options());
    let mut conn = server.accept();
    conn.hello();
    conn.cold(FrameKind::Challenge, &Challenge { nonce: vec![1; 32], proof: vec![2; 32] });
    let refused = fault(opening.join().unwrap(), &server.target());
    assert!(matches!(refused, LinkFault::SecretWanted { .. }), "{refused}");
}

#[test]
fn tcp_works_too() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target::Tcp(listener.local_addr().unwrap().to_string());
    let mut options = Server::options();
    options.handshake_timeout = Duration::from_millis(30);
    let opened = Link::open(target.clone(), options);
    let (_stream, _) = listener.accept().unwrap();
    assert!(matches!(fault(opened, &target), LinkFault::TimedOut { .. }));
}

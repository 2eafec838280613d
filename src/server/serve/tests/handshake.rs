//! Who is let in, and what the others are told.

use super::{Client, PATIENCE, Rig, Wire, bytes_of, hello};
use crate::base::{Errno, SessionId};
use crate::server::serve::Secret;
use crate::server::serve::secret::Side;
use crate::wire::hello::{self as cold, Challenge, Hello, Proof};
use crate::wire::{Frame, FrameKind, Query, version};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

#[test]
fn a_welcome_tells_volume_epoch_and_lease_and_the_second_connection_that_the_session_is_known() {
    let mut rig = Rig::new();
    let first = rig.client(5).welcome;
    assert_eq!((first.version, first.volume.len(), first.epoch), (u32::from(version::NEWEST), 16, 1));
    assert_eq!((first.session_known, first.lease_ms, first.read_only), (false, 10_000, false));
    assert!(rig.client(5).welcome.session_known);
    rig.restart();
    let again = rig.resume(5).welcome;
    assert_eq!((again.session_known, again.epoch, again.volume), (true, 2, first.volume));
}

#[test]
fn a_client_of_another_version_learns_both_sides_versions() {
    let rig = Rig::new();
    let later = Hello { version_oldest: 900, version_newest: 999, ..hello(1, false) };
    let refusal = Wire::hello(&rig.socket(), &later).err().unwrap();
    assert!(refusal.reason.contains("900 to 999") && refusal.reason.contains("2 to 2"), "{}", refusal.reason);
    assert!(!refusal.retry);
    let newer = Hello { version_oldest: 1, version_newest: 70_000, ..hello(1, false) };
    assert_eq!(Wire::hello(&rig.socket(), &newer).unwrap().1.version, u32::from(version::NEWEST));
}

#[test]
fn a_client_of_another_volume_or_without_a_session_is_refused() {
    let rig = Rig::new();
    let other = Hello { volume: vec![9; 16], ..hello(1, false) };
    assert!(Wire::hello(&rig.socket(), &other).err().unwrap().reason.contains("another volume"));
    let nobody = Hello { session: vec![1; 3], ..hello(1, false) };
    assert!(Wire::hello(&rig.socket(), &nobody).err().unwrap().reason.contains("no session"));
}

#[test]
fn foreign_bytes_are_hung_up_on_after_four_of_them() {
    let rig = Rig::new();
    for bytes in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"SSH-", &[0; 64], &[255; 4]] {
        let mut wire = Wire::open(&rig.socket());
        wire.0.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // An end or a reset, but no word of ours.
        drop(wire.0.read_to_end(&mut answer));
        assert_eq!(answer, b"", "{bytes:?}");
    }
    assert!(rig.client(1).is_open());
}

#[test]
fn a_hello_that_is_too_long_damaged_or_something_else_is_told_so() {
    let rig = Rig::new();
    let refused = |frame: &Frame| {
        let mut wire = Wire::open(&rig.socket());
        wire.send(frame);
        let refusal = wire.welcome().unwrap_err();
        assert!(wire.receive().is_none(), "closed after a refusal");
        refusal.reason
    };
    let frame = |kind, body: Vec<u8>| Frame::new(kind, 0, SessionId(1), 0, body, bytes::Bytes::new());
    let mut long = frame(FrameKind::Hello, Vec::new());
    long.header.body_bytes = 65_537;
    assert!(refused(&long).contains("65537 bytes where 65536 are allowed"));
    long.header.body_bytes = u32::MAX;
    assert!(refused(&long).contains("4294967295 bytes where"));
    let mut damaged = frame(FrameKind::Hello, cold::encode(&hello(1, false)));
    damaged.body[3] ^= 1;
    assert!(refused(&damaged).contains("damaged on the way"));
    assert!(refused(&frame(FrameKind::Hello, vec![255; 40])).contains("cannot be read"));
    assert!(refused(&frame(FrameKind::Batch, Vec::new())).contains("out of turn"));
    assert!(refused(&frame(FrameKind::Welcome, Vec::new())).contains("out of turn"));
    assert_eq!(rig.status()["refused"], 6);
}

#[test]
fn a_peer_that_is_silent_or_drips_is_cut_when_the_time_for_the_whole_handshake_is_over() {
    let rig = Rig::with(|options| options.handshake = Duration::from_millis(200));
    let mut silent = Wire::open(&rig.socket());
    let mut drip = Wire::open(&rig.socket());
    let hello = bytes_of(&Frame::new(
        FrameKind::Hello,
        0,
        SessionId(1),
        0,
        cold::encode(&hello(1, false)),
        bytes::Bytes::new(),
    ));
    let until = Instant::now() + PATIENCE;
    for byte in hello.iter().cycle() {
        assert!(Instant::now() < until, "still taken");
        if drip.0.write_all(&[*byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(silent.welcome().unwrap_err().reason.contains("too long"));
    assert!(rig.client(1).is_open());
}

#[test]
fn no_more_strangers_are_let_in_than_may_be_and_clients_that_are_known_do_not_count() {
    let rig = Rig::with(|options| options.handshake = PATIENCE);
    let mut known: Vec<Client> = (1..=3).map(|session| rig.client(session)).collect();
    let strangers: Vec<Wire> = (0..64).map(|_| Wire::open(&rig.socket())).collect();
    rig.wait_for("all strangers are counted", |status| status["connections"] == 67);
    let refusal = Wire::open(&rig.socket()).welcome().unwrap_err();
    assert!(refusal.retry && refusal.reason.contains("in their handshake"), "{}", refusal.reason);
    assert!(known.iter_mut().all(Client::is_open));
    drop(strangers);
    rig.wait_for("the strangers are gone", |status| status["connections"] == 3);
    assert!(rig.client(4).is_open());
}

#[test]
fn no_more_connections_are_let_in_than_the_option_says() {
    let rig = Rig::with(|options| options.connections_max = 2);
    let (first, _second) = (rig.client(1), rig.client(2));
    let refusal = Wire::open(&rig.socket()).welcome().unwrap_err();
    assert!(refusal.retry && refusal.reason.contains("as many connections"), "{}", refusal.reason);
    drop(first);
    rig.wait_for("one is gone", |status| status["connections"] == 1);
    assert!(rig.client(3).is_open());
}

fn with_secret(rig: &Rig, secret: &Secret, nonce: Vec<u8>) -> Result<Client, String> {
    let mut wire = Wire::open(&rig.socket());
    let said = Hello { nonce, ..hello(1, false) };
    wire.say(FrameKind::Hello, cold::encode(&said));
    let frame = wire.receive().unwrap();
    assert_eq!(frame.header.kind, FrameKind::Challenge);
    let challenge: Challenge = cold::decode(&frame.body).unwrap();
    assert_eq!(challenge.nonce.len(), 32);
    let right = Secret::new(SECRET).unwrap();
    assert!(right.proves(Side::Server, &said.nonce, &challenge.nonce, &challenge.proof));
    assert!(!right.proves(Side::Client, &said.nonce, &challenge.nonce, &challenge.proof));
    let proof = secret.prove(Side::Client, &said.nonce, &challenge.nonce);
    wire.say(FrameKind::Proof, cold::encode(&Proof { proof }));
    let welcome = wire.welcome().map_err(|refusal| refusal.reason)?;
    Ok(Client { wire, welcome, session: SessionId(1), sequence: 0 })
}

const SECRET: &[u8] = b"a secret of enough bytes";

#[test]
fn a_secret_is_proved_by_both_sides_and_a_wrong_proof_learns_nothing_but_that() {
    let right = Secret::new(SECRET).unwrap();
    let rig = Rig::with(|options| options.secret = Some(right.clone()));
    assert!(with_secret(&rig, &right, vec![1; 32]).unwrap().is_open());
    let wrong = Secret::new(b"another secret of enough bytes").unwrap();
    let one = with_secret(&rig, &wrong, vec![1; 32]).err().unwrap();
    let two = with_secret(&rig, &right, vec![1; 8]).err().unwrap();
    assert_eq!(one, two);
    // Nothing is worked on before the proof.
    let mut wire = Wire::open(&rig.socket());
    wire.say(FrameKind::Hello, cold::encode(&hello(3, false)));
    assert_eq!(wire.receive().unwrap().header.kind, FrameKind::Challenge);
    let mut body = Vec::new();
    crate::wire::query::encode(&mut body, &Query::Status);
    wire.send(&Frame::new(FrameKind::Call, 1, SessionId(3), 1, body, bytes::Bytes::new()));
    assert!(wire.welcome().unwrap_err().reason.contains("out of turn"));
    assert_eq!(rig.status()["session_count"], 1);
}

#[test]
fn an_observer_sees_the_status_and_can_do_nothing_else() {
    let rig = Rig::new();
    let _client = rig.client(5);
    let watching = Hello { observer: true, session: Vec::new(), ..hello(0, false) };
    let (wire, welcome) = Wire::hello(&rig.socket(), &watching).unwrap();
    let mut observer = Client { wire, welcome, session: SessionId(0), sequence: 0 };
    let Ok(super::Said::Bytes(json)) = observer.call(&Query::Status) else { panic!("no status") };
    let status: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(
        (&status["session_count"], &status["sessions"][0]["mount_point"]),
        (&1.into(), &"/mnt".into())
    );
    assert_eq!(observer.call(&Query::StatFs), Err(Errno::EPERM));
    assert_eq!(observer.call(&Query::Ping), Ok(super::Said::Empty));
}

use super::client::{ControlFault, ask};
use super::protocol::{ASK_BYTES_MAX, Ask, Reply};
use super::server::{CLIENTS_MAX, ControlServer, Subject};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(20);

/// Status answers at once, flush waits until the test lets it go on.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Subject for Gate {
    fn status(&self) -> Value {
        json!({ "transport": "blocking" })
    }
    fn flush(&self) -> Result<(), String> {
        let mut open = self.open.lock().unwrap();
        while !*open {
            open = self.changed.wait(open).unwrap();
        }
        Ok(())
    }
    fn prepare_unmount(&self) -> Result<(), String> {
        Err("the disk of the store is full".into())
    }
    fn errors(&self, clear: bool) -> Value {
        json!({ "cleared": clear })
    }
}

fn start(folder: &Path) -> (Arc<Gate>, ControlServer, std::path::PathBuf) {
    let gate = Arc::new(Gate::default());
    let path = folder.join("mount-7.sock");
    let server = ControlServer::start(&path, Arc::<Gate>::clone(&gate)).unwrap();
    (gate, server, path)
}

fn me() -> nix::unistd::Uid {
    nix::unistd::geteuid()
}

#[test]
fn a_request_is_answered_and_a_refusal_keeps_its_words() {
    let folder = tempfile::tempdir().unwrap();
    let (_gate, _server, path) = start(folder.path());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let status = ask(&path, me(), Ask::Status, LONG).unwrap();
    assert_eq!(status["transport"], "blocking");
    for clear in [false, true] {
        let errors = ask(&path, me(), Ask::Errors { clear }, LONG).unwrap();
        assert_eq!(errors["cleared"], clear);
    }
    let ping = ask(&path, me(), Ask::Ping, LONG).unwrap();
    assert_eq!(ping["pid"], std::process::id());
    assert_eq!(super::client::daemon(&path, me()).unwrap(), std::process::id());
    match ask(&path, me(), Ask::PrepareUnmount, LONG) {
        Err(ControlFault::Refused(why)) => assert_eq!(why, "the disk of the store is full"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn status_is_answered_while_a_flush_hangs_and_the_flush_times_out_at_the_client() {
    let folder = tempfile::tempdir().unwrap();
    let (gate, _server, path) = start(folder.path());
    let timed_out = ask(&path, me(), Ask::Flush, Duration::from_millis(50));
    assert!(matches!(timed_out, Err(ControlFault::Timeout(_))), "{timed_out:?}");
    assert_eq!(ask(&path, me(), Ask::Status, LONG).unwrap()["transport"], "blocking");
    *gate.open.lock().unwrap() = true;
    gate.changed.notify_all();
    ask(&path, me(), Ask::Flush, LONG).unwrap();
}

#[test]
fn clients_over_the_bound_are_refused_and_places_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let (_gate, _server, path) = start(folder.path());
    // Each holds a place without ever sending its line.
    let idle: Vec<_> = (0..CLIENTS_MAX).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let refused = loop {
        // The accepting thread takes the idle ones in order, so the next one is over the bound.
        match ask(&path, me(), Ask::Ping, LONG) {
            Err(ControlFault::Refused(why)) => break why,
            Err(ControlFault::Garbled(_) | ControlFault::Unreachable { .. }) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(refused.contains("try again"), "{refused}");
    drop(idle);
    let deadline = std::time::Instant::now() + LONG;
    while ask(&path, me(), Ask::Ping, LONG).is_err() {
        assert!(std::time::Instant::now() < deadline, "no place came back");
    }
}

#[test]
fn garbage_and_overlong_lines_get_an_error_and_do_not_hurt() {
    let folder = tempfile::tempdir().unwrap();
    let (_gate, _server, path) = start(folder.path());
    for bytes in [b"hello\n".to_vec(), vec![b'x'; ASK_BYTES_MAX + 1], b"{\"ask\":\"reboot\"}\n".to_vec()] {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut answer = Vec::new();
        // The server may close with bytes of ours unread: what it said before that counts.
        let _ended = stream.read_to_end(&mut answer);
        let end = answer.iter().position(|&b| b == b'\n').unwrap();
        let reply: Reply = serde_json::from_slice(&answer[..end]).unwrap();
        assert!(matches!(reply, Reply::Error(_)), "{reply:?}");
    }
    ask(&path, me(), Ask::Ping, LONG).unwrap();
}

#[test]
fn a_dead_socket_is_told_from_a_silent_one_and_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mount-7.sock");
    drop(UnixListener::bind(&path).unwrap());
    let dead = ask(&path, me(), Ask::Ping, LONG);
    assert!(matches!(dead, Err(ControlFault::Unreachable { .. })), "{dead:?}");
    let (_gate, server, path) = start(folder.path());
    ask(&path, me(), Ask::Ping, LONG).unwrap();
    drop(server);
    assert!(!path.exists());

    let _silent = UnixListener::bind(&path).unwrap();
    let silent = ask(&path, me(), Ask::Ping, Duration::from_millis(50));
    assert!(matches!(silent, Err(ControlFault::Timeout(_))), "{silent:?}");
}

#[test]
fn a_server_whose_name_was_taken_over_ends_and_leaves_the_new_one_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (_gate, first, path) = start(folder.path());
    let (_gate, _second, _) = start(folder.path());
    drop(first);
    ask(&path, me(), Ask::Ping, LONG).unwrap();
}

#[test]
fn the_folder_is_refused_when_others_can_write_to_it() {
    let uid = me();
    let made = super::place::make_folder(uid).unwrap();
    let meta = std::fs::metadata(&made).unwrap();
    assert_eq!(meta.permissions().mode() & 0o022, 0);
    assert!(super::place::find(uid, u64::MAX).is_none());
}

//! `ringfs serve`, and mounts of its address.

use crate::fixture::{Place, RINGFS, Started, can_mount, eventually, is_mounted, ringfs};
use crate::host;
use nix::sys::signal::Signal;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Starts a server in the foreground and waits until it says that it listens.
fn serve(place: &Place, more: &[&str]) -> (Started, String) {
    let address = format!("unix:{}", place.at("sock"));
    let mut command = Command::new(RINGFS);
    command.args(["serve", &place.at("store"), "--foreground", "--listen", &address]).args(more);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut started = Started(child);
    let line = first_line(&mut started.0);
    assert_eq!(line, format!("listening at {address}"));
    (started, address)
}

fn first_line(child: &mut Child) -> String {
    let mut out = child.stdout.take().unwrap();
    let mut line = Vec::new();
    let mut byte = [0; 1];
    while out.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    child.stdout = Some(out);
    String::from_utf8(line).unwrap()
}

#[test]
fn two_mounts_of_one_server_see_each_other_at_once() {
    if !can_mount() {
        return;
    }
    let _host = host::as_it_is();
    let place = Place::new();
    let (mut server, address) = serve(&place, &[]);
    let other = place.at("other");
    fs::create_dir(&other).unwrap();
    ringfs(&["mount", &address, &place.mnt()]).ok();
    ringfs(&["mount", &address, &other]).ok();
    fs::write(format!("{}/f", place.mnt()), b"one").unwrap();
    assert_eq!(fs::read(format!("{other}/f")).unwrap(), b"one");
    fs::rename(format!("{other}/f"), format!("{other}/g")).unwrap();
    assert!(!Path::new(&format!("{}/f", place.mnt())).exists());

    let status = ringfs(&["status", "--json", &address]).ok().json();
    assert!(status["server"]["session_count"].as_u64() >= Some(2), "{status}");
    assert!(ringfs(&["status", &address]).ok().out.contains("session"));
    let link = &ringfs(&["status", "--json", &other]).ok().json()["link"];
    assert_eq!((link["connected"].as_bool(), link["target"].as_str()), (Some(true), Some(address.as_str())));

    ringfs(&["umount", &other]).ok();
    ringfs(&["umount", &place.mnt()]).ok();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.ended(), 0);
    ringfs(&["fsck", &place.at("store")]).ok();
}

#[test]
fn a_server_that_comes_back_is_waited_for_and_nothing_fails_meanwhile() {
    if !can_mount() {
        return;
    }
    let _host = host::as_it_is();
    let place = Place::new();
    let (server, address) = serve(&place, &[]);
    ringfs(&["mount", &address, &place.mnt()]).ok();
    fs::write(format!("{}/before", place.mnt()), b"1").unwrap();
    drop(server);
    eventually("the mount notices", || place.status()["link"]["connected"] == false);
    ringfs(&["flush", "--timeout", "1", &place.mnt()]).fails(1, &["not flushed"]);
    let mnt = place.mnt();
    let waiting = std::thread::spawn(move || fs::write(format!("{mnt}/during"), b"2"));
    let (_server, _) = serve(&place, &[]);
    waiting.join().unwrap().unwrap();
    assert_eq!(fs::read(format!("{}/before", place.mnt())).unwrap(), b"1");
    assert_eq!(fs::read(format!("{}/during", place.mnt())).unwrap(), b"2");
    ringfs(&["umount", &place.mnt()]).ok();
}

#[test]
fn an_unmount_without_the_server_says_so_and_force_ends_it() {
    if !can_mount() {
        return;
    }
    let _host = host::as_it_is();
    let place = Place::new();
    let (server, address) = serve(&place, &[]);
    ringfs(&["mount", &address, &place.mnt()]).ok();
    drop(server);
    eventually("the mount notices", || place.status()["link"]["connected"] == false);
    ringfs(&["umount", "--timeout", "12", &place.mnt()]).fails(1, &["stays mounted", "--force"]);
    assert!(place.is_mounted());
    ringfs(&["umount", "--force", "--timeout", "30", &place.mnt()]).ok();
    assert!(!place.is_mounted());
}

#[test]
fn a_daemon_server_returns_when_it_listens_and_owns_its_store() {
    let place = Place::new();
    let address = format!("unix:{}", place.at("sock"));
    let (store, log) = (place.at("store"), place.at("log"));
    let served = ringfs(&["serve", &store, "--listen", &address, "--log", &log]).ok();
    assert_eq!(served.out, format!("listening at {address}\n"));
    let status = ringfs(&["status", "--json", &address]).ok().json();
    assert_eq!(status["address"], address);
    ringfs(&["serve", &store, "--foreground", "--listen", &format!("unix:{}", place.at("s2"))])
        .fails(3, &["in use", "stop that one"]);
    ringfs(&["fsck", &store]).fails(3, &["in use"]);
    let pid = nix::unistd::Pid::from_raw(pid_in(&place.at("store/lock")));
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    eventually("the server ends", || ringfs(&["fsck", &store]).code == 0);
    ringfs(&["status", &address]).fails(1, &["no ringfs server", "ringfs serve"]);
}

fn pid_in(path: &str) -> i32 {
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

#[test]
fn an_absent_server_refuses_the_mount_at_once() {
    let place = Place::new();
    let nowhere = format!("unix:{}", place.at("nowhere"));
    ringfs(&["mount", &nowhere, &place.mnt()]).fails(1, &["no ringfs server", "ringfs serve"]);
    // Bound and closed again: nobody listens at this port.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    ringfs(&["mount", &format!("tcp://127.0.0.1:{port}"), &place.mnt()]).fails(1, &["no ringfs server"]);
    assert!(!is_mounted(Path::new(&place.mnt())));
}

#[test]
fn a_server_of_another_protocol_is_told_from_one_of_another_version() {
    use ringfs::base::SessionId;
    use ringfs::wire::hello::{self, Welcome};
    use ringfs::wire::{Frame, FrameKind};
    let place = Place::new();
    let listener = UnixListener::bind(place.at("fake")).unwrap();
    let address = format!("unix:{}", place.at("fake"));
    let welcome = Welcome { version: 999, volume: vec![1; 16], ..Welcome::default() };
    let body = hello::encode(&welcome);
    let frame = Frame::new(FrameKind::Welcome, 0, SessionId(0), 0, body, bytes::Bytes::new());
    let mut future = frame.header.encode().to_vec();
    future.extend_from_slice(&frame.body);
    let answers: [(&[u8], &str); 2] = [
        (b"HTTP/1.1 400 Bad Request, this is not ringfs, padding padding padding padding", "protocol"),
        (&future, "version 999"),
    ];
    for (answer, word) in answers {
        let fake = std::thread::scope(|scope| {
            let served = scope.spawn(|| {
                let (mut client, _) = listener.accept().unwrap();
                let mut hello = [0; 64];
                let _some = client.read(&mut hello).unwrap();
                client.write_all(answer).unwrap();
                client
            });
            let ran = ringfs(&["mount", &address, &place.mnt()]);
            drop(served.join().unwrap());
            ran
        });
        fake.fails(1, &[word]);
    }
}

#[test]
fn a_listener_others_can_reach_needs_a_secret_that_both_sides_hold() {
    if !can_mount() {
        return;
    }
    let _host = host::as_it_is();
    let place = Place::new();
    let store = place.at("store");
    ringfs(&["serve", &store, "-f", "--listen", "tcp://0.0.0.0:0"]).fails(1, &["--secret-file"]);
    let secret = |name: &str, text: &str| {
        let path = place.at(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let right = secret("right", "0123456789abcdef0123456789abcdef\n");
    let wrong = secret("wrong", "fedcba9876543210fedcba9876543210\n");
    let mut command = Command::new(RINGFS);
    command.args(["serve", &store, "-f", "--listen", "tcp://127.0.0.1:0", "--secret-file", &right]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut server = Started(child);
    let line = first_line(&mut server.0);
    let address = line.strip_prefix("listening at ").unwrap();
    ringfs(&["mount", address, &place.mnt()]).fails(1, &["secret"]);
    ringfs(&["mount", address, &place.mnt(), "--secret-file", &wrong]).fails(1, &["secret"]);
    ringfs(&["status", address, "--secret-file", &wrong]).fails(1, &["secret"]);
    ringfs(&["mount", address, &place.mnt(), "-o", &format!("secret={right}")]).ok();
    fs::write(format!("{}/f", place.mnt()), b"x").unwrap();
    ringfs(&["status", address, "--secret-file", &right]).ok();
    ringfs(&["umount", &place.mnt()]).ok();
}

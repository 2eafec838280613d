//! The fuzz targets without a fuzzer: every file of fuzz/corpus/ and some thousand mutations of each, the same in every run.
//!
//! Comes in: bytes, to each target of fuzz/bodies/. Goes out: a failure that prints the bytes which broke it; put them into a
//! file of the target's corpus, and they stay a test. The golden inputs there are what today's encoders write (`seeds`): a
//! format that changes changes them, which this program then refuses until they are written anew.
//! Absent on purpose: coverage. That is what `make fuzz` is for.

#[path = "../../fuzz/bodies/chunk_record.rs"]
#[allow(unreachable_pub, reason = "the fuzz package includes the same file")]
mod chunk_record;
#[path = "../../fuzz/bodies/control_request.rs"]
#[allow(unreachable_pub, reason = "the fuzz package includes the same file")]
mod control_request;
#[path = "../../fuzz/bodies/fuse_request.rs"]
#[allow(unreachable_pub, reason = "the fuzz package includes the same file")]
mod fuse_request;
#[path = "../../fuzz/bodies/meta_values.rs"]
#[allow(unreachable_pub, reason = "the fuzz package includes the same file")]
mod meta_values;
#[path = "../../fuzz/bodies/wire_frame.rs"]
#[allow(unreachable_pub, reason = "the fuzz package includes the same file")]
mod wire_frame;
#[path = "../../fuzz/bodies/wire_hello.rs"]
#[allow(unreachable_pub, reason = "the fuzz package includes the same file")]
mod wire_hello;

mod mutate;
mod seeds;

use mutate::Mutator;
use std::collections::BTreeMap;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// Mutations of each file, where one costs microseconds.
const MUTATIONS: u64 = 2000;

/// Where one costs several system calls.
const MUTATIONS_ON_DISK: u64 = 100;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn files(target: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(corpus(target)).expect("the corpus of the target");
    entries
        .map(|entry| {
            let entry = entry.expect("an entry");
            (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("a file"))
        })
        .collect()
}

/// Runs a target over its corpus and its mutations; `None`, or which input broke it.
fn broken(run: fn(&[u8]), files: &BTreeMap<String, Vec<u8>>, mutations: u64) -> Option<String> {
    let all: Vec<&[u8]> = files.values().map(Vec::as_slice).collect();
    for (name, bytes) in files {
        for number in 0..=mutations {
            // The first is the file itself.
            let input =
                if number == 0 { bytes.clone() } else { Mutator::new(name, number).mutate(bytes, &all) };
            if catch_unwind(|| run(&input)).is_err() {
                return Some(format!("mutation {number} of {name}: {}", input.escape_ascii()));
            }
        }
    }
    None
}

fn check(target: &str, run: fn(&[u8]), mutations: u64) {
    let files = files(target);
    assert!(!files.is_empty(), "{target} has no corpus");
    if let Some(input) = broken(run, &files, mutations) {
        panic!("{target} breaks on {input}");
    }
}

#[test]
fn no_request_of_the_kernel_breaks_its_decoder() {
    check("fuse_request", fuse_request::run, MUTATIONS);
}

#[test]
fn no_frame_breaks_its_decoders_and_what_they_accept_survives() {
    check("wire_frame", wire_frame::run, MUTATIONS);
}

#[test]
fn no_handshake_message_breaks_its_decoder() {
    check("wire_hello", wire_hello::run, MUTATIONS);
}

#[test]
fn no_line_of_the_control_socket_breaks_its_decoder() {
    check("control_request", control_request::run, MUTATIONS);
}

#[test]
fn no_stored_key_or_value_breaks_its_reader() {
    check("meta_values", meta_values::run, MUTATIONS);
}

#[test]
fn no_segment_breaks_its_reader() {
    check("chunk_record", chunk_record::run, MUTATIONS_ON_DISK);
}

#[test]
fn the_golden_inputs_are_what_todays_encoders_write() {
    let write = std::env::var_os("RINGFS_WRITE_CORPUS").is_some();
    let mut bytes_total = 0;
    for (target, name, bytes) in seeds::all() {
        let path = corpus(target).join(&name);
        bytes_total += bytes.len();
        if write {
            fs::create_dir_all(corpus(target)).expect("a folder");
            fs::write(&path, &bytes).expect("a file");
        }
        let found = fs::read(&path).unwrap_or_default();
        assert!(
            found == bytes,
            "fuzz/corpus/{target}/{name} is not what the encoders write: if the format is meant to differ, run this test \
             with RINGFS_WRITE_CORPUS=1"
        );
    }
    assert!(bytes_total < 200 << 10, "{bytes_total} bytes of corpus");
}

#[test]
fn a_planted_fault_is_found() {
    fn fragile(data: &[u8]) {
        assert!(data.get(2).is_none_or(|&byte| byte != 0xff), "planted");
    }
    let files = BTreeMap::from([("a".to_owned(), vec![0; 8])]);
    assert!(broken(fragile, &files, MUTATIONS).is_some());
    assert!(broken(|_| {}, &files, MUTATIONS).is_none());
}

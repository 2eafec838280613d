use super::{LookupName, Request, SetTime};
use crate::base::{Errno, Ino, Time};
use crate::kernel::abi::{
    InHeader, LkIn, Opcode, Rename2In, SetattrIn, SetxattrIn, WriteIn,
    flags::{FATTR_ATIME, FATTR_ATIME_NOW, FATTR_MTIME, FATTR_SIZE},
};
use proptest::prelude::*;
use zerocopy::IntoBytes;

fn parse<'a>(op: Opcode, args: &'a [u8], payload: &'a [u8]) -> Result<Request<'a>, Errno> {
    Request::parse(&InHeader { opcode: op as u32, ..InHeader::default() }, args, payload)
}

#[test]
fn both_names_of_a_rename_are_read() {
    let args = Rename2In { newdir: 9, flags: 1, padding: 0 };
    match parse(Opcode::Rename2, args.as_bytes(), b"old\0new\0") {
        Ok(Request::Rename { name, new_parent: Ino(9), new_name, flags: 1 }) => {
            assert_eq!((name.bytes(), new_name.bytes()), (&b"old"[..], &b"new"[..]));
        }
        other => panic!("{other:?}"),
    }
    for bad in [&b"old\0new"[..], b"old\0", b"old", b"", b"old\0\0", b"o/d\0new\0"] {
        assert_eq!(parse(Opcode::Rename2, args.as_bytes(), bad).err(), Some(Errno::EINVAL), "{bad:?}");
    }
}

#[test]
fn dots_may_be_looked_up_but_not_removed() {
    let name = |bytes| match parse(Opcode::Lookup, &[], bytes) {
        Ok(Request::Lookup { name }) => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(name(b".\0"), LookupName::Itself);
    assert_eq!(name(b"..\0"), LookupName::Parent);
    assert_eq!(parse(Opcode::Rmdir, &[], b"..\0").err(), Some(Errno::EINVAL));
    let long = [vec![b'x'; 256], vec![0]].concat();
    assert_eq!(parse(Opcode::Lookup, &[], &long).err(), Some(Errno::ENAMETOOLONG));
}

#[test]
fn a_size_that_the_payload_does_not_hold_is_refused() {
    let args = WriteIn { size: 5, ..WriteIn::default() };
    assert!(parse(Opcode::Write, args.as_bytes(), b"1234").is_err());
    match parse(Opcode::Write, args.as_bytes(), b"12345rest") {
        Ok(Request::Write { data, .. }) => assert_eq!(data, b"12345"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn setxattr_is_read_in_both_its_lengths() {
    let args = SetxattrIn { size: 2, flags: 1, setxattr_flags: 1, padding: 0 };
    for (bytes, extended) in [(&args.as_bytes()[..8], 0), (args.as_bytes(), 1)] {
        match parse(Opcode::Setxattr, bytes, b"user.a\0vv") {
            Ok(Request::Setxattr { args, name, value }) => {
                assert_eq!(
                    (args.setxattr_flags, name.bytes(), value),
                    (extended, &b"user.a"[..], &b"vv"[..])
                );
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(parse(Opcode::Setxattr, &args.as_bytes()[..4], b"user.a\0vv").is_err());
}

#[test]
fn only_what_setattr_marks_valid_is_set() {
    let raw = SetattrIn {
        valid: FATTR_SIZE | FATTR_ATIME | FATTR_ATIME_NOW | FATTR_MTIME,
        size: 3,
        mtime: (-1_i64).cast_unsigned(),
        mode: 0o777,
        ..SetattrIn::default()
    };
    match parse(Opcode::Setattr, raw.as_bytes(), &[]) {
        Ok(Request::Setattr(set)) => {
            assert_eq!((set.mode, set.uid, set.size, set.atime), (None, None, Some(3), Some(SetTime::Now)));
            assert_eq!(set.mtime, Some(SetTime::At(Time { secs: -1, nanos: 0 })));
        }
        other => panic!("{other:?}"),
    }
    let ragged = SetattrIn { mtimensec: 1_000_000_000, ..raw };
    assert_eq!(parse(Opcode::Setattr, ragged.as_bytes(), &[]).err(), Some(Errno::EINVAL));
    let huge = SetattrIn { size: 1 << 63, ..raw };
    assert_eq!(parse(Opcode::Setattr, huge.as_bytes(), &[]).err(), Some(Errno::EFBIG));
}

#[test]
fn a_lock_of_no_kind_or_backward_range_is_refused() {
    let mut raw = LkIn::default();
    raw.lk.kind = 3;
    assert!(parse(Opcode::Setlk, raw.as_bytes(), &[]).is_err());
    raw.lk.kind = 1;
    raw.lk.start = 1;
    assert!(parse(Opcode::Setlk, raw.as_bytes(), &[]).is_err());
    raw.lk.end = 1;
    assert!(parse(Opcode::Setlk, raw.as_bytes(), &[]).is_ok());
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(
        opcode in 0_u32..70,
        extlen in prop_oneof![Just(0_u16), any::<u16>()],
        args in proptest::collection::vec(any::<u8>(), 0..128),
        payload in proptest::collection::vec(prop_oneof![Just(0_u8), Just(b'a'), any::<u8>()], 0..300),
    ) {
        let header = InHeader { opcode, total_extlen: extlen, ..InHeader::default() };
        if let Ok(Request::Write { args, data }) = Request::parse(&header, &args, &payload) {
            prop_assert_eq!(args.size as usize, data.len());
        }
        if let Ok((_, extensions)) = super::extension::split(&header, &payload) {
            let _ = super::extension::groups(extensions).map(Iterator::count);
            let _ = super::extension::security_context(extensions);
        }
    }
}

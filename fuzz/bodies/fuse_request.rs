//! Requests of the kernel: `u8 opcode, u8 extensions in units of 8, u8 record bytes`, the record, the payload.

use ringfs::kernel::abi::InHeader;
use ringfs::kernel::decode::{Request, extension};

/// One input.
pub fn run(data: &[u8]) {
    let Some((&[opcode, extensions, record], rest)) = data.split_first_chunk::<3>() else { return };
    let header = InHeader {
        opcode: opcode.into(),
        total_extlen: extensions.into(),
        unique: 1,
        nodeid: 1,
        ..InHeader::default()
    };
    let (args, payload) = rest.split_at(usize::from(record).min(rest.len()));
    match Request::parse(&header, args, payload) {
        Ok(Request::Write { args, data }) => assert_eq!(data.len(), args.size as usize),
        Ok(Request::Setxattr { args, value, .. }) => assert_eq!(value.len(), args.size as usize),
        Ok(Request::Ioctl { args, data }) => assert_eq!(data.len(), args.in_size as usize),
        Ok(Request::Setlk(lock) | Request::Setlkw(lock) | Request::Getlk(lock)) => {
            assert!(lock.start <= lock.end);
        }
        Ok(_) => {}
        Err(errno) => assert!((1..512).contains(&errno.raw())),
    }
    if let Ok((_, extensions)) = extension::split(&header, payload) {
        if let Ok(groups) = extension::groups(extensions) {
            assert!(groups.count() <= extensions.len() / 4);
        }
        if let Ok(Some((name, value))) = extension::security_context(extensions) {
            assert!(name.len() + value.len() < extensions.len());
        }
    }
}

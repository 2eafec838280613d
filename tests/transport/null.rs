//! The source that remembers nothing: programs that measure must find what they have just made, and each operation costs
//! the messages it must.

use crate::mounted::{Mounted, kinds};
use ringfs::kernel::abi::{InitFlags, Opcode};
use ringfs::kernel::null::{Null, NullOptions};
use ringfs::kernel::transport::{Choice, End, Options, Wanted};
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::sync::Arc;

#[test]
fn what_was_made_on_null_can_be_used_renamed_and_removed() {
    const FILES: u64 = 200;
    let all = NullOptions { flags: Wanted::default().flags.with(InitFlags::POSIX_ACL), open_flags: 0 };
    for kind in kinds() {
        for options in [NullOptions::BARE, all] {
            println!("{kind}, {options:?}");
            let transport = Options { choice: Choice::Only(kind), ..Options::default() };
            let mounted = Mounted::with(Arc::new(Null::new(options)), &transport);
            let dir = mounted.path("dir");
            fs::create_dir(&dir).unwrap();
            for n in 0..FILES {
                let (file, renamed) = (dir.join(format!("f{n}")), dir.join(format!("g{n}")));
                fs::create_dir(dir.join(format!("d{n}"))).unwrap();
                fs::write(&file, [7; 4096]).unwrap();
                assert!(fs::symlink_metadata(&file).unwrap().is_file());
                fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(&[7; 4096]).unwrap();
                fs::hard_link(&file, dir.join(format!("h{n}"))).unwrap();
                symlink("null", dir.join(format!("s{n}"))).unwrap();
                fs::rename(&file, &renamed).unwrap();
                assert!(fs::metadata(&file).is_err());
            }
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
            for n in 0..FILES {
                for letter in ["g", "h", "s"] {
                    fs::remove_file(dir.join(format!("{letter}{n}"))).unwrap();
                }
                fs::remove_dir(dir.join(format!("d{n}"))).unwrap();
            }
            let counters = mounted.running().counters();
            let of = |op| counters.of(op);
            assert_eq!((of(Opcode::Mkdir), of(Opcode::Rmdir)), (FILES + 1, FILES));
            assert_eq!((of(Opcode::Create), of(Opcode::Open)), (FILES, FILES));
            assert_eq!((of(Opcode::Write), of(Opcode::Flush)), (2 * FILES, 2 * FILES));
            assert_eq!(of(Opcode::Unlink), 3 * FILES);
            assert_eq!(of(Opcode::Rename) + of(Opcode::Rename2), FILES);
            // One for each name before it is made, one for each target of a rename and one for a name that is gone: none for
            // a name that was made here.
            assert!(of(Opcode::Lookup) <= 6 * FILES + 10, "{} lookups", of(Opcode::Lookup));
            assert_eq!(mounted.unmount(), End::Unmounted);
        }
    }
}

//! Listings: packs names into the reply of READDIR and READDIRPLUS.

use crate::base::{Ino, Kind, Name};
use crate::kernel::abi::{Dirent, Direntplus, EntryOut, RECORD_ALIGN};
use zerocopy::IntoBytes;

/// Writes entries one after the other into a reply, each aligned, until one does not fit.
pub struct DirWriter<'a> {
    buffer: &'a mut [u8],
    used: usize,
}

impl<'a> DirWriter<'a> {
    /// Writes into `buffer`, which should be as long as the request asked for.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, used: 0 }
    }

    /// Adds a name. `next` is the offset at which the listing goes on after it. False: it did not fit, and
    /// nothing was written.
    #[must_use]
    pub fn add(&mut self, ino: Ino, next: u64, kind: Kind, name: Name<'_>) -> bool {
        self.add_raw(&dirent(ino, next, kind, name.bytes()), &[], name.bytes())
    }

    /// Adds `.` or `..`, which are no [`Name`]s.
    #[must_use]
    pub fn add_dot(&mut self, ino: Ino, next: u64, parent: bool) -> bool {
        let name: &[u8] = if parent { b".." } else { b"." };
        self.add_raw(&dirent(ino, next, Kind::Directory, name), &[], name)
    }

    /// Adds a name with its attributes; `entry` counts as a LOOKUP unless its `nodeid` is 0.
    #[must_use]
    pub fn add_plus(&mut self, entry: &EntryOut, ino: Ino, next: u64, kind: Kind, name: Name<'_>) -> bool {
        self.add_raw(&dirent(ino, next, kind, name.bytes()), entry.as_bytes(), name.bytes())
    }

    /// Adds `.` or `..` to a READDIRPLUS reply. The kernel wants no entry for them.
    #[must_use]
    pub fn add_plus_dot(&mut self, ino: Ino, next: u64, parent: bool) -> bool {
        let name: &[u8] = if parent { b".." } else { b"." };
        self.add_raw(&dirent(ino, next, Kind::Directory, name), EntryOut::default().as_bytes(), name)
    }

    /// Whether a name of `name_bytes` would still fit.
    #[must_use]
    pub fn fits(&self, name_bytes: usize, plus: bool) -> bool {
        let head = if plus { size_of::<Direntplus>() } else { size_of::<Dirent>() };
        (head + name_bytes).next_multiple_of(RECORD_ALIGN) <= self.buffer.len() - self.used
    }

    /// Bytes written: the length of the reply.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used
    }

    fn add_raw(&mut self, dirent: &Dirent, before: &[u8], name: &[u8]) -> bool {
        let head = before.len() + size_of::<Dirent>();
        let bytes = head + name.len();
        let padded = bytes.next_multiple_of(RECORD_ALIGN);
        let Some(room) = self.buffer.get_mut(self.used..self.used + padded) else { return false };
        room[..before.len()].copy_from_slice(before);
        room[before.len()..head].copy_from_slice(dirent.as_bytes());
        room[head..bytes].copy_from_slice(name);
        room[bytes..].fill(0);
        self.used += padded;
        true
    }
}

fn dirent(ino: Ino, next: u64, kind: Kind, name: &[u8]) -> Dirent {
    #[expect(clippy::cast_possible_truncation, reason = "names are at most 255 bytes")]
    let namelen = name.len() as u32;
    // `d_type` is the file type part of the mode, moved down.
    Dirent { ino: ino.0, off: next, namelen, kind: kind.mode_bits() >> 12 }
}

#[cfg(test)]
mod tests {
    use super::DirWriter;
    use crate::base::{Ino, Kind, Name};
    use crate::kernel::abi::{Dirent, EntryOut};
    use zerocopy::FromBytes;

    #[test]
    fn records_are_aligned_and_the_one_that_does_not_fit_leaves_no_trace() {
        let mut buffer = [0xee_u8; 72];
        let mut writer = DirWriter::new(&mut buffer);
        assert!(writer.add_dot(Ino(1), 1, false));
        assert!(writer.fits(9, false) && !writer.fits(17, false));
        assert!(writer.add(Ino(7), 2, Kind::File, Name::parse(b"ninebytes").unwrap()));
        assert_eq!(writer.used(), 32 + 40);
        assert!(!writer.add(Ino(8), 3, Kind::File, Name::parse(b"x").unwrap()));
        assert_eq!(writer.used(), 72);
        let (second, rest) = Dirent::read_from_prefix(&buffer[32..]).unwrap();
        assert_eq!(second, Dirent { ino: 7, off: 2, namelen: 9, kind: 8 });
        assert_eq!(rest, b"ninebytes\0\0\0\0\0\0\0");
    }

    #[test]
    fn an_entry_with_attributes_takes_its_room_before_the_name() {
        let mut buffer = [0; 200];
        let mut writer = DirWriter::new(&mut buffer);
        let entry = EntryOut { nodeid: 5, ..EntryOut::default() };
        assert!(writer.add_plus(&entry, Ino(5), 1, Kind::Directory, Name::parse(b"d").unwrap()));
        assert_eq!(writer.used(), 160);
        assert_eq!(EntryOut::read_from_prefix(&buffer).unwrap().0, entry);
        assert_eq!(buffer[152], b'd');
    }
}

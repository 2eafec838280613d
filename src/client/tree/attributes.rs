//! Attributes and sizes that are changed here.

use super::{Change, Denied, Tree, flag};
use crate::base::posix;
use crate::base::{Attr, Errno, Ino, Kind, SetAttr};

/// Where bytes went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// First byte in the file.
    pub offset: u64,
    /// How many of the bytes were taken: fewer at the largest size of a file. 0: nothing was changed.
    pub bytes: u64,
}

impl Tree {
    /// chmod, chown, truncate, utimes. Gives the attributes afterwards. A `set` that names nothing changes nothing: there is
    /// nothing to log then.
    ///
    /// # Errors
    /// As the server's, or [`Denied::Ask`].
    pub fn set_attr(&mut self, change: &Change, ino: Ino, set: &SetAttr) -> Result<Attr, Denied> {
        let place = self.known(ino)?;
        let node = self.nodes.at(place);
        if *set == SetAttr::default() {
            return node.attr().ok_or(Denied::Ask);
        }
        posix::check_set_attr(node.kind(), set)?;
        // ACLs follow the mode, and capabilities do not survive.
        let times_alone = set.mode.is_none() && set.uid.is_none() && set.gid.is_none() && set.size.is_none();
        let node = self.may_change(place)?;
        if !times_alone && !node.has(flag::PLAIN) {
            return Err(Denied::Ask);
        }
        let blocks_known = !node.has(flag::SPACE_UNKNOWN) || set.size == Some(0);
        if !blocks_known {
            return Err(Denied::Ask);
        }
        let node = self.nodes.at_mut(place);
        if let Some(size) = set.size
            && !node.cut(size)
        {
            return Err(Denied::Ask);
        }
        node.change(|attr| posix::set_attr(attr, set, change.caller, change.at));
        let attr = node.attr().ok_or(Denied::Ask)?;
        self.touched(place, change);
        Ok(attr)
    }

    /// write(2) of `len` bytes at `offset`, or at the end (`append`). `kill`: drop setuid and setgid bits.
    ///
    /// # Errors
    /// As the server's, or [`Denied::Ask`].
    pub fn write(
        &mut self,
        change: &Change,
        ino: Ino,
        offset: u64,
        len: u64,
        append: bool,
        kill: bool,
    ) -> Result<Written, Denied> {
        let place = self.known(ino)?;
        let node = self.nodes.at(place);
        match node.kind() {
            Kind::File => {}
            Kind::Directory => return Err(Errno::EISDIR.into()),
            _ => return Err(Errno::EINVAL.into()),
        }
        let offset = if append { node.size } else { offset };
        if len == 0 {
            return Ok(Written { offset, bytes: 0 });
        }
        let end = posix::write_end(offset, len)?;
        if !self.may_change(place)?.has(flag::PLAIN) {
            return Err(Denied::Ask);
        }
        let node = self.nodes.at_mut(place);
        node.wrote(offset, end);
        node.change(|attr| {
            attr.size = attr.size.max(end);
            if kill {
                posix::kill_suidgid(attr, change.caller);
            }
            posix::touch_content(attr, change.at);
        });
        self.touched(place, change);
        Ok(Written { offset, bytes: end - offset })
    }
}

//! What hangs on an inode besides its record: extended attributes, and the target of a symbolic link.
//!
//! Limits ([`crate::base::limits`]) and namespaces of names are rules of the caller.

use super::{Order, StoreFault, Txn, Value, View, Visit, keys};
use crate::base::Ino;
use std::ops::ControlFlow;

/// The value of an extended attribute.
///
/// # Errors
/// The store cannot be read.
pub fn xattr(view: &dyn View, ino: Ino, name: &[u8]) -> Result<Option<Value>, StoreFault> {
    view.get(&keys::xattr(ino, name))
}

/// Sets an extended attribute.
pub fn put_xattr(txn: &mut dyn Txn, ino: Ino, name: &[u8], value: &[u8]) {
    txn.put(&keys::xattr(ino, name), value);
}

/// Removes an extended attribute; it need not exist.
pub fn delete_xattr(txn: &mut dyn Txn, ino: Ino, name: &[u8]) {
    txn.delete(&keys::xattr(ino, name));
}

/// Visits the extended attributes of `ino`, name and value, in order of name.
///
/// # Errors
/// The store cannot be read.
pub fn each_xattr(view: &dyn View, ino: Ino, visit: &mut Visit<'_>) -> Result<(), StoreFault> {
    let (from, end) = (keys::xattr(ino, b""), keys::after_number(keys::letter::XATTR, ino.0));
    view.scan(&from, &end, Order::Forward, &mut |key, value| visit(&key[from.len()..], value))
}

/// Removes all extended attributes of `ino`.
///
/// # Errors
/// The store cannot be read.
pub fn delete_xattrs(txn: &mut dyn Txn, ino: Ino) -> Result<(), StoreFault> {
    let mut names = Vec::new();
    each_xattr(txn, ino, &mut |name, _| {
        names.push(name.to_vec());
        ControlFlow::Continue(())
    })?;
    for name in names {
        delete_xattr(txn, ino, &name);
    }
    Ok(())
}

/// The target of a symbolic link.
///
/// # Errors
/// The store cannot be read.
pub fn symlink(view: &dyn View, ino: Ino) -> Result<Option<Value>, StoreFault> {
    view.get(&keys::symlink(ino))
}

/// Sets the target of a symbolic link.
pub fn put_symlink(txn: &mut dyn Txn, ino: Ino, target: &[u8]) {
    txn.put(&keys::symlink(ino), target);
}

/// Removes the target of a symbolic link.
pub fn delete_symlink(txn: &mut dyn Txn, ino: Ino) {
    txn.delete(&keys::symlink(ino));
}

#[cfg(test)]
mod tests {
    use super::{delete_xattrs, each_xattr, put_xattr, xattr};
    use crate::base::Ino;
    use crate::server::meta::{WriteTxn, memory::MemoryEngine};
    use std::ops::ControlFlow;

    #[test]
    fn attributes_of_one_inode_are_not_those_of_its_neighbours() {
        let engine = MemoryEngine::new();
        let mut txn = WriteTxn::new(&engine);
        for ino in [6, 7, 8, u64::MAX] {
            put_xattr(&mut txn, Ino(ino), b"user.b", b"2");
            put_xattr(&mut txn, Ino(ino), b"user.a", b"1");
        }
        delete_xattrs(&mut txn, Ino(7)).unwrap();
        for (ino, count) in [(6, 2), (7, 0), (8, 2), (u64::MAX, 2)] {
            let mut names = Vec::new();
            each_xattr(&txn, Ino(ino), &mut |name, _| {
                names.push(name.to_vec());
                ControlFlow::Continue(())
            })
            .unwrap();
            assert_eq!(names.len(), count, "{ino}");
            assert!(names.is_sorted());
        }
        assert_eq!(xattr(&txn, Ino(8), b"user.a").unwrap().as_deref(), Some(&b"1"[..]));
    }
}

//! What a folder holds after a number of operations, as values: the model that kept files are compared with.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// One change. Paths are relative to the folder of a round.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// open(2) with `O_CREAT|O_EXCL`.
    Create(String),
    /// All bytes of a file, in one call at its start.
    Write(String, Vec<u8>),
    /// One call on a descriptor with `O_APPEND`.
    Append(String, Vec<u8>),
    Truncate(String, usize),
    Chmod(String, u32),
    Mkdir(String),
    Rmdir(String),
    Unlink(String),
    /// Over whatever is there.
    Rename(String, String),
    Link(String, String),
    Symlink(String, String),
}

/// What a name stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Node {
    File { bytes: Vec<u8>, mode: u32 },
    Folder,
    Symlink(String),
}

#[derive(Clone, Debug)]
enum Name {
    /// Its place in `files`.
    File(usize),
    Folder,
    Symlink(String),
}

/// See the module.
#[derive(Clone, Default, Debug)]
pub(crate) struct State {
    names: BTreeMap<String, Name>,
    /// Bytes and mode. Several names may stand for one.
    files: Vec<(Vec<u8>, u32)>,
}

impl State {
    /// Applies a change that has succeeded; gives the names that now stand for something else.
    pub(crate) fn apply(&mut self, op: &Op) -> Vec<String> {
        match op {
            Op::Create(path) => {
                self.files.push((Vec::new(), 0o644));
                self.put(path, Name::File(self.files.len() - 1))
            }
            Op::Write(path, bytes) => self.change(path, |file| {
                let len = file.0.len().max(bytes.len());
                file.0.resize(len, 0);
                file.0[..bytes.len()].copy_from_slice(bytes);
            }),
            Op::Append(path, bytes) => self.change(path, |file| file.0.extend_from_slice(bytes)),
            Op::Truncate(path, len) => self.change(path, |file| file.0.resize(*len, 0)),
            Op::Chmod(path, mode) => self.change(path, |file| file.1 = *mode),
            Op::Mkdir(path) => self.put(path, Name::Folder),
            Op::Rmdir(path) | Op::Unlink(path) => {
                self.names.remove(path);
                vec![path.clone()]
            }
            Op::Rename(from, to) => self.rename(from, to),
            Op::Link(from, to) => {
                let name = self.names.get(from).cloned();
                name.map_or_else(Vec::new, |name| self.put(to, name))
            }
            Op::Symlink(target, path) => self.put(path, Name::Symlink(target.clone())),
        }
    }

    fn put(&mut self, path: &str, name: Name) -> Vec<String> {
        self.names.insert(path.to_owned(), name);
        vec![path.to_owned()]
    }

    fn change(&mut self, path: &str, how: impl FnOnce(&mut (Vec<u8>, u32))) -> Vec<String> {
        let Some(Name::File(at)) = self.names.get(path) else { return Vec::new() };
        let at = *at;
        how(&mut self.files[at]);
        let same = self.names.iter().filter(|(_, name)| matches!(name, Name::File(other) if *other == at));
        same.map(|(path, _)| path.clone()).collect()
    }

    fn rename(&mut self, from: &str, to: &str) -> Vec<String> {
        let below = format!("{from}/");
        let moved: Vec<String> =
            self.names.keys().filter(|path| *path == from || path.starts_with(&below)).cloned().collect();
        let mut touched = Vec::with_capacity(2 * moved.len());
        for path in moved {
            let new = format!("{to}{}", &path[from.len()..]);
            if let Some(name) = self.names.remove(&path) {
                self.names.insert(new.clone(), name);
            }
            touched.extend([path, new]);
        }
        touched
    }

    pub(crate) fn get(&self, path: &str) -> Option<Node> {
        self.names.get(path).map(|name| match name {
            Name::File(at) => {
                let (bytes, mode) = self.files[*at].clone();
                Node::File { bytes, mode }
            }
            Name::Folder => Node::Folder,
            Name::Symlink(target) => Node::Symlink(target.clone()),
        })
    }

    /// Whether a name stands for this, without copying it.
    pub(crate) fn is(&self, path: &str, seen: Option<&Node>) -> bool {
        match (self.names.get(path), seen) {
            (None, None) | (Some(Name::Folder), Some(Node::Folder)) => true,
            (Some(Name::File(at)), Some(Node::File { bytes, mode })) => {
                let file = &self.files[*at];
                file.1 == *mode && file.0 == *bytes
            }
            (Some(Name::Symlink(target)), Some(Node::Symlink(seen))) => target == seen,
            _ => false,
        }
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &String> {
        self.names.keys()
    }

    /// Names of files that a test may do anything with, and empty folders.
    pub(crate) fn files(&self) -> Vec<&String> {
        let free = |path: &&String| path.rsplit('/').next().is_some_and(|name| name.contains('f'));
        let files = self.names.iter().filter(|(_, name)| matches!(name, Name::File(_)));
        files.map(|(path, _)| path).filter(free).collect()
    }

    /// Folders.
    pub(crate) fn folders(&self) -> Vec<&String> {
        self.names.iter().filter(|(_, name)| matches!(name, Name::Folder)).map(|(path, _)| path).collect()
    }

    /// Whether nothing is in a folder.
    pub(crate) fn is_empty(&self, folder: &str) -> bool {
        let below = format!("{folder}/");
        !self.names.keys().any(|path| path.starts_with(&below))
    }
}

/// What is there: each name below `folder` that `mine` wants, with what it stands for.
pub(crate) fn look(folder: &Path, mine: impl Fn(&str) -> bool) -> BTreeMap<String, Node> {
    let mut seen = BTreeMap::new();
    let mut open = vec![String::new()];
    while let Some(path) = open.pop() {
        for entry in std::fs::read_dir(folder.join(&path)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            if !mine(&path) {
                continue;
            }
            let kind = entry.file_type().unwrap();
            let node = if kind.is_dir() {
                open.push(path.clone());
                Node::Folder
            } else if kind.is_symlink() {
                Node::Symlink(std::fs::read_link(entry.path()).unwrap().to_str().unwrap().to_owned())
            } else {
                let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
                Node::File { bytes: std::fs::read(entry.path()).unwrap(), mode }
            };
            assert!(seen.insert(path.clone(), node).is_none(), "{path} is listed twice");
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::{Node, Op, State};

    #[test]
    fn a_folder_moves_with_what_is_in_it_and_links_share_their_bytes() {
        let mut state = State::default();
        let name = |text: &str| text.to_owned();
        for op in [
            Op::Mkdir(name("d")),
            Op::Create(name("d/f")),
            Op::Link(name("d/f"), name("g")),
            Op::Write(name("g"), b"12".to_vec()),
            Op::Rename(name("d"), name("e")),
        ] {
            state.apply(&op);
        }
        let file = Node::File { bytes: b"12".to_vec(), mode: 0o644 };
        assert!(state.is("e/f", Some(&file)) && state.is("g", Some(&file)) && state.is("d/f", None));
        assert_eq!(state.apply(&Op::Append(name("g"), b"3".to_vec())), ["e/f", "g"]);
        assert_eq!(state.get("e/f"), Some(Node::File { bytes: b"123".to_vec(), mode: 0o644 }));
    }
}

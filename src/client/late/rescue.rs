//! The rescue area: a folder for the data of refused writes. Each file that lost data has a folder, named by its inode, with
//! `data`, where each piece stands at its offset, and `about.txt`, which says what it was. Any tool reads them; nothing
//! else has to run for it.

use crate::base::{Errno, Ino};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The data of one refused write.
#[derive(Debug)]
pub(super) struct Save {
    /// The failure's number.
    pub(super) number: u64,
    pub(super) ino: Ino,
    /// `None`: it was to be appended.
    pub(super) offset: Option<u64>,
    pub(super) path: Option<Vec<u8>>,
    pub(super) errno: Errno,
    pub(super) seconds: u64,
    pub(super) data: Vec<u8>,
}

/// The folder, as the one who writes to it sees it.
#[derive(Debug)]
pub(super) struct Area {
    folder: PathBuf,
    bytes_max: u64,
    /// Bytes in it; `None` before the first look.
    bytes: Option<u64>,
}

/// One file that lost data.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Item {
    /// Its name in the area: the number of the inode.
    pub id: String,
    /// Where the file was, from the root of the mount; empty when that was not known.
    pub path: String,
    /// Symbol of the last errno.
    pub errno: String,
    /// When it failed last, in seconds since 1970.
    pub seconds: u64,
    /// Bytes that were rescued.
    pub bytes: u64,
    /// The file with the data.
    pub data: PathBuf,
}

/// What can go wrong with rescued data. One line for the user.
#[derive(Debug, thiserror::Error)]
pub enum RescueFault {
    /// The system refused.
    #[error("{what} {path}: {cause}", path = .path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// There is nothing of that name.
    #[error("nothing called {id} was rescued; `ringfs rescue list` shows what was")]
    Absent {
        /// The name.
        id: String,
    },
    /// The area is full.
    #[error("the rescue area is full ({max} bytes): save or drop what is in it")]
    Full {
        /// Its bound.
        max: u64,
    },
}

impl Area {
    pub(super) fn new(folder: PathBuf, bytes_max: u64) -> Self {
        Self { folder, bytes_max, bytes: None }
    }

    /// Puts data where it belongs, and syncs it. Without room only what it was is noted.
    pub(super) fn save(&mut self, save: &Save) -> Result<(), RescueFault> {
        let present = match self.bytes {
            Some(bytes) => bytes,
            None => list(&self.folder).unwrap_or_default().iter().map(|item| item.bytes).sum(),
        };
        let length = save.data.len() as u64;
        let fits = present.saturating_add(length) <= self.bytes_max;
        self.bytes = Some(if fits { present + length } else { present });
        let folder = self.folder.join(save.ino.0.to_string());
        let built = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        built.map_err(|cause| RescueFault::System { what: "making", path: folder.clone(), cause })?;
        let mut offset = save.offset.unwrap_or(0);
        if fits {
            let path = folder.join(DATA);
            let written = open(&path).and_then(|mut file| {
                if save.offset.is_none() {
                    offset = file.seek(SeekFrom::End(0))?;
                }
                file.write_all_at(&save.data, offset)?;
                file.sync_data()
            });
            written.map_err(|cause| RescueFault::System { what: "writing", path, cause })?;
        }
        let path = folder.join(ABOUT);
        let noted = open(&path).and_then(|file| note(file, save, offset, fits));
        noted.map_err(|cause| RescueFault::System { what: "writing", path, cause })?;
        if fits { Ok(()) } else { Err(RescueFault::Full { max: self.bytes_max }) }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)
}

/// Appends what became of one write.
fn note(mut file: File, save: &Save, offset: u64, kept: bool) -> io::Result<()> {
    file.seek(SeekFrom::End(0))?;
    let mut text = Vec::new();
    text.extend_from_slice(b"path: ");
    text.extend(escaped(save.path.as_deref().unwrap_or_default()));
    let kind = if kept { "kept" } else { "lost" };
    let append = if save.offset.is_none() { " appended" } else { "" };
    writeln!(
        text,
        "\nfailure: {} errno {} at {}\n{kind}: {offset} {}{append}",
        save.number,
        save.errno,
        save.seconds,
        save.data.len()
    )?;
    file.write_all(&text)?;
    file.sync_data()
}

/// A name on one line.
fn escaped(path: &[u8]) -> Vec<u8> {
    path.iter().flat_map(|byte| if *byte == b'\n' { b"\\n".to_vec() } else { vec![*byte] }).collect()
}

/// What was rescued.
///
/// # Errors
/// The folder cannot be read; that there is none is no error.
pub fn list(folder: &Path) -> Result<Vec<Item>, RescueFault> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => {
            other.map_err(|cause| RescueFault::System { what: "reading", path: folder.to_owned(), cause })?
        }
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut items: Vec<Item> = names.filter_map(|id| item(folder, &id)).collect();
    items.sort_by_key(|item| (item.seconds, item.id.clone()));
    Ok(items)
}

/// The folder of one that was rescued: the name may come from a person.
fn place(folder: &Path, id: &str) -> Option<PathBuf> {
    let number = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    let place = folder.join(id);
    (number && place.join(ABOUT).is_file()).then_some(place)
}

fn item(folder: &Path, id: &str) -> Option<Item> {
    let place = place(folder, id)?;
    let about = fs::read(place.join(ABOUT)).ok()?;
    let about = String::from_utf8_lossy(&about);
    let last = |key: &str| about.lines().rev().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    let failure: Vec<&str> = last("failure: ").split(' ').collect();
    let kept = about.lines().filter_map(|line| line.strip_prefix("kept: "));
    let bytes = kept.filter_map(|line| line.split(' ').nth(1)?.parse::<u64>().ok()).sum();
    Some(Item {
        id: id.to_owned(),
        path: last("path: ").to_owned(),
        errno: (*failure.get(2)?).to_owned(),
        seconds: failure.get(4)?.parse().ok()?,
        bytes,
        data: place.join(DATA),
    })
}

/// All that is known of one: the lines of its `about.txt`.
///
/// # Errors
/// [`RescueFault`].
pub fn range_lines(folder: &Path, id: &str) -> Result<String, RescueFault> {
    let path = place(folder, id).ok_or_else(|| RescueFault::Absent { id: id.to_owned() })?.join(ABOUT);
    let about = fs::read(&path).map_err(|cause| RescueFault::System { what: "reading", path, cause })?;
    Ok(String::from_utf8_lossy(&about).into_owned())
}

/// Copies the data of one to a new file. Returns its length.
///
/// # Errors
/// [`RescueFault`]; the target exists.
pub fn retrieve(folder: &Path, id: &str, target: &Path) -> Result<u64, RescueFault> {
    let place = place(folder, id).ok_or_else(|| RescueFault::Absent { id: id.to_owned() })?;
    let system = |what, path: &Path| {
        let path = path.to_owned();
        move |cause| RescueFault::System { what, path, cause }
    };
    let data = File::open(place.join(DATA)).map_err(system("opening", &place.join(DATA)))?;
    let options = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target);
    let copy = options.map_err(system("making", target))?;
    let whole = data.metadata().map_err(system("reading", &place.join(DATA)))?.len();
    let about = range_lines(folder, id)?;
    // Piece by piece, so that what is a hole stays one.
    let pieces = about.lines().filter_map(|line| {
        let mut numbers = line.strip_prefix("kept: ")?.split(' ').map_while(|word| word.parse::<u64>().ok());
        Some((numbers.next()?, numbers.next()?))
    });
    let copied =
        pieces.map(|(offset, len)| piece(&data, &copy, offset, len)).collect::<io::Result<Vec<()>>>();
    copied
        .and_then(|_| copy.set_len(whole))
        .and_then(|()| copy.sync_all())
        .map_err(system("writing", target))?;
    Ok(whole)
}

fn piece(data: &File, copy: &File, offset: u64, len: u64) -> io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES];
    let (mut at, end) = (offset, offset.saturating_add(len));
    while at < end {
        let wanted = usize::try_from(end - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let read = data.read_at(&mut buffer[..wanted], at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        copy.write_all_at(&buffer[..read], at)?;
        at += read as u64;
    }
    Ok(())
}

/// Removes one for good.
///
/// # Errors
/// [`RescueFault`].
pub fn discard(folder: &Path, id: &str) -> Result<(), RescueFault> {
    let path = place(folder, id).ok_or_else(|| RescueFault::Absent { id: id.to_owned() })?;
    fs::remove_dir_all(&path).map_err(|cause| RescueFault::System { what: "removing", path, cause })
}

/// The default folder of a mount's rescue area: `$XDG_STATE_HOME/ringfs/rescue/MOUNT`, below `~/.local/state` without that
/// variable, for root below `/var/lib`. `None`: there is no home.
#[must_use]
pub fn default_folder(
    mount_point: &Path,
    is_root: bool,
    state: Option<&Path>,
    home: Option<&Path>,
) -> Option<PathBuf> {
    let base = match (state, home) {
        (Some(state), _) if state.is_absolute() => state.to_owned(),
        _ if is_root => PathBuf::from("/var/lib"),
        (_, Some(home)) => home.join(".local/state"),
        _ => return None,
    };
    let name: Vec<u8> = mount_point
        .as_os_str()
        .as_bytes()
        .iter()
        .skip_while(|byte| **byte == b'/')
        .map(|byte| if *byte == b'/' { b'-' } else { *byte })
        .collect();
    let name = if name.is_empty() { b"root".to_vec() } else { name };
    Some(base.join("ringfs/rescue").join(std::ffi::OsStr::from_bytes(&name)))
}

/// Copied at a time.
const PIECE_BYTES: usize = 1 << 16;

const DATA: &str = "data";
const ABOUT: &str = "about.txt";

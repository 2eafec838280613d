//! Checks of the whole: numbers, refusals, programs, many files, many threads.

#![allow(unsafe_code, reason = "an ioctl of an unknown number has no safe wrapper")]

use std::fs;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::libc;
use nix::sys::statvfs::statvfs;
use nix::unistd::UnlinkatFlags;

use super::ground::{Outcome, at, fails, holds, many, new_file, pattern, same};

pub(super) fn file_system_numbers(dir: &Path) -> Outcome {
    let numbers = at("statvfs", statvfs(dir))?;
    holds("blocks", numbers.blocks() > 0 && numbers.blocks_free() <= numbers.blocks())?;
    holds("inodes", numbers.files_free() <= numbers.files())?;
    same("longest name", numbers.name_max(), 255)?;
    holds("block size", numbers.fragment_size() >= 512)
}

pub(super) fn refused_calls(dir: &Path) -> Outcome {
    let file = new_file(&dir.join("file"))?;
    // By its number this request carries no data, else the kernel would look for it before it asks the server.
    // SAFETY: the request takes a descriptor by value and touches no memory of ours.
    let unknown = Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), 0xBEEF) });
    fails("an unknown ioctl", unknown, Errno::ENOTTY)?;
    let removed = nix::unistd::unlinkat(AT_FDCWD, &dir.join("absent"), UnlinkatFlags::NoRemoveDir);
    fails("unlink of nothing", removed, Errno::ENOENT)?;
    Ok(())
}

pub(super) fn poll_is_ready(dir: &Path) -> Outcome {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let file = new_file(&dir.join("file"))?;
    let mut waiting = [PollFd::new(file.as_fd(), PollFlags::POLLIN | PollFlags::POLLOUT)];
    same("ready", poll(&mut waiting, PollTimeout::from(5_000_u16)), Ok(1))
}

pub(super) fn run_a_program(dir: &Path) -> Outcome {
    let own = at("own path", std::env::current_exe())?;
    let copy = dir.join("program");
    at("copy", fs::copy(own, &copy))?;
    at("chmod", fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)))?;
    let output = at("run", Command::new(&copy).output())?;
    same("exit code", output.status.code(), Some(2))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    holds("its words", text.contains("usage: exercise"))?;
    at("chmod", fs::set_permissions(&copy, fs::Permissions::from_mode(0o644)))?;
    fails("without the bit", Command::new(&copy).output(), Errno::EACCES)
}

pub(super) fn many_small_files(dir: &Path) -> Outcome {
    let count = many(400) as u64;
    for number in 0..count {
        let folder = dir.join(format!("{}", number % 20));
        if number < 20 {
            at("mkdir", fs::create_dir(&folder))?;
        }
        at(
            "write",
            fs::write(
                folder.join(format!("{number}")),
                pattern(usize::try_from(number * 13).unwrap_or(0), number),
            ),
        )?;
    }
    for number in 0..count {
        let path = dir.join(format!("{}/{number}", number % 20));
        holds(
            "bytes",
            at("read", fs::read(path))? == pattern(usize::try_from(number * 13).unwrap_or(0), number),
        )?;
    }
    Ok(())
}

pub(super) fn threads_in_one_folder(dir: &Path) -> Outcome {
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let dir = dir.to_path_buf();
            std::thread::spawn(move || -> Outcome {
                for round in 0..40 {
                    let (one, two) =
                        (dir.join(format!("{thread}-{round}")), dir.join(format!("{thread}-{round}-moved")));
                    at("write", fs::write(&one, one.as_os_str().as_bytes()))?;
                    at("rename", fs::rename(&one, &two))?;
                    same("bytes", at("read", fs::read(&two))?, one.as_os_str().as_bytes().to_vec())?;
                    if round % 2 == 0 {
                        at("unlink", fs::remove_file(&two))?;
                    }
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a thread panicked".to_owned())??;
    }
    same("left", at("list", fs::read_dir(dir))?.count(), 8 * 20)
}

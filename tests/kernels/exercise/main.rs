//! Every system call that reaches a file system, each with what must come of it. Comes in: a folder on the
//! mount under test. Goes out: a PASS, FAIL or SKIP line for each check and a closing line that counts them.
//!
//! It runs on a host and inside a booted kernel with nothing but its own libraries, so it uses no test
//! harness. A check owns a folder of its own below the given one. SKIP is only for what the running
//! kernel cannot pass on to a FUSE server at all; the reason stands on the line. On a local file system
//! such as ext4 the same checks pass, which is how the checks themselves are checked.

mod attributes;
mod data;
mod files;
mod folders;
mod ground;
mod locks;
mod whole;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use ground::Outcome;

type Check = fn(&Path) -> Outcome;

/// The checks, each with the oldest kernel whose FUSE passes the call on.
const CHECKS: &[(&str, (u32, u32), Check)] = &[
    ("create_write_read_stat", (0, 0), files::create_write_read_stat),
    ("lookup_of_absent_and_odd_names", (0, 0), folders::lookup_of_absent_and_odd_names),
    ("exclusive_create", (0, 0), files::exclusive_create),
    ("open_flags", (0, 0), files::open_flags),
    ("append", (0, 0), files::append),
    ("truncate_and_extend", (0, 0), files::truncate_and_extend),
    ("chmod_chown_clear_bits", (0, 0), attributes::chmod_chown_clear_bits),
    ("times_in_nanoseconds", (0, 0), attributes::times_in_nanoseconds),
    ("birth_time", (6, 6), attributes::birth_time),
    ("mkdir_rmdir", (0, 0), folders::mkdir_rmdir),
    ("set_group_id_folder", (0, 0), folders::set_group_id_folder),
    ("readdir_in_parts", (0, 0), folders::readdir_in_parts),
    ("readdir_while_removing", (0, 0), folders::readdir_while_removing),
    ("folder_removed_while_open", (0, 0), folders::folder_removed_while_open),
    ("symlink_readlink", (0, 0), files::symlink_readlink),
    ("hard_links", (0, 0), files::hard_links),
    ("special_files", (0, 0), files::special_files),
    ("fifo_carries_bytes", (0, 0), files::fifo_carries_bytes),
    ("unlink_while_open", (0, 0), files::unlink_while_open),
    ("rename_over", (0, 0), folders::rename_over),
    ("rename_flags", (0, 0), folders::rename_flags),
    ("rename_whiteout", (5, 6), folders::rename_whiteout),
    ("rename_folder_rules", (0, 0), folders::rename_folder_rules),
    ("anonymous_file", (6, 1), files::anonymous_file),
    ("extended_attributes", (0, 0), attributes::extended_attributes),
    ("access_control_list", (0, 0), attributes::access_control_list),
    ("fallocate_and_punch", (0, 0), data::fallocate_and_punch),
    ("seek_hole_and_data", (0, 0), data::seek_hole_and_data),
    ("copy_range", (0, 0), data::copy_range),
    ("map_private_and_read", (0, 0), data::map_private_and_read),
    ("map_shared_and_write", (0, 0), data::map_shared_and_write),
    ("direct_io", (0, 0), data::direct_io),
    ("large_file_and_sparse_offset", (0, 0), data::large_file_and_sparse_offset),
    ("sync_calls", (0, 0), data::sync_calls),
    ("record_locks", (0, 0), locks::record_locks),
    ("open_file_locks", (0, 0), locks::open_file_locks),
    ("whole_file_locks", (0, 0), locks::whole_file_locks),
    ("waiting_for_a_lock", (0, 0), locks::waiting_for_a_lock),
    ("interrupt_while_waiting", (0, 0), locks::interrupt_while_waiting),
    ("file_system_numbers", (0, 0), whole::file_system_numbers),
    ("refused_calls", (0, 0), whole::refused_calls),
    ("poll_is_ready", (0, 0), whole::poll_is_ready),
    ("run_a_program", (0, 0), whole::run_a_program),
    ("many_small_files", (0, 0), whole::many_small_files),
    ("threads_in_one_folder", (0, 0), whole::threads_in_one_folder),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [_, "--hold", file] => locks::hold_lock(Path::new(file), true),
        [_, "--want", file] => locks::hold_lock(Path::new(file), false),
        [_, folder] => run_all(Path::new(folder), ""),
        [_, folder, filter] => run_all(Path::new(folder), filter),
        _ => {
            eprintln!("usage: exercise FOLDER [FILTER]");
            ExitCode::from(2)
        }
    }
}

fn run_all(folder: &Path, filter: &str) -> ExitCode {
    let kernel = running_kernel();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, since, check) in CHECKS.iter().filter(|(name, _, _)| name.contains(filter)) {
        if kernel < *since {
            println!(
                "SKIP {name}: FUSE passes it on since Linux {}.{}, this is {}.{}",
                since.0, since.1, kernel.0, kernel.1
            );
            skipped += 1;
            continue;
        }
        let place = folder.join(name);
        let start = Instant::now();
        let outcome =
            fs::create_dir(&place).map_err(|error| format!("mkdir: {error}")).and_then(|()| check(&place));
        let outcome =
            outcome.and_then(|()| fs::remove_dir_all(&place).map_err(|error| format!("remove: {error}")));
        match outcome {
            Ok(()) => {
                println!("PASS {name} ({} ms)", start.elapsed().as_millis());
                passed += 1;
            }
            Err(why) => {
                println!("FAIL {name}: {why}");
                failed += 1;
            }
        }
    }
    println!("exercise: {passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn running_kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

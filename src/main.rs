//! The `ringfs` binary: parses the command line and leaves the rest to [`ringfs::cli`].

fn main() -> std::process::ExitCode {
    ringfs::cli::main()
}

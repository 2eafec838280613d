//! Serves a directory through ringfs' transport with the passthrough file system of fuse-backend-rs.
//!
//! `cargo run --release --example passthrough -- SOURCE MOUNTPOINT [uring|ring|blocking]`, as root; ends when
//! the mount point is unmounted.

use fuse_backend_rs::passthrough::{Config, PassthroughFs};
use ringfs::kernel::adapter::Adapter;
use ringfs::kernel::transport::{MountOptions, Options, mount, serve};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let args: Vec<String> = std::env::args().collect();
    let (source, point, choice) = match args.as_slice() {
        [_, source, point] => (source, point, "auto"),
        [_, source, point, choice] => (source, point, choice.as_str()),
        _ => return Err("usage: passthrough SOURCE MOUNTPOINT [uring|ring|blocking]".into()),
    };
    let config = Config { root_dir: source.clone(), do_import: true, xattr: true, ..Config::default() };
    let fs = PassthroughFs::<()>::new(config)?;
    fs.import()?;
    let device = mount(Path::new(point), &MountOptions::new(source))?;
    let options = Options { choice: choice.parse()?, ..Options::default() };
    let running = serve(device, Arc::new(Adapter::new(fs)), &options)?;
    eprintln!("{source} is served on {point} over {}", running.kind());
    eprintln!("ended: {:?}", running.wait());
    Ok(())
}

//! The request comes in: FUSE as bytes ([`abi`]), as types ([`decode`]), and the way it travels ([`transport`]).
//!
//! The transport can be used without the rest of ringfs. Implement [`transport::Handler`], mount the device,
//! and hand both to [`transport::serve`]:
//!
//! ```no_run
//! use ringfs::base::{Errno, Ino};
//! use ringfs::kernel::abi::{AttrOut, FuseAttr, Opcode};
//! use ringfs::kernel::transport::{Call, Handler, Offered, Options, Verdict, Wanted, serve};
//! use std::sync::Arc;
//! use zerocopy::IntoBytes;
//!
//! /// A file system with an empty root directory.
//! struct Empty;
//!
//! impl Handler for Empty {
//!     fn handle(&self, call: Call<'_>) -> Verdict {
//!         match call.opcode() {
//!             Opcode::Getattr => {
//!                 let attr = FuseAttr { ino: 1, mode: 0o40555, nlink: 2, ..FuseAttr::default() };
//!                 call.ok(AttrOut { attr, ..AttrOut::default() }.as_bytes())
//!             }
//!             Opcode::Opendir | Opcode::Releasedir => call.ok(&[0; 16]),
//!             Opcode::Readdir => call.ok(&[]),
//!             Opcode::Lookup => call.error(Errno::ENOENT),
//!             _ => call.error(Errno::ENOSYS),
//!         }
//!     }
//!     fn forget(&self, _: Ino, _: u64) {}
//!     fn interrupt(&self, _: u64) {}
//!     fn init(&self, _: &Offered) -> Wanted {
//!         Wanted::default()
//!     }
//! }
//!
//! # fn mounted_device() -> std::os::fd::OwnedFd { panic!("only an example") }
//! let running = serve(mounted_device(), Arc::new(Empty), &Options::default())?;
//! println!("served over {}", running.kind());
//! println!("ended: {:?}", running.wait());
//! # Ok::<(), ringfs::kernel::transport::TransportFault>(())
//! ```

pub mod abi;

pub mod decode;

pub mod transport;

pub mod null;

pub mod adapter;

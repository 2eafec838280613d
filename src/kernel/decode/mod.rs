//! Bytes of a request to a typed [`Request`], and typed answers to the bytes of a reply.
//!
//! In: the header, the record and the payload of one request, as the kernel wrote them. Out: a `Request` whose
//! names and sizes have been checked, or the errno to answer with. Total: no input panics or allocates.
//! Absent on purpose: any transport, and anything that remembers a request.
#![forbid(unsafe_code)]

pub mod dirent;
pub mod extension;
pub mod reply;
pub mod request;

pub use dirent::DirWriter;
pub use request::{Lock, LockKind, LookupName, Request, SetAttr, SetTime, XattrName};

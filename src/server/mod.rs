//! The same request arrives: sessions, the rules of POSIX, and what they are stored in.

pub mod meta;

pub mod chunks;

pub mod store;

pub mod fsck;

pub mod ops;

pub mod apply;

pub mod session;

pub mod serve;

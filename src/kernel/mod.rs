//! The request comes in.

pub mod abi;

pub mod decode;

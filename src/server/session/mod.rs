//! x
pub mod locks;

//! The link against a scripted server over real unix sockets.

mod log;
mod opening;
mod peer;
mod reconnect;
mod requests;

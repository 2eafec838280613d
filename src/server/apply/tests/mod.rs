//! The rules, seen from a session: batches in, outcomes out.

mod attributes;
mod batches;
mod data;
mod faults;
mod holds;
mod listing;
mod local;
mod model;
mod names;
mod reference;
mod replay;
mod rig;
mod threads;

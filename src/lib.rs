//! batonfs: a FUSE filesystem for the state of software agents.

pub mod cli;
pub mod committer;
pub mod control;
pub mod engine;
pub mod fuse;
pub mod handoff;
pub mod identity;
pub mod store;
pub mod words;

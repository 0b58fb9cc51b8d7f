//! The mount as programs meet it: each file a topic, each test a claim that could be false.
#![cfg(test)]

#[path = "../common/mount.rs"]
mod harness;

mod access;
mod append;
mod attributes;
mod closing;
mod drafts;
mod follow;
mod handoff;
mod interop;
mod log_cost;
mod logs;
mod observer;
mod policy;
mod rename;
mod soak;
mod tools;
mod tree;

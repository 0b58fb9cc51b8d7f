//! The mount as programs meet it: each file a topic, each test a claim that could be false.
#![cfg(test)]

#[path = "../common/mount.rs"]
mod harness;

mod access;
mod agreement;
mod append;
mod attributes;
mod attribution;
mod closing;
mod contained;
mod deaths;
mod deleted;
mod direct;
mod drafts;
mod ending;
mod examples;
mod exclusive;
mod exec;
mod follow;
mod full;
mod growing;
mod handoff;
mod interop;
mod interval;
mod kill_loop;
mod killed;
mod locked;
mod log_cost;
mod logs;
mod matrix;
mod model;
mod observer;
mod past;
mod policy;
mod rename;
mod seen;
mod soak;
mod tools;
mod tree;
mod unseen;
mod unseen_rules;
mod values;
mod views;
mod views_shared;

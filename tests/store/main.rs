//! The engines, the rules of the store and its documents, without a kernel between.

#[path = "../common/disks.rs"]
mod disks;
#[path = "../common/engines.rs"]
mod engines;

mod contract;
mod crash;
mod forgotten;
mod format;
mod handoff;
mod neighbour;
mod race;
mod rules;

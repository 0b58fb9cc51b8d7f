//! The engines and the rules of the store, without a kernel between.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "builders fail their test as tests do, and tell what it did"
)]

#[path = "../common/disks.rs"]
mod disks;
#[path = "../common/engines.rs"]
mod engines;
#[path = "../common/power.rs"]
mod power_disk;
#[path = "../common/sound.rs"]
mod sound;

mod adopted;
mod beside;
mod contract;
mod crash;
mod damage;
mod damage_cases;
mod flips;
mod forgotten;
mod format;
mod full;
mod handoff;
mod in_place;
mod kept;
mod large;
mod late;
mod lines;
mod meddled;
mod million;
mod neighbour;
mod past;
mod power;
mod race;
mod room;
mod rules;
mod small;
mod table;
mod verify;
mod verify_open;

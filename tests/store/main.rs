//! The store's rules and documents, without a mount.

mod handoff;

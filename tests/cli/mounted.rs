//! Mounts from their start to their end, on the real kernel.

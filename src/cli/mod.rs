//! The human's door: one file a command, one table of exit codes.

//! Switches: the control files of a mount and its sessions, as one table.

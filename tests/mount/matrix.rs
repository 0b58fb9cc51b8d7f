//! How programs write, a line or two each: which versions that makes, who made them, and what a stranger sees
//! meanwhile. What is common to all is in `case` and `watch`; the tables are in the other files.

mod case;
mod languages;
mod nasty;
mod shells;
mod sockets;
mod tools;
mod watch;

//! The words every room shares: plain values with their rules of form.
//! Knows no disk, no process, no policy decision; imports nothing of this crate.

pub mod handle;
pub mod key;
pub mod past;
pub mod policy;
pub mod record;
pub mod session;
pub mod writer;

pub use handle::{Handle, WholeWriter};
pub use key::{Dir, HANDOFF_KEY, Key, KeyError};
pub use past::{Lost, Past};
pub use policy::{Policy, UnknownPolicy};
pub use record::{LogLine, Op, Seq, Version};
pub use session::{SessionError, SessionId};
pub use writer::{Author, Claim, ClaimError, Process, Writer};

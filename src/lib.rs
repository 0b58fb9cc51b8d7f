//! batonfs: a FUSE filesystem for the state of software agents.
//!
//! A *store* is a directory; each directory in it is a *session*, each file of a session a *key* with a *value*. What a
//! program writes to an open file is its private *draft*; at the last close the draft becomes the key's next *version*:
//! durable, then visible, with its *writer*, as one step (the *commit*). Writing the key `__handoff.json` hands work on.
//!
//! # The road of a write
//!
//! | step | where | true afterwards | a crash here leaves | shown by |
//! | --- | --- | --- | --- | --- |
//! | open | [`fuse::Filesystem::open`], [`fuse::Filesystem::create`] | the handle has a draft; the opener is known; a new name is reserved and hidden | nothing | `a_new_name_is_hidden_from_others_until_its_first_commit` |
//! | buffer | [`fuse::Filesystem::write`], [`fuse::draft`] | the bytes are in the draft, in memory or in a file without a name; the writer is known and was not refused | nothing | `the_writer_reads_its_draft_and_others_the_committed_value` |
//! | close | [`fuse::Filesystem::flush`] (last descriptor) or [`fuse::Filesystem::fsync`]; `batonfs write` starts here | the draft is taken, who made it is settled | nothing | `one_redirection_is_one_version_however_many_write_through_it` |
//! | commit | [`store::Store::write`] | under the key's lock: the conflict is decided, a document is made, the expected version is named | nothing | `of_many_writers_of_a_fresh_key_exactly_one_wins` |
//! | stage | [`engine::local`] | value, mark and sidecar lie under names nobody reads; a large value is synced | names in `.baton/drafts`, swept at the next open | `f22_a_small_commit_takes_the_documented_steps` |
//! | journal | [`engine::local`] | one checksummed record is synced, with all that waited: **the commit point** | the version; recovery publishes it | `f27_what_was_acknowledged_is_there_wherever_the_disk_fails` |
//! | visible | [`engine::local`] | renames put value, sidecar and log line in place; the close returns 0 | the version; recovery goes on from any rename | `f26_publishing_again_changes_nothing` |
//!
//! `delete`, `rename`, `mkdir`, `rmdir`, attributes and policies take the same road from *commit* on, as other kinds of
//! [`engine::Change`].
//!
//! # The rooms
//!
//! Imports go one way: `main -> cli, fuse -> control, handoff -> store -> engine -> disk`. [`words`] are plain values
//! that everybody shares; [`identity`] alone knows `/proc` and makes writers for [`fuse`], [`committer`] and [`cli`];
//! [`committer`] is how the command and a mount share one store without racing.

pub mod cli;
pub mod committer;
pub mod control;
pub mod engine;
pub mod fuse;
pub mod handoff;
pub mod identity;
pub mod store;
pub mod words;

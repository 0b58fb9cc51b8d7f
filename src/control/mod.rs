//! Switches: the control files of a mount and its sessions, as one table. Knows the store and what a mount says of
//! itself; not the kernel.

mod errors;
mod files;
mod sizes;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use errors::{ErrorLine, Errors};
pub use sizes::Sizes;
use sizes::sized;

use crate::store::{Caller, Store, StoreError};
use crate::words::SessionId;

/// What a mount says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct MountState {
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// When a close is durable: `commit`, or `interval=` and the milliseconds that may pass.
    pub durability: String,
    /// Open files and directories.
    pub open_handles: usize,
    /// Drafts that no commit has made yet.
    pub drafts: usize,
    /// Commits that wait for other holders of the file.
    pub waiting: usize,
    /// Names the kernel remembers.
    pub nodes: usize,
    /// Writer views of which the kernel remembers something.
    pub views: usize,
    /// Drafts committed since the mount, by the moment at which they were: `close`, `look`, `release`, `fsync`,
    /// `age`, `write`, `end`.
    pub commits: BTreeMap<&'static str, u64>,
    /// Drafts dropped since the mount.
    pub drops: u64,
    /// Drafts refused since the mount.
    pub refusals: u64,
    /// Looks at a caller that did not show its process or its descriptors: it is outside the daemon's pid namespace,
    /// hidden in `/proc`, or gone.
    pub unseen: u64,
    /// What the daemon sees of those who call it.
    pub callers: Callers,
    /// What does not hold for callers that cannot be seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unseen_means: Option<&'static str>,
}

/// What the daemon sees of those who call it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Callers {
    /// Each so far.
    #[default]
    Seen,
    /// Some or all were not, or can not be.
    Unseen,
}

impl Callers {
    /// What does not hold for those that cannot be seen.
    #[must_use]
    pub fn means(self) -> Option<&'static str> {
        let words = "of callers that cannot be seen: what they declare may not be read; what a killed one has written is \
                     committed (C6); a new name may resolve for them only once it is committed (C8); several \
                     processes that write through one open file make a version each (C1)";
        (self == Self::Unseen).then_some(words)
    }
}

/// What a control file may look at.
#[derive(Debug)]
pub struct Context<'a> {
    /// The store.
    pub store: &'a Store,
    /// The session, for a session's file.
    pub session: Option<&'a SessionId>,
    /// The mount.
    pub mount: MountState,
    /// The refusals.
    pub errors: &'a Errors,
    /// How long the logs are.
    pub sizes: &'a Sizes,
    /// Only what this writer has done, or was refused, is shown.
    pub only: Option<&'a str>,
    /// Who reads or writes it; decides what the handle shows.
    pub caller: &'a Caller,
    /// The user and group of who reads it: what reading makes is theirs, whether or not their process can be seen.
    pub owner: (u32, u32),
}

/// What reading or writing a control file gives.
pub type Result<T> = std::result::Result<T, StoreError>;

type Read = fn(&Context<'_>) -> Result<Vec<u8>>;
/// Puts some of the lines after a number behind a text, and gives the number of the last; the same number at the end.
type Next = fn(&Context<'_>, u64, &mut Vec<u8>) -> Result<u64>;
type Write = fn(&Context<'_>, &str) -> Result<()>;
type Check = fn(&str) -> Result<()>;

/// One control file.
#[derive(Debug)]
pub struct Control {
    /// Its name.
    pub name: &'static str,
    /// Is it a session's, or the mount's own?
    of_session: bool,
    shows: Shows,
    write: Option<Write>,
    check: Option<Check>,
}

/// What a control file reads as.
#[derive(Debug)]
enum Shows {
    /// A text as it is at the open.
    Text(Read),
    /// What the open has made: its size is known before.
    Made(Read),
    /// Lines that others come after, for as long as it is open.
    Lines(Next),
    /// The same, and none of them ever goes or changes.
    AllLines(Next),
}

use Shows::{AllLines, Lines, Made, Text};

/// Every control file there is.
const TABLE: &[Control] = &[
    Control { name: "new", of_session: false, shows: Made(files::new), write: None, check: None },
    Control { name: "status", of_session: false, shows: Text(files::status), write: None, check: None },
    Control { name: "handoffs", of_session: false, shows: Text(files::handoffs), write: None, check: None },
    Control { name: "errors", of_session: true, shows: Lines(files::errors), write: None, check: None },
    Control { name: "handle", of_session: true, shows: Text(files::handle), write: None, check: None },
    Control { name: "log", of_session: true, shows: AllLines(files::log), write: None, check: None },
    Control {
        name: "policy",
        of_session: true,
        shows: Text(files::policy),
        write: Some(files::set_policy),
        check: Some(files::check_policy),
    },
];

/// The names of a control directory: a session's, or (`None`) the mount's own.
pub fn names(session: Option<&SessionId>) -> impl Iterator<Item = &'static str> {
    let of_session = session.is_some();
    TABLE.iter().filter(move |control| control.of_session == of_session).map(|control| control.name)
}

/// The control file of a name.
#[must_use]
pub fn find(session: Option<&SessionId>, name: &str) -> Option<&'static Control> {
    TABLE.iter().find(|control| control.of_session == session.is_some() && control.name == name)
}

impl Control {
    /// Does reading it change the store?
    #[must_use]
    pub fn makes(&self) -> bool {
        matches!(self.shows, Made(_))
    }

    /// Can it be written?
    #[must_use]
    pub fn is_switch(&self) -> bool {
        self.write.is_some()
    }

    /// Does it go on growing while it is open?
    #[must_use]
    pub fn grows(&self) -> bool {
        matches!(self.shows, Lines(_) | AllLines(_))
    }

    /// The size a read gives.
    ///
    /// # Errors
    /// As [`Control::read`].
    pub fn size_bytes(&self, context: &Context<'_>) -> Result<u64> {
        match self.shows {
            Made(_) => Ok(files::NEW_BYTES),
            Text(read) => Ok(read(context)?.len() as u64),
            Lines(next) => sized(context, next, (0, 0)).map(|(_, size)| size),
            AllLines(next) => {
                let known = context.sizes.known(context, self.name);
                let size = sized(context, next, known)?;
                context.sizes.note(context, self.name, size);
                Ok(size.1)
            }
        }
    }

    /// Its bytes now; of one that grows there are none at the open.
    ///
    /// # Errors
    /// The store's.
    pub fn read(&self, context: &Context<'_>) -> Result<Vec<u8>> {
        match self.shows {
            Text(read) | Made(read) => read(context),
            Lines(_) | AllLines(_) => Ok(Vec::new()),
        }
    }

    /// Puts some of the lines after number `after` behind a text; the number of the last, `after` itself at the end and for
    /// what has no such lines.
    ///
    /// # Errors
    /// The store's.
    pub fn next_lines(&self, context: &Context<'_>, after: u64, text: &mut Vec<u8>) -> Result<u64> {
        match self.shows {
            Lines(next) | AllLines(next) => next(context, after, text),
            Text(_) | Made(_) => Ok(after),
        }
    }

    /// Can this text, all that was written so far, become one that the switch takes?
    ///
    /// # Errors
    /// [`StoreError::Policy`] for what is the beginning of no policy.
    pub fn accepts(&self, text: &str) -> Result<()> {
        self.check.map_or(Ok(()), |check| check(text.trim()))
    }

    /// Sets the switch to a text; surrounding white space does not count.
    ///
    /// # Errors
    /// The store's; [`StoreError::Policy`] for an unknown policy. One that is no switch is not changed.
    pub fn write(&self, context: &Context<'_>, text: &str) -> Result<()> {
        self.write.map_or(Ok(()), |write| write(context, text.trim()))
    }
}

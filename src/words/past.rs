//! What is kept of a key beside what it is now, and how each thing is called. Knows names only.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::record::{Seq, Version};

/// What became of a draft that is no version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lost {
    /// Its writer was killed, or the mount ended: it may be half a value.
    #[default]
    Dropped,
    /// It was whole, and its commit was refused.
    Refused,
}

impl Lost {
    const ALL: [Self; 2] = [Self::Dropped, Self::Refused];

    fn word(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Refused => "refused",
        }
    }
}

/// One thing that is kept of a key: a version, or a draft that became none.
///
/// ```
/// use batonfs::words::{Lost, Past};
/// assert_eq!(Past::Version(7).to_string(), "7");
/// assert_eq!(Past::parse("12.refused"), Some(Past::Draft(12, Lost::Refused)));
/// assert_eq!(Past::parse("07"), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Past {
    /// A version.
    Version(Version),
    /// A draft, by the number of the line in the session's log that tells of it.
    Draft(Seq, Lost),
}

impl Past {
    /// Reads a name as it is shown: `7`, `12.dropped`, `12.refused`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let past = match name.split_once('.') {
            None => Self::Version(name.parse().ok()?),
            Some((seq, word)) => {
                Self::Draft(seq.parse().ok()?, Lost::ALL.into_iter().find(|lost| lost.word() == word)?)
            }
        };
        // One name for each: neither `+7` nor `07`.
        Some(past).filter(|past| past.to_string() == name)
    }

    /// The version's number; `None` for a draft.
    #[must_use]
    pub fn version(self) -> Option<Version> {
        match self {
            Self::Version(version) => Some(version),
            Self::Draft(..) => None,
        }
    }
}

impl fmt::Display for Past {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "{version}"),
            Self::Draft(seq, lost) => write!(f, "{seq}.{}", lost.word()),
        }
    }
}

//! How far a store is recovered while it is opened, as data. Form only.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

/// What whoever waits for an opening hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recovery {
    /// Of the changes that the journal holds so many have been looked at for what has to be written again.
    Staging {
        /// So many.
        done: u64,
        /// Of so many.
        of: u64,
    },
    /// So many of them are in their place.
    Placing {
        /// So many.
        done: u64,
        /// Of so many.
        of: u64,
    },
    /// It is over.
    Over {
        /// So many changes were not in their place.
        changes: u64,
        /// Of these so many have to wait for it: the store serves them from memory.
        waiting: u64,
        /// So many files that nobody needs any more were removed.
        removed: u64,
    },
}

impl Display for Recovery {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let count = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        match *self {
            Self::Staging { done, of } => {
                write!(f, "recovering the store: {done} of {} looked at", count(of, "change"))
            }
            Self::Placing { done, of } => write!(f, "recovering the store: {done} of {} in place", count(of, "change")),
            Self::Over { changes, waiting, removed } => {
                let (changes, removed) = (count(changes, "change"), count(removed, "leftover file"));
                write!(f, "the store is recovered: {changes} put in place, {removed} removed")?;
                if waiting > 0 {
                    write!(f, "; {waiting} of them wait for it and are served from memory")
                } else {
                    Ok(())
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Recovery::{Over, Placing};

    #[test]
    fn what_is_recovered_is_counted_in_words() {
        assert_eq!(Placing { done: 3, of: 20 }.to_string(), "recovering the store: 3 of 20 changes in place");
        let over = Over { changes: 1, waiting: 0, removed: 2 }.to_string();
        assert_eq!(over, "the store is recovered: 1 change put in place, 2 leftover files removed");
        assert!(
            Over { changes: 4, waiting: 3, removed: 0 }
                .to_string()
                .ends_with("3 of them wait for it and are served from memory")
        );
    }
}

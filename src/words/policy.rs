//! The conflict policy: what happens when one writer's key is written by another.

use std::fmt;

/// `'X'` is none of the policies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown conflict policy '{0}': use ignore, warn or error")]
pub struct UnknownPolicy(pub String);

/// What a conflict does. Ordered by strictness, so the strictest of several is their `max`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The write is accepted.
    #[default]
    Ignore,
    /// The write is accepted and the words are logged.
    Warn,
    /// The write is refused, the value stays.
    Error,
}

impl Policy {
    /// Reads a policy: trimmed, lower-cased; empty, `ignore`, `off` | `warn`, `warning` | `error`, `strict`.
    ///
    /// # Errors
    /// [`UnknownPolicy`] for anything else, with the text as it was read.
    pub fn parse(raw: &str) -> Result<Self, UnknownPolicy> {
        match raw.trim().to_ascii_lowercase().as_str() {
            "" | "ignore" | "off" => Ok(Self::Ignore),
            "warn" | "warning" => Ok(Self::Warn),
            "error" | "strict" => Ok(Self::Error),
            other => Err(UnknownPolicy(other.to_owned())),
        }
    }

    /// Could this become a policy when more is written behind it?
    ///
    /// # Errors
    /// [`UnknownPolicy`] when no policy begins like this.
    pub fn parse_begun(raw: &str) -> Result<(), UnknownPolicy> {
        const NAMES: [&str; 6] = ["ignore", "off", "warn", "warning", "error", "strict"];
        let begun = raw.trim().to_ascii_lowercase();
        if NAMES.iter().any(|name| name.starts_with(&begun)) { Ok(()) } else { Err(UnknownPolicy(begun)) }
    }

    /// The policy's own name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

//! Keys and directories: relative paths inside a session. Knows form only, not whether anything exists.

use std::fmt;

/// The directory of the neighbour's sidecars, directly below a session (and reserved at any depth).
pub const META_DIR: &str = ".agent_state_meta";
/// What marks a name as one of the neighbour's temporary files.
pub const TMP_MARK: &str = ".agent_state_tmp";
/// The key whose writing hands work on.
pub const HANDOFF_KEY: &str = "__handoff.json";
/// The name of our own directory, at the top of a store and of a session.
pub const BATON_DIR: &str = ".baton";
/// Longest component, in bytes: its sidecar adds ".json" and the usual limit of a name is 255.
pub const NAME_MAX_BYTES: usize = 250;
/// Longest key, in bytes: what a path may have under `PATH_MAX` with room for a store before it.
pub const KEY_MAX_BYTES: usize = 3800;

/// Why a string is not a key. The words of the first five are the neighbour's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing is left after trimming.
    #[error("key must be a non-empty relative path")]
    Empty,
    /// Only `.` components.
    #[error("key must contain at least one path component")]
    OnlyDots,
    /// Begins with `/`.
    #[error("key '{0}' must be relative")]
    Absolute(String),
    /// Has a `..` component.
    #[error("key '{0}' must not escape the session root")]
    Escapes(String),
    /// Names a sidecar, a temporary file or our own directory.
    #[error("key '{0}' uses a reserved internal path")]
    Reserved(String),
    /// Has a NUL byte, which no file name can hold.
    #[error("key '{}' must not contain a NUL byte", .0.escape_default())]
    Nul(String),
    /// A component is over [`NAME_MAX_BYTES`], or the whole over [`KEY_MAX_BYTES`].
    #[error("key '{0}' is too long: a component has at most {NAME_MAX_BYTES} bytes, a key {KEY_MAX_BYTES}")]
    TooLong(String),
}

/// Is this path component one of the neighbour's internal names?
///
/// ```
/// use batonfs::words::key::is_reserved;
/// assert!(is_reserved(".agent_state_meta"));
/// assert!(is_reserved(".plan.md..agent_state_tmp.0190"));
/// assert!(!is_reserved(".agent_state_meta.json"));
/// ```
#[must_use]
pub fn is_reserved(component: &str) -> bool {
    component == META_DIR || component.contains(TMP_MARK)
}

/// A normalised key: one or more components joined by `/`, none reserved, none `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(String);

impl Key {
    /// Reads a key as the operations do: trimmed, then `.`, doubled and trailing `/` dropped.
    ///
    /// # Errors
    /// [`KeyError`] in the order in which the neighbour finds them (component by component).
    pub fn parse(raw: &str) -> Result<Self, KeyError> {
        let raw = raw.trim();
        if raw.is_empty() {
            return Err(KeyError::Empty);
        }
        if raw.starts_with('/') {
            return Err(KeyError::Absolute(raw.to_owned()));
        }
        let mut parts = Vec::new();
        for part in raw.split('/') {
            match part {
                "" | "." => {}
                ".." => return Err(KeyError::Escapes(raw.to_owned())),
                part if is_reserved(part) => return Err(KeyError::Reserved(raw.to_owned())),
                part => parts.push(part),
            }
        }
        if parts.is_empty() {
            return Err(KeyError::OnlyDots);
        }
        Self::literal(&parts.join("/"))
    }

    /// Takes a path whose components are already literal names (the mount's way: no trimming).
    ///
    /// # Errors
    /// [`KeyError`] when a component is empty, a dot name, reserved, too long or holds a NUL.
    pub fn literal(path: &str) -> Result<Self, KeyError> {
        if path.is_empty() {
            return Err(KeyError::Empty);
        }
        check_components(path)?;
        Ok(Self(path.to_owned()))
    }

    /// The key of the handoff document.
    #[must_use]
    pub fn handoff() -> Self {
        Self(HANDOFF_KEY.to_owned())
    }

    /// The key as one string, components joined by `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last component.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(self.0.as_str(), |(_, name)| name)
    }

    /// The directory the key is in; the session itself for a key of one component.
    #[must_use]
    pub fn parent(&self) -> Dir {
        Dir(self.0.rsplit_once('/').map_or(String::new(), |(dir, _)| dir.to_owned()))
    }

    /// Is this the handoff document?
    #[must_use]
    pub fn is_handoff(&self) -> bool {
        self.0 == HANDOFF_KEY
    }
}

fn check_components(path: &str) -> Result<(), KeyError> {
    if path.contains('\0') {
        return Err(KeyError::Nul(path.to_owned()));
    }
    if path.len() > KEY_MAX_BYTES {
        return Err(KeyError::TooLong(path.to_owned()));
    }
    for (depth, part) in path.split('/').enumerate() {
        match part {
            "" | "." => return Err(KeyError::OnlyDots),
            ".." => return Err(KeyError::Escapes(path.to_owned())),
            part if is_reserved(part) || (depth == 0 && part == BATON_DIR) => {
                return Err(KeyError::Reserved(path.to_owned()));
            }
            part if part.len() > NAME_MAX_BYTES => return Err(KeyError::TooLong(path.to_owned())),
            _ => {}
        }
    }
    Ok(())
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Key {
    type Error = KeyError;
    fn try_from(path: String) -> Result<Self, KeyError> {
        Self::literal(&path)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.0
    }
}

/// A directory inside a session: zero components (the session itself) or the form of a [`Key`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Dir(String);

impl Dir {
    /// The session itself.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Takes a path whose components are already literal names; empty is the session itself.
    ///
    /// # Errors
    /// As [`Key::literal`].
    pub fn literal(path: &str) -> Result<Self, KeyError> {
        if !path.is_empty() {
            check_components(path)?;
        }
        Ok(Self(path.to_owned()))
    }

    /// The path below the session, empty for the session itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Is this the session itself?
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory this one is in; `None` for the session itself.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        Some(Self(self.0.rsplit_once('/').map_or(String::new(), |(dir, _)| dir.to_owned())))
    }

    /// The path of a name in this directory, unchecked text for [`Key::literal`] or [`Dir::literal`].
    #[must_use]
    pub fn join(&self, name: &str) -> String {
        if self.is_root() { name.to_owned() } else { format!("{}/{name}", self.0) }
    }
}

impl fmt::Display for Dir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Dir {
    type Error = KeyError;
    fn try_from(path: String) -> Result<Self, KeyError> {
        Self::literal(&path)
    }
}

impl From<Dir> for String {
    fn from(dir: Dir) -> Self {
        dir.0
    }
}

//! From draft to version: the conflict is decided under the key's lock, documents are made, the engine commits.
//! Also delete and rename, which end in the same engine commit.

use std::time::{SystemTime, UNIX_EPOCH};

use super::document::Context as DocumentContext;
use super::{Result, Store, StoreError, conflict};
use crate::engine::{AttributeChange, Attributes, Change, Context, EngineError, Head, Staged};
use crate::words::{Author, Key, Lost, Past, Policy, SessionId, Version};

/// How often a change is decided again when a program beside the mount was faster. Each round lost means that the
/// other program won one, so this many in a row is a fight that waiting does not end.
const DECISIONS_MAX: usize = 64;

/// Who makes a change, and how strict they want to be.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Writer and processes.
    pub author: Author,
    /// The caller's own policy (`BATON_CONFLICT_POLICY`, `--policy`); the strictest of several holds.
    pub policy: Option<Policy>,
    /// The operation id; fresh for each operation, the same when one is asked again.
    pub operation: uuid::Uuid,
}

impl Caller {
    /// A caller with a fresh operation id.
    #[must_use]
    pub fn new(author: Author, policy: Option<Policy>) -> Self {
        Self { author, policy, operation: uuid::Uuid::now_v7() }
    }

    /// The same caller for its next operation.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::new(self.author.clone(), self.policy)
    }

    /// The same caller where it keeps what this operation was refused: one that is asked again is kept once.
    #[must_use]
    pub fn refused(&self) -> Self {
        Self { operation: uuid::Uuid::from_u128(self.operation.as_u128() ^ 1), ..self.clone() }
    }

    pub(super) fn context(&self, conflict: Option<String>) -> Context {
        Context { author: self.author.clone(), operation: self.operation, conflict }
    }
}

/// What is to become the next version.
#[derive(Debug, Clone)]
pub enum Draft {
    /// The whole value.
    Whole(Staged),
    /// Bytes to put after whatever is current at commit.
    Append(Vec<u8>),
}

impl Draft {
    /// Are there no bytes?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Whole(content) => content.is_empty(),
            Self::Append(bytes) => bytes.is_empty(),
        }
    }
}

/// What a whole draft was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Nothing: it replaces whatever is there.
    Fresh,
    /// A copy of this version, edited; another current version is a conflict whoever wrote it.
    Version(Version),
    /// A copy of this version (0: of nothing); any other current version refuses it under every policy, since who
    /// made it can make it again.
    Exactly(Version),
}

/// Which check a write meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The conflict rule under the strictest policy.
    Policy,
    /// None: the neighbour renames its temporary file after a check of its own.
    NeighbourChecked,
}

/// A draft with all that its commit needs.
#[derive(Debug)]
pub struct Write<'a> {
    /// The session.
    pub session: &'a SessionId,
    /// The key.
    pub key: &'a Key,
    /// The bytes.
    pub draft: Draft,
    /// What a whole draft was made from; an append has no base.
    pub base: Base,
    /// Attributes of a key that does not exist yet.
    pub fresh: Attributes,
    /// They stand where a key is there too: a name of its own was put in that one's place.
    pub own: bool,
    /// Attributes set on the draft: applied to what the key has. Its `mtime` is the time of the last write.
    pub set: AttributeChange,
    /// Which check it meets.
    pub rule: Rule,
}

impl Write<'_> {
    /// The attributes it has over the newest version.
    fn attributes(&self, head: Option<&Head>) -> Attributes {
        let kept = head.filter(|_| !self.own).map(|head| &head.attributes);
        let mut attributes = kept.unwrap_or(&self.fresh).clone();
        self.set.apply(&mut attributes);
        attributes
    }
}

/// A commit that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The version made.
    pub version: Version,
    /// Its place in the session's order.
    pub seq: u64,
    /// The words of a conflict that was accepted under `warn`.
    pub warning: Option<String>,
}

impl Store {
    /// Would a write of `key` by this caller meet a conflict now? For refusals before anything is written.
    ///
    /// # Errors
    /// [`StoreError::Conflict`]; [`StoreError::Engine`].
    pub fn check(&self, session: &SessionId, key: &Key, by: &Caller) -> Result<()> {
        let policy = self.policy_for(session, by.policy)?;
        if policy == Policy::Error {
            let head = self.engine.head(session, key)?;
            conflict::judge(key, head.as_ref(), &by.author.writer, policy)?;
        }
        Ok(())
    }

    /// Makes a draft the key's next version: durable, visible, attributed, as one step. Where the engine answers commits
    /// before they are durable, [`Engine::sync`] makes it so; a document is durable at once.
    ///
    /// # Errors
    /// [`StoreError::Conflict`], [`StoreError::Outdated`], [`StoreError::Document`]: refused, the value stays.
    /// [`StoreError::Engine`]: as [`crate::engine::Engine::commit`].
    pub fn write(&self, write: &Write<'_>, by: &Caller) -> Result<Committed> {
        let (session, key) = (write.session, write.key);
        let _guard = self.locks.key(session, key);
        self.until_current(|| {
            let head = self.engine.head(session, key)?;
            let warning = self.judge(write, head.as_ref(), by)?;
            let change = self.change(write, head.as_ref(), by)?;
            let committed = self.finish(session, change, by, warning)?;
            if self.document(key).is_some() {
                // A document passes work on: who is told of it counts on it, and on all that it speaks of.
                self.engine.sync()?;
            }
            Ok(committed)
        })
    }

    /// Deletes a key; with `prune`, also the parent directories this leaves empty. No conflict rule: the neighbour's
    /// delete never checks. `Ok(false)` when there was no such key.
    ///
    /// # Errors
    /// [`StoreError::Engine`]; nothing changed.
    pub fn delete(&self, session: &SessionId, key: &Key, by: &Caller, prune: bool) -> Result<bool> {
        let existed = {
            let _guard = self.locks.key(session, key);
            self.until_current(|| match self.engine.head(session, key)? {
                None => Ok(false),
                Some(head) => {
                    let change = Change::Delete { key: key.clone(), expected: head.version };
                    self.engine.commit(session, change, &by.context(None))?;
                    Ok(true)
                }
            })?
        };
        if prune && existed {
            self.prune(session, key, by)?;
        }
        Ok(existed)
    }

    /// Renames a key inside a session: a commit of the destination by the renamer.
    ///
    /// # Errors
    /// As [`Store::write`]; [`EngineError::NotFound`] when the source is gone, [`EngineError::Exists`] when
    /// `replace` is false and the destination exists.
    pub fn rename(&self, session: &SessionId, from: &Key, to: &Key, replace: bool, by: &Caller) -> Result<Committed> {
        let _guard = self.locks.keys(session, from, to);
        self.until_current(|| {
            let source = self.engine.open(session, from)?.ok_or_else(|| EngineError::NotFound(from.to_string()))?;
            let target = self.engine.head(session, to)?;
            if target.is_some() && !replace {
                return Err(EngineError::Exists(to.to_string()).into());
            }
            let policy = self.policy_for(session, by.policy)?;
            let warning = conflict::judge(to, target.as_ref(), &by.author.writer, policy)?;
            let content = match self.document(to) {
                Some(document) => {
                    check_size(document, source.head.size_bytes)?;
                    Some(self.accept(document, &Staged::from(source.read_all()?), session, by)?)
                }
                None => None,
            };
            let change = Change::Rename {
                from: from.clone(),
                to: to.clone(),
                expected_from: source.head.version,
                expected_to: target.map(|head| head.version),
                content,
            };
            self.finish(session, change, by, warning)
        })
    }

    /// Lets the neighbour's sidecar declare the writer of exactly `version`.
    ///
    /// # Errors
    /// [`StoreError::Engine`] with [`EngineError::Stale`] when another version is current by now.
    pub fn declare(&self, session: &SessionId, key: &Key, version: Version, by: &Caller) -> Result<()> {
        let _guard = self.locks.key(session, key);
        self.engine.commit(session, Change::Declare { key: key.clone(), expected: version }, &by.context(None))?;
        Ok(())
    }

    /// Records that a draft becomes no version, and keeps its bytes beside the versions: what it is kept as. Of an append
    /// they are the bytes that were to be put after the value. Bytes that cannot be kept are recorded as lost all the same.
    ///
    /// # Errors
    /// [`StoreError::Engine`]: they are not kept; the value is as it was.
    pub fn lose(&self, write: &Write<'_>, lost: Lost, reason: &str, by: &Caller) -> Result<Past> {
        let (session, key) = (write.session, write.key);
        let content = match &write.draft {
            Draft::Whole(content) => content.clone(),
            Draft::Append(bytes) => Staged::from(bytes.clone()),
        };
        let size_bytes = content.len();
        let drop = |kept| {
            let change = Change::Drop { key: key.clone(), size_bytes, lost, reason: reason.to_owned(), kept };
            self.engine.commit(session, change, &by.refused().context(None))
        };
        let head = self.engine.head(session, key);
        let attributes = write.attributes(head.ok().flatten().as_ref());
        match drop(Some((content, attributes))) {
            Ok(receipt) => Ok(Past::Draft(receipt.seq, lost)),
            Err(error) => {
                if let Err(again) = drop(None) {
                    tracing::warn!(%session, %key, "a lost draft could not be recorded: {again}");
                }
                Err(error.into())
            }
        }
    }

    fn judge(&self, write: &Write<'_>, head: Option<&Head>, by: &Caller) -> Result<Option<String>> {
        if write.rule == Rule::NeighbourChecked {
            return Ok(None);
        }
        if let Base::Exactly(base) = write.base {
            conflict::outdated(write.key, head, base, Policy::Error)?;
        }
        let policy = self.policy_for(write.session, by.policy)?;
        let warning = conflict::judge(write.key, head, &by.author.writer, policy)?;
        if warning.is_some() {
            return Ok(warning);
        }
        match (&write.draft, write.base) {
            (Draft::Whole(_), Base::Version(base)) => conflict::outdated(write.key, head, base, policy),
            _ => Ok(None),
        }
    }

    fn change(&self, write: &Write<'_>, head: Option<&Head>, by: &Caller) -> Result<Change> {
        let key = write.key.clone();
        let document = self.document(write.key);
        let content = match (&write.draft, head, document) {
            (Draft::Append(bytes), Some(head), None) => {
                let mtime = write.set.mtime.unwrap_or_else(SystemTime::now);
                return Ok(Change::Append { key, bytes: bytes.clone(), expected: head.version, mtime });
            }
            (Draft::Append(bytes), _, Some(document)) => {
                self.accept(document, &Staged::from(bytes.clone()), write.session, by)?
            }
            (Draft::Append(bytes), None, None) => Staged::from(bytes.clone()),
            (Draft::Whole(staged), _, Some(document)) => self.accept(document, staged, write.session, by)?,
            (Draft::Whole(staged), _, None) => staged.clone(),
        };
        let attributes = write.attributes(head);
        Ok(Change::Put { key, content, expected: head.map(|head| head.version), attributes })
    }

    fn accept(
        &self,
        document: &dyn super::Document,
        written: &Staged,
        session: &SessionId,
        by: &Caller,
    ) -> Result<Staged> {
        check_size(document, written.len())?;
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let context = DocumentContext { session, root: &self.root, writer: &by.author.writer, now_s };
        Ok(Staged::from(document.accept(&written.read_all()?, &context)?))
    }

    fn finish(&self, session: &SessionId, change: Change, by: &Caller, warning: Option<String>) -> Result<Committed> {
        let receipt = self.engine.commit(session, change, &by.context(warning.clone()))?;
        if let Some(words) = &warning {
            tracing::warn!(%session, "{words}");
        }
        Ok(Committed { version: receipt.version.unwrap_or(0), seq: receipt.seq, warning })
    }

    fn prune(&self, session: &SessionId, key: &Key, by: &Caller) -> Result<()> {
        let _guard = self.locks.tree(session);
        let mut dir = key.parent();
        while let Some(parent) = dir.parent() {
            match self.engine.commit(session, Change::RemoveDir { dir }, &by.again().context(None)) {
                Ok(_) => dir = parent,
                Err(EngineError::NotEmpty(_) | EngineError::NotFound(_)) => break,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Decides again while a program beside the mount changes the key between decision and commit.
    fn until_current<T>(&self, mut decide: impl FnMut() -> Result<T>) -> Result<T> {
        let mut left = DECISIONS_MAX;
        loop {
            match decide() {
                Err(StoreError::Engine(EngineError::Stale { .. })) if left > 0 => left -= 1,
                other => return other,
            }
        }
    }
}

/// A document is made in memory: one that is too large is refused before it is read.
fn check_size(document: &dyn super::Document, size_bytes: u64) -> Result<()> {
    let most = document.max_bytes();
    if size_bytes > most {
        let words = format!("{} has {size_bytes} bytes: at most {most} can be written", document.key());
        return Err(super::InvalidDocument(words).into());
    }
    Ok(())
}

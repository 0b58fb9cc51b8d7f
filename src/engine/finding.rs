//! What a check of a store finds, as data: for a person to read and a program to act on. Form only.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

/// How many findings a report holds; more are counted, so that a store that is nothing but findings fits into memory.
pub const FINDINGS_MAX: usize = 10_000;

/// What a finding means for what was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Harm {
    /// A rule is broken.
    Damage,
    /// Something that nobody needs was left behind.
    Leftover,
    /// Worth knowing, and in order: mostly what a program beside the mount did.
    Note,
}

impl Harm {
    /// The word for it, as reports show it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Damage => "damage",
            Self::Leftover => "leftover",
            Self::Note => "note",
        }
    }
}

/// One thing that is not as the rules say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The number of the rule in FORMAT.md, or a short word where none speaks of it.
    pub rule: String,
    /// The path below the store.
    pub place: String,
    /// What is there.
    pub what: String,
    /// What can be done about it.
    pub remedy: String,
    /// What it means.
    pub harm: Harm,
    /// Can a repair mend it without losing a committed byte?
    pub repairable: bool,
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Sessions in the store.
    pub sessions: u64,
    /// Values in their places.
    pub keys: u64,
    /// These and the versions in history.
    pub versions: u64,
    /// Bytes of versions whose checksum was made.
    pub bytes: u64,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What is there, in the order in which it was met.
    pub findings: Vec<Finding>,
    /// What was there and is mended.
    pub repaired: Vec<Finding>,
    /// How many findings more there were than a report holds.
    pub left_off: u64,
    /// Is any of them damage, those left off among them?
    pub damaged: bool,
    /// How much was looked at.
    pub checked: Checked,
}

impl Report {
    /// Takes a finding in.
    pub fn add(&mut self, finding: Finding) {
        self.damaged |= finding.harm == Harm::Damage;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.left_off += 1;
        }
    }

    /// What a check after a repair found, with what of the findings before it is no longer there.
    #[must_use]
    pub fn after(self, mut before: Vec<Finding>) -> Self {
        let of = |finding: &Finding| (finding.rule.clone(), finding.place.clone());
        let mut told: std::collections::HashSet<_> = self.findings.iter().map(of).collect();
        // Twice told, by two rounds of the same repair, is mended once.
        before.retain(|finding| told.insert(of(finding)));
        Self { repaired: before, ..self }
    }
}

/// Hears now and then how far a check is; whether it goes on.
pub type Tell<'a> = dyn FnMut(&Checked) -> ControlFlow<()> + 'a;

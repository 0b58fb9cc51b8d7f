//! The last line of a test: what it leaves is a store in which nothing is wrong.

use std::ops::ControlFlow;
use std::path::Path;

use batonfs::engine::local::verify;
use batonfs::engine::{Finding, Report};

/// What a check of a store that nobody has open finds.
#[track_caller]
pub(crate) fn checked(root: &Path, repair: bool) -> Report {
    verify(root, repair, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// Findings, without the files that every store keeps to write them again.
pub(crate) fn told(findings: &[Finding]) -> Vec<String> {
    let told = findings.iter().filter(|finding| finding.rule != "spare");
    told.map(|it| format!("{} {} {}: {}", it.harm.as_str(), it.rule, it.place, it.what)).collect()
}

/// Nothing at all is found in a store that nobody has open.
#[track_caller]
pub(crate) fn assert_sound(root: &Path) {
    assert_sound_but(root, &[]);
}

/// Nothing is found but what these rules speak of: what a test did beside the engine.
#[track_caller]
pub(crate) fn assert_sound_but(root: &Path, rules: &[&str]) {
    let report = checked(root, false);
    let found: Vec<_> = report.findings.into_iter().filter(|it| !rules.contains(&it.rule.as_str())).collect();
    let found = told(&found);
    assert!(found.is_empty(), "the store is not sound:\n{}", found.join("\n"));
}

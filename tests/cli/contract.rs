//! The contract and the tests name each other.

use std::collections::BTreeSet;

/// The numbers that follow a `K` where a word begins.
fn numbers(text: &str) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut before = ' ';
    for (at, letter) in text.char_indices() {
        if letter == 'K' && !before.is_alphanumeric() && before != '_' {
            let digits: String = text[at + 1..].chars().take_while(char::is_ascii_digit).collect();
            found.extend(digits.parse::<u32>().ok());
        }
        before = letter;
    }
    found
}

fn sources() -> String {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli");
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|file| file.file_name().unwrap() != "contract.rs")
        .map(|f| std::fs::read_to_string(f).unwrap())
        .collect()
}

#[test]
fn every_sentence_of_the_contract_is_named_by_a_test() {
    let promised = numbers(include_str!("../../src/cli/CONTRACT.md"));
    let tested = numbers(&sources());
    assert_eq!(promised.difference(&tested).collect::<Vec<_>>(), Vec::<&u32>::new(), "promised, and named by no test");
    assert_eq!(tested.difference(&promised).collect::<Vec<_>>(), Vec::<&u32>::new(), "named by a test, never promised");
}

#[test]
fn sentences_are_numbered_without_gaps_or_repeats() {
    let text = include_str!("../../src/cli/CONTRACT.md");
    let heads: Vec<u32> =
        text.lines().filter_map(|line| line.strip_prefix("- **K")?.split_once("**")?.0.parse().ok()).collect();
    assert!(heads.len() > 30, "{heads:?}");
    assert_eq!(heads, (1..=heads.len() as u32).collect::<Vec<_>>());
}

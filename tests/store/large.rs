//! Values too large for memory, however their bytes came.

use std::ops::ControlFlow;

use batonfs::engine::local::LocalEngine;
use batonfs::engine::{Change, Engine, Stage};
use proptest::prelude::*;

use crate::disks::{RecordingDisk, Watch};
use crate::engines::*;

/// Larger than what stays in memory.
const LARGE_BYTES: usize = 100_000;

/// Something that is done to a draft.
#[derive(Debug, Clone)]
enum Step {
    /// Goes on where the draft ends.
    GoOn(usize),
    Write(usize, usize),
    Cut(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..LARGE_BYTES).prop_map(Step::GoOn),
        1 => (0..LARGE_BYTES * 2, 0..LARGE_BYTES).prop_map(|(at, len)| Step::Write(at, len)),
        1 => (0..LARGE_BYTES * 2).prop_map(Step::Cut),
    ]
}

/// Does it to a draft, and to what the draft is to have.
fn take(step: &Step, fill: u8, stage: &mut dyn Stage, expected: &mut Vec<u8>) {
    let (at, len) = match *step {
        Step::GoOn(len) => (expected.len(), len),
        Step::Write(at, len) => (at, len),
        Step::Cut(to) => {
            stage.set_len(to as u64).unwrap();
            return expected.resize(to, 0);
        }
    };
    stage.write_at(at as u64, &vec![fill; len]).unwrap();
    if len > 0 {
        expected.resize(expected.len().max(at + len), 0);
        expected[at..at + len].fill(fill);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_large_value_has_the_checksum_of_its_bytes_in_whatever_order_they_were_written(
        steps in prop::collection::vec(step(), 1..8),
    ) {
        let dir = fresh();
        let engine = LocalEngine::open(dir.path()).unwrap();
        make_session(&engine);
        let (mut stage, mut expected) = (engine.stage(), Vec::new());
        // The first of them makes it large.
        for (fill, step) in (1..).zip(std::iter::once(&Step::GoOn(LARGE_BYTES)).chain(&steps)) {
            take(step, fill, &mut *stage, &mut expected);
        }
        let put = Change::Put { key: key("k"), content: stage.freeze(), expected: None, attributes: attributes() };
        commit(&engine, put);
        let read = engine.open(&session(), &key("k")).unwrap().unwrap().read(0, expected.len() + 1).unwrap();
        prop_assert!(read == expected, "{} bytes of {}", read.len(), expected.len());
        let report = engine.verify(false, &mut |_| ControlFlow::Continue(())).unwrap();
        prop_assert!(report.findings.is_empty(), "{:?}", report.findings);
    }
}

#[test]
fn a_large_value_is_read_again_at_its_commit_only_when_it_was_not_written_in_order() {
    let (dir, watch) = (fresh(), Watch::default());
    let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
    make_session(&engine);
    let value = vec![b'v'; LARGE_BYTES];
    let read_bytes = |path: &str, places: [usize; 2]| {
        let mut stage = engine.stage();
        for at in places {
            stage.write_at(at as u64, &value).unwrap();
        }
        watch.take_looked();
        let put = Change::Put { key: key(path), content: stage.freeze(), expected: None, attributes: attributes() };
        commit(&engine, put);
        watch.take_looked().1
    };
    assert!(read_bytes("in_order", [0, LARGE_BYTES]) < LARGE_BYTES as u64);
    assert!(read_bytes("from_the_end", [LARGE_BYTES, 0]) >= 2 * LARGE_BYTES as u64);
}

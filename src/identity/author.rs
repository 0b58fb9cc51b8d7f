//! Which declaration makes the writer, and who is named beside it. Knows no `/proc`: only what was seen there.

use super::Observed;
use crate::words::{Author, Claim, Policy, Process, SessionId};

/// As [`super::Resolver::author`].
pub(super) fn author(
    defaults: &Claim,
    session: &SessionId,
    opener: &Observed,
    writers: &[Observed],
) -> (Author, Option<Policy>) {
    let last = writers.last().unwrap_or(opener);
    // Each is one process's whole set: mixed from two, it would name a writer that nobody declared.
    let declared = [&last.own, &opener.own, &last.inherited, &opener.inherited, defaults];
    let claim = declared.into_iter().find(|claim| !claim.is_empty()).unwrap_or(defaults);
    let author = Author {
        writer: claim.writer(session),
        process: last.process.clone(),
        others: others(last.process.as_ref(), opener, writers),
    };
    (author, last.policy.or(opener.policy))
}

/// The other processes that took part, the opener first, each once and as it was seen last.
fn others(last: Option<&Process>, opener: &Observed, writers: &[Observed]) -> Vec<Process> {
    let mut others: Vec<Process> = Vec::new();
    for process in std::iter::once(opener).chain(writers).filter_map(|seen| seen.process.as_ref()) {
        if last.is_some_and(|last| is_same(last, process)) {
            continue;
        }
        match others.iter_mut().find(|known| is_same(known, process)) {
            Some(known) => *known = process.clone(),
            None => others.push(process.clone()),
        }
    }
    others
}

/// The same process, though it may have exec'd in between.
fn is_same(a: &Process, b: &Process) -> bool {
    a.pid == b.pid && (a.start_ticks == b.start_ticks || a.start_ticks.is_none() || b.start_ticks.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(writer: &str) -> Claim {
        Claim { writer_id: (!writer.is_empty()).then(|| writer.to_owned()), ..Claim::default() }
    }

    fn seen(pid: u32, own: &str, inherited: &str) -> Observed {
        let process = Some(Process { pid, start_ticks: Some(1), ..Process::default() });
        Observed { process, own: claim(own), inherited: claim(inherited), ..Observed::default() }
    }

    fn who(defaults: &str, opener: &Observed, writers: &[Observed]) -> Author {
        author(&claim(defaults), &SessionId::parse("s").unwrap(), opener, writers).0
    }

    fn writer_id(defaults: &str, opener: &Observed, writers: &[Observed]) -> String {
        who(defaults, opener, writers).writer.writer_id.unwrap()
    }

    #[test]
    fn the_first_that_answers_is_the_writer() {
        let opener = seen(1, "opener", "above-opener");
        let writers = [seen(2, "earlier", "x"), seen(3, "last", "above-last")];
        assert_eq!(writer_id("mount", &opener, &writers), "last");
        let writers = [seen(2, "earlier", "x"), seen(3, "", "above-last")];
        assert_eq!(writer_id("mount", &opener, &writers), "opener");
        let opener = seen(1, "", "above-opener");
        assert_eq!(writer_id("mount", &opener, &writers), "above-last");
        let writers = [seen(2, "earlier", "x"), seen(3, "", "")];
        assert_eq!(writer_id("mount", &opener, &writers), "above-opener");
        let opener = seen(1, "", "");
        assert_eq!(writer_id("mount", &opener, &writers), "mount");
        assert_eq!(writer_id("", &opener, &writers), "s");
    }

    #[test]
    fn a_set_is_never_mixed_from_two_processes() {
        let mut opener = seen(1, "opener", "");
        opener.own.stage_id = Some("build".to_owned());
        let mut last = seen(2, "", "");
        last.own.worker_id = Some("k".to_owned());
        let writer = who("mount", &opener, &[last]).writer;
        assert_eq!((writer.writer_id.as_deref(), writer.stage_id.as_deref()), (Some("k"), Some("k")));
    }

    #[test]
    fn without_a_write_the_opener_is_the_author() {
        let made = who("", &seen(1, "opener", ""), &[]);
        assert_eq!(made.writer.writer_id.as_deref(), Some("opener"));
        assert_eq!(made.process.map(|p| p.pid), Some(1));
        assert!(made.others.is_empty());
    }

    #[test]
    fn everyone_who_took_part_is_named_once() {
        let writers = [seen(2, "", ""), seen(1, "", ""), seen(2, "", ""), seen(4, "", ""), seen(3, "", "")];
        let made = who("", &seen(1, "", ""), &writers);
        assert_eq!(made.process.map(|p| p.pid), Some(3));
        assert_eq!(made.others.iter().map(|p| p.pid).collect::<Vec<_>>(), [1, 2, 4]);
    }

    #[test]
    fn an_opener_that_execs_the_writing_program_is_not_another_process() {
        let mut writer = seen(1, "", "");
        writer.process.as_mut().unwrap().comm = Some("cmd".to_owned());
        let made = who("", &seen(1, "", ""), &[writer]);
        assert_eq!(made.process.unwrap().comm.as_deref(), Some("cmd"));
        assert!(made.others.is_empty());
    }

    // W4
    #[test]
    fn a_reused_pid_is_another_process() {
        let mut writer = seen(1, "", "");
        writer.process.as_mut().unwrap().start_ticks = Some(2);
        assert_eq!(who("", &seen(1, "", ""), &[writer]).others.len(), 1);
    }

    // W4
    #[test]
    fn a_writer_that_could_not_be_seen_is_not_guessed() {
        let made = who("", &seen(1, "", ""), &[Observed::default()]);
        assert_eq!(made.process, None);
        assert_eq!(made.others.len(), 1);
    }

    #[test]
    fn the_policy_is_the_last_writers_else_the_openers() {
        let session = SessionId::parse("s").unwrap();
        let with = |policy| Observed { policy, ..Observed::default() };
        let of = |opener, last| author(&Claim::default(), &session, &with(opener), &[with(last)]).1;
        assert_eq!(of(Some(Policy::Error), Some(Policy::Warn)), Some(Policy::Warn));
        assert_eq!(of(Some(Policy::Error), None), Some(Policy::Error));
        assert_eq!(of(None, None), None);
    }
}

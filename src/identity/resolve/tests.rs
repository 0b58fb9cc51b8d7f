use std::sync::mpsc::channel;

use super::super::testing::Script;
use super::super::{IdentityError, Resolver, Who};
use super::*;
use crate::words::{ClaimError, UnknownPolicy};

/// Never reached: these processes are not in exec when they are looked at.
const LIMIT: Duration = Duration::from_secs(600);

fn eyes() -> Resolver {
    Resolver::new(Claim::default(), LIMIT)
}

fn see(tid: u32) -> Observed {
    eyes().observe(&Who::new(tid, 7, 8)).unwrap()
}

fn writer(claim: &Claim) -> Option<&str> {
    claim.writer_id.as_deref()
}

#[test]
fn what_a_process_was_given_is_its_own_claim() {
    let mut script = Script::start("echo 1; $w", &[("BATON_WRITER_ID", "w1"), ("BATON_CONFLICT_POLICY", "error")]);
    script.number();
    let seen = see(script.pid());
    assert_eq!(writer(&seen.own), Some("w1"));
    assert_eq!(seen.inherited, Claim::default());
    assert_eq!(seen.policy, Some(Policy::Error));
    assert!(seen.execed);
    let process = seen.process.unwrap();
    assert_eq!((process.pid, process.uid, process.gid), (script.pid(), Some(7), Some(8)));
    assert_eq!(process.comm.as_deref(), Some("sh"));
    assert!(process.exe.unwrap().starts_with('/'));
    assert!(process.start_ticks.unwrap() > 0);
}

#[test]
fn a_claim_made_for_one_command_is_its_own_and_not_its_shells() {
    let mut script = Script::start(r#"BATON_WRITER_ID=x sh -c 'echo $$; $w'; :"#, &[]);
    let inner = script.number();
    assert_ne!(inner, script.pid());
    assert_eq!(writer(&see(inner).own), Some("x"));
    assert!(see(script.pid()).own.is_empty());
}

#[test]
fn a_child_without_a_claim_has_its_nearest_ancestors() {
    let script =
        r#"BATON_WRITER_ID=near BATON_CONFLICT_POLICY=warn sh -c 'env -i w="$w" sh -c "echo \$\$; \$w"; :'; :"#;
    let mut script = Script::start(script, &[("BATON_WRITER_ID", "far"), ("BATON_STAGE_ID", "far")]);
    let seen = see(script.number());
    assert!(seen.own.is_empty());
    assert_eq!(writer(&seen.inherited), Some("near"));
    assert_eq!(seen.inherited.stage_id.as_deref(), Some("far"), "the near one was given that too");
    assert_eq!(seen.policy, Some(Policy::Warn));
}

#[test]
fn a_childs_claim_does_not_hide_an_ancestors_policy() {
    let script = r#"BATON_CONFLICT_POLICY=error sh -c 'env -i w="$w" BATON_WRITER_ID=c sh -c "echo \$\$; \$w"; :'; :"#;
    let mut script = Script::start(script, &[]);
    let seen = see(script.number());
    assert_eq!((writer(&seen.own), seen.policy), (Some("c"), Some(Policy::Error)));
}

#[test]
fn a_forked_shell_has_not_execed_and_has_its_shells_environment() {
    // `$PPID` of a program started in the subshell is the subshell's own id.
    let script = r#"exec 3<&0; (sh -c 'echo $PPID'; read x <&3; :) & wait"#;
    let mut script = Script::start(script, &[("BATON_WRITER_ID", "outer")]);
    let forked = script.number();
    assert_ne!(forked, script.pid());
    let seen = see(forked);
    assert!(!seen.execed);
    assert_eq!(writer(&seen.own), Some("outer"));
    assert!(see(script.pid()).execed);
}

#[test]
fn a_thread_is_seen_as_its_process() {
    let (said, heard) = channel();
    let (free, gate) = channel::<()>();
    let thread = std::thread::spawn(move || {
        said.send(rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()).unwrap();
        assert!(gate.recv().is_err());
    });
    let tid = heard.recv().unwrap();
    let seen = see(tid);
    drop(free);
    thread.join().unwrap();
    let process = seen.process.unwrap();
    assert_ne!(tid, process.pid);
    assert_eq!(process.pid, std::process::id());
    assert_eq!(process.start_ticks, see(std::process::id()).process.unwrap().start_ticks);
    assert!(seen.execed, "a thread has the mark of a fork, its process has not");
}

#[test]
fn nobody_is_seen_as_nothing() {
    assert_eq!(see(0), Observed::default());
    assert_eq!(see(u32::MAX), Observed::default());
    assert_eq!(eyes().environment_print(0), None);
}

#[test]
fn a_process_that_ended_declares_nothing() {
    let mut script = Script::start("echo 1; $w", &[("BATON_WRITER_ID", "w1")]);
    script.number();
    let pid = script.pid();
    script.let_go();
    assert_eq!(see(pid), Observed::default());
}

#[test]
fn what_cannot_be_used_is_said() {
    let mut script = Script::start("echo 1; $w", &[("BATON_CONFLICT_POLICY", "sometimes")]);
    script.number();
    let refused = eyes().observe(&Who::new(script.pid(), 0, 0));
    assert_eq!(refused, Err(IdentityError::Policy(UnknownPolicy("sometimes".to_owned()))));
}

#[test]
fn an_ancestors_bad_claim_hurts_only_who_needs_it() {
    let long = "x".repeat(300);
    let script = r#"env -i w="$w" sh -c 'echo $$; $w' & env -i w="$w" BATON_WRITER_ID=c sh -c 'echo $$; $w'; wait"#;
    // A shell's background children read from /dev/null, so the first one would not wait: it waits on our pipe by hand.
    let script = script.replacen("$w' &", "$w' <&3 &", 1);
    let mut script = Script::start(&format!("exec 3<&0; {script}"), &[("BATON_WRITER_ID", &long)]);
    let sights = [script.number(), script.number()].map(|pid| eyes().observe(&Who::new(pid, 0, 0)));
    let refused = sights.iter().filter(|sight| matches!(sight, Err(IdentityError::Claim(ClaimError::TooLong { .. }))));
    assert_eq!(refused.count(), 1);
    assert_eq!(sights.iter().filter(|sight| sight.is_ok()).count(), 1);
}

#[test]
fn an_exec_changes_the_print_and_nothing_else_does() {
    let script = r#"echo 1; read x; BATON_WRITER_ID=after exec sh -c 'echo 2; $w'"#;
    let mut script = Script::start(script, &[]);
    script.number();
    let eyes = eyes();
    let before = eyes.observe(&Who::new(script.pid(), 0, 0)).unwrap();
    assert_eq!(eyes.environment_print(script.pid()), Some(before.environment));
    assert_eq!(eyes.environment_print(script.pid()), Some(before.environment));
    script.say("go");
    script.number();
    let after = eyes.observe(&Who::new(script.pid(), 0, 0)).unwrap();
    assert_ne!(eyes.environment_print(script.pid()), Some(before.environment));
    assert_eq!(eyes.environment_print(script.pid()), Some(after.environment));
    assert_eq!(writer(&after.own), Some("after"));
}

#[test]
fn every_thread_has_the_print_of_its_process() {
    let eyes = eyes();
    let here = eyes.environment_print(rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned());
    assert!(here.is_some());
    assert_eq!(here, eyes.environment_print(std::process::id()));
}

#[test]
fn the_memory_of_parents_stays_small_and_right() {
    let remembered = Remembered::default();
    let parent = std::os::unix::process::parent_id();
    for _ in 0..3 {
        assert_eq!(remembered.of(parent), Ancestry::walk(parent));
    }
    assert_eq!(remembered.0.lock().unwrap().len(), 1);
    assert_eq!(remembered.of(0), Ancestry { claim: Ok(Claim::default()), policy: Ok(None) });
    assert_eq!(remembered.0.lock().unwrap().len(), 1);
}

//! Random scripts on the kernel that this runs on, and on emmu, compared step by step.
//!
//! A failure is shrunk, printed, and written as a script that `replay` takes. A difference counts
//! only if the kernel does the same thing each time: a decision by load or by chance is no fault.
//! The scripts are always the same; others with `EMMU_EXPLORE=1`, more with `PROPTEST_CASES`.
//! Standard error says which scripts cannot be recorded or compared here.
#![allow(unreachable_pub)]

mod advices;
mod draw;
mod kinds;
mod living;
mod stories;
mod themes;

use super::{drawn, skipped::skipped};
use draw::{Draw, Profile};
use emmu::{
    host::{Plan, Recording, record},
    replay::{Difference, Notice, Notified, Outcome, Parts, Replayed, Report, replay_parts},
};
use kinds::Kind;
use proptest::{
    prelude::*,
    test_runner::{TestCaseError, TestError, TestRunner},
};
use std::{fs, path::PathBuf};
use themes::Theme;

/// Scripts of each profile.
const CASES: u32 = 24;

/// What is missing where it is not compared.
const CANNOT: &str =
    "that takes root, /dev/kvm, tracefs, and a kernel of the release that is followed";

/// None: nothing can be recorded here, and why was said.
fn recorded(plan: &Plan) -> Option<Recording> {
    match record(plan) {
        Ok(recording) => Some(recording),
        Err(why) => {
            skipped(&format!("script {}", plan.name), &why.to_string());
            None
        }
    }
}

fn replayed(recording: &Recording) -> Replayed {
    replay_parts(&recording.script, recording.parts).expect("this thread works on nothing else")
}

/// The difference between this kernel and emmu, if the kernel stands by it.
fn difference(plan: &Plan) -> Option<(Recording, Replayed)> {
    let recording = recorded(plan)?;
    let done = replayed(&recording);
    let first = done.first.as_ref()?;
    let upto = |r: &Recording| {
        let steps = r.script.steps.iter().take_while(|s| s.line <= first.line);
        format!("{:?}", steps.collect::<Vec<_>>())
    };
    let steady =
        (0..2).all(|_| recorded(plan).is_some_and(|again| upto(&again) == upto(&recording)));
    if !steady {
        unsteady(&first.step.to_string());
    }
    steady.then_some((recording, done))
}

/// A difference that does not count.
fn unsteady(what: &str) {
    skipped(what, "the kernel does it differently each time");
}

/// Where a script that went another way is kept.
fn keep(recording: &Recording) -> PathBuf {
    let name = format!("{}.jsonl", recording.script.name);
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, recording.script.to_jsonl()).expect("the build's own folder");
    path
}

/// Says which parts are not compared here.
fn tell_missing(what: &str, parts: Parts) {
    let missing = Parts::all() - parts;
    if !missing.is_empty() {
        skipped(&format!("{what}: {missing:?}"), CANNOT);
    }
}

fn compare(profile: Profile) {
    // What is swapped is seen in the pages alone.
    let needed = match profile {
        Profile::Swap => Parts::PAGES,
        _ => Parts::empty(),
    };
    let plan = |draws: &[Draw]| draw::plan(profile, draws);
    compare_plans(&format!("{profile:?} scripts"), needed, plan);
}

/// Compares scripts that draws make, if these parts can be compared.
fn compare_plans(what: &str, needed: Parts, plan: impl Fn(&[Draw]) -> Plan) {
    // A plan of nothing tells that as well, and leaves the pool of huge pages alone.
    let lacks = |probe: Recording| !probe.parts.contains(needed);
    if !needed.is_empty() && recorded(&Plan::default()).is_some_and(lacks) {
        skipped(what, CANNOT);
        return;
    }
    let Some(probe) = recorded(&plan(&[])) else {
        return;
    };
    tell_missing(what, probe.parts);
    let mut runner = TestRunner::new(ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..drawn::config(CASES)
    });
    let scripts = prop::collection::vec(draw::draw(), 1..60);
    let run = runner.run(&scripts, |draws| match difference(&plan(&draws)) {
        Some((_, done)) => Err(TestCaseError::fail(
            Report::of(&done).expect("differs").to_string(),
        )),
        None => Ok(()),
    });
    if let Err(TestError::Fail(why, draws)) = run {
        let plan = plan(&draws);
        let kept = recorded(&plan).map(|r| keep(&r));
        panic!("{why}\nthe script is in {kept:?}");
    }
    run.unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn few_pages_with_many_neighbours() {
    compare(Profile::Dense);
}

#[test]
fn processes_that_share_and_unshare() {
    compare(Profile::Fork);
}

#[test]
fn files_cut_and_punched() {
    compare(Profile::Files);
}

#[test]
fn ends_and_holes_of_files_anywhere() {
    compare(Profile::Ends);
}

#[test]
fn pages_that_are_held_and_forced() {
    let off = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    if off.trim() != "0" {
        skipped("Holds scripts", "no io_uring");
        return;
    }
    compare(Profile::Holds);
}

#[test]
fn blocks_changed_and_passed_by() {
    compare(Profile::Blocks);
}

#[test]
fn bad_arguments() {
    compare(Profile::Errors);
}

#[test]
fn pages_pushed_out() {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    if swaps.lines().count() < 2 {
        skipped("Swap scripts", "no swap");
        return;
    }
    compare(Profile::Swap);
}

#[test]
fn huge_pages_of_a_pool() {
    compare_kind(Kind::Pool);
}

#[test]
fn segments_secrets_and_seals() {
    compare_kind(Kind::Segments);
}

#[test]
fn pages_that_a_handler_fills() {
    compare_kind(Kind::Filled);
}

#[test]
fn code_that_may_be_fetched_or_not() {
    compare_kind(Kind::Code);
}

#[test]
fn processes_that_reach_one_another() {
    compare_theme(Theme::Others);
}

#[test]
fn equal_pages_that_are_merged() {
    if daemons_may_work("Merged scripts") {
        compare_theme(Theme::Merged);
    }
}

#[test]
fn heaps_and_stacks_within_limits() {
    compare_theme(Theme::Placed);
}

#[test]
fn bytes_that_go_past_the_cache() {
    compare_theme(Theme::Direct);
}

#[test]
fn huge_pages_of_private_memory() {
    if daemons_may_work("Huge scripts") {
        compare_theme(Theme::Huge);
    }
}

/// Returns true if scripts may wait for daemons of the kernel. These run when nothing else wants
/// to, so what load there is would decide how long a test takes.
fn daemons_may_work(what: &str) -> bool {
    let may = drawn::explores();
    if !may {
        skipped(what, "the kernel's daemons work in an exploration alone");
    }
    may
}

/// Compares scripts of a theme; what these calls do depends on privileges and releases.
fn compare_theme(theme: Theme) {
    let needed = Parts::LAYOUTS | Parts::PAGES;
    let plan = |draws: &[Draw]| themes::plan(theme, draws);
    compare_plans(&format!("{theme:?} scripts"), needed, plan);
}

/// Compares scripts of a kind of memory; what these calls do depends on privileges and releases.
fn compare_kind(kind: Kind) {
    let needed = Parts::LAYOUTS | Parts::PAGES;
    let plan = |draws: &[Draw]| kinds::plan(kind, draws);
    compare_plans(&format!("{kind:?} scripts"), needed, plan);
}

/// A recording that is changed in one place differs there, in that part, and only if that part is
/// compared.
#[test]
fn each_part_is_compared() {
    let plan = draw::story();
    let Some(recording) = recorded(&plan) else {
        return;
    };
    let recording = match difference(&plan) {
        Some((_, done)) => panic!("{}", Report::of(&done).expect("differs")),
        None if replayed(&recording).is_whole() => recording,
        None => return unsteady("a recording that is changed in one place"),
    };
    let last = recording.script.steps.len() - 1;
    let changed = |part, change: fn(&mut emmu::replay::Step)| {
        let mut other = recording.clone();
        change(&mut other.script.steps[last]);
        let with = replay_parts(&other.script, part).expect("a thread of its own");
        let without = replay_parts(&other.script, Parts::all() - part).expect("the same");
        assert!(!recording.parts.is_all() || without.is_whole());
        with.first.expect("differs").difference
    };
    let outcome = changed(Parts::OUTCOMES, |s| s.outcome = Outcome::Ret(77));
    assert!(matches!(outcome, Difference::Outcome(_)));
    let windows = changed(Parts::WINDOWS, |s| {
        s.notified.push(Notified {
            notice: Notice::Unmap,
            start: 0,
            end: 4096,
        });
    });
    assert!(matches!(windows, Difference::Windows(_)));
    let layout = changed(Parts::LAYOUTS, |s| {
        s.layouts.insert(0, Vec::new());
    });
    assert!(matches!(layout, Difference::Layout { process: 0, .. }));
    let pages = changed(Parts::PAGES, |s| s.pages = Some(Default::default()));
    assert!(matches!(pages, Difference::Pages(_)));
}

//! Running a world in many schedules, replaying one, and twins that must be found.
//!
//! `EMMU_SCHEDULES` says how many are drawn, `EMMU_STRIDE=1` that a sweep leaves nothing out. A
//! failing one is printed as a string, with the command that runs it alone. `EMMU_MISTAKE` makes a
//! device make a mistake.

use crate::sweep::Sweep;
use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler},
};
use std::{
    cell::Cell,
    env, panic,
    process::Command,
    sync::{Arc, Once},
    thread,
    time::Instant,
};

/// How schedules are chosen.
#[derive(Clone, Copy)]
pub(crate) enum How {
    /// Every one with one change, of that many tasks; of the last but one, at each so many of its
    /// steps.
    Sweep(usize, usize),
    /// That many, if not asked otherwise.
    Random(usize),
    /// The same, by PCT of depth 3: with two changes.
    Pct(usize),
}

fn asked(var: &str, otherwise: usize) -> usize {
    let number = |n: String| n.parse().unwrap_or_else(|_| panic!("{var}={n}: a number"));
    env::var(var).map_or(otherwise, number)
}

/// Which mistake was asked for.
pub(crate) fn mistake() -> Option<String> {
    env::var("EMMU_MISTAKE").ok()
}

thread_local!(static COUNT: Cell<usize> = const { Cell::new(0) });

/// Who panics says which schedule it was, and how to run it again. Shuttle's own hook, which prints
/// the schedule, is put before this one.
fn tell_which() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let otherwise = panic::take_hook();
        panic::set_hook(Box::new(move |why| {
            let nth = COUNT.get();
            if let Some(test) = thread::current().name().filter(|_| nth > 0) {
                let mistake = mistake().map_or_else(String::new, |m| format!("EMMU_MISTAKE={m} "));
                eprintln!(
                    "{test}: failed in schedule {nth}; again: \
                     {mistake}EMMU_TEST={test} EMMU_REPLAY=(the string above) .ci/run shuttle"
                );
            }
            otherwise(why);
        }));
    });
}

/// Runs a world in schedules that are chosen in these ways, or in the one that is asked for.
pub(crate) fn explore(hows: &[How], world: impl Fn() + Send + Sync + 'static) {
    tell_which();
    let name = thread::current().name().expect("a test").to_owned();
    let world = Arc::new(world);
    let go = |what: &str, scheduler: Box<dyn Scheduler + Send>| {
        let mut config = Config::new();
        config.stack_size = 1 << 20;
        config.silence_warnings = true;
        let (world, began) = (Arc::clone(&world), Instant::now());
        COUNT.set(0);
        let done = Runner::new(scheduler, config).run(move || {
            COUNT.set(COUNT.get() + 1);
            world();
        });
        COUNT.set(0);
        let time = began.elapsed();
        eprintln!("{name}: {done} schedules {what}, {time:.1?}");
    };
    if let Ok(schedule) = env::var("EMMU_REPLAY") {
        return go(
            "replayed",
            Box::new(ReplayScheduler::new_from_encoded(schedule.trim())),
        );
    }
    for how in hows {
        match *how {
            How::Sweep(tasks, stride) => {
                go(
                    "with one change",
                    Box::new(Sweep::over(tasks, asked("EMMU_STRIDE", stride))),
                );
            }
            How::Random(n) => go(
                "at random",
                Box::new(RandomScheduler::new_from_seed(
                    1,
                    asked("EMMU_SCHEDULES", n),
                )),
            ),
            How::Pct(n) => go(
                "by PCT",
                Box::new(PctScheduler::new_from_seed(
                    1,
                    3,
                    asked("EMMU_SCHEDULES", n),
                )),
            ),
        }
    }
}

/// Runs a test of this program in a process of its own, with these variables; what it printed, and
/// whether it passed.
fn run(test: &str, vars: &[(&str, &str)]) -> (String, bool) {
    let done = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env_remove("EMMU_REPLAY")
        .env("RUST_BACKTRACE", "0")
        .envs(vars.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    (text, done.status.success())
}

/// The schedule, and where and why it failed: what the panicking task said first.
fn failure(text: &str) -> (&str, &str) {
    let begin = text.split_once("failing schedule:\n\"\n");
    let (_, rest) = begin.unwrap_or_else(|| panic!("no schedule in:\n{text}"));
    let (schedule, rest) = rest.split_once("\n\"\n").expect("the end of it");
    let (_, why) = rest.split_once("panicked at ").expect("a panic");
    (schedule, why.split("\nnote:").next().expect("the first"))
}

/// A twin: with the mistake the test fails, for the reason that it must, but not in its first
/// schedule; and the string that is printed, run in another process, fails at the same place with
/// the same words.
pub(crate) fn must_fail(test: &str, mistake: &str, why: &str) {
    let alone = ["EMMU_REPLAY", "EMMU_MISTAKE"];
    if alone.iter().any(|var| env::var_os(var).is_some()) {
        return;
    }
    let wrong = ("EMMU_MISTAKE", mistake);
    let (found, passed) = run(test, &[wrong]);
    assert!(!passed, "{test}, {mistake}: not found\n{found}");
    let (schedule, said) = failure(&found);
    assert!(
        said.contains(why),
        "{test}, {mistake}: found something else: {said}"
    );
    assert!(
        !found.contains("failed in schedule 1;"),
        "{test}, {mistake}: needs no schedule: {said}"
    );
    let (again, passed) = run(test, &[wrong, ("EMMU_REPLAY", schedule)]);
    assert!(!passed, "{test}, {mistake}: the replay passes");
    assert_eq!(
        failure(&again).1,
        said,
        "{test}, {mistake}: another failure"
    );
    let nth = found
        .split_once("failed in schedule ")
        .and_then(|(_, n)| n.split_once(';'));
    let (nth, _) = nth.unwrap_or_else(|| panic!("which one? {found}"));
    eprintln!("{test}, {mistake}: found in schedule {nth}: {said}");
}

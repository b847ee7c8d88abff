//! Plans that cannot be recorded are refused before the first step.

use super::{
    ARENA, MAX_PROCESSES,
    call::request,
    daemons, files,
    opened::Opened,
    others::{self, MOST_RANGES},
    plan::{Plan, Unavailable},
    special::Special,
};
use crate::{
    addr::PAGE_SIZE,
    replay::{Answer, Copy, FaultLoad, FaultStore, Op, OpenPath, Resolve},
};
use std::collections::BTreeSet;

/// Refuses an impossible plan before its first step.
pub(super) fn check(plan: &Plan) -> Result<(), Unavailable> {
    let refuse = |nth, why| Err(Unavailable::Step { nth, why });
    if plan.files.values().any(|f| !files::is_known(f.kind)) {
        return refuse(0, "files of that kind cannot be made here");
    }
    if !plan.files.keys().all(|name| files::can_be_named(name)) {
        return refuse(0, "a name of a file that no layout shows");
    }
    let is_heap = |at: &u64| ARENA.contains(at) && at.is_multiple_of(PAGE_SIZE);
    if !plan.heap.iter().all(is_heap) {
        return refuse(0, "a heap that does not begin at a page of the arena");
    }
    let mut opened = BTreeSet::new();
    let mut threads = BTreeSet::new();
    for (nth, (actor, op)) in plan.steps.iter().enumerate() {
        let is_open = |name: &str| {
            plan.files.contains_key(name) || plan.opens.contains_key(name) || opened.contains(name)
        };
        if let Some(why) = refused(op, is_open) {
            return refuse(nth, why);
        }
        match op {
            Op::Open(OpenPath { name, .. }) | Op::BadFd { name, .. } => {
                if plan.files.contains_key(name) || plan.opens.contains_key(name) {
                    return refuse(nth, "a name that a file of the plan has");
                }
                opened.insert(name.as_str());
            }
            Op::Thread { thread } => {
                threads.insert(*thread);
            }
            Op::Exit {} if threads.contains(actor) => {
                return refuse(nth, "a thread exits with its process");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns the reason if an operation cannot be recorded.
fn refused(op: &Op, is_open: impl Fn(&str) -> bool) -> Option<&'static str> {
    Some(match op {
        Op::Reclaim {} => "reclaim needs a control group",
        Op::Shrink { .. } | Op::Migrate { .. } | Op::Merge {} => "no kernel can be asked for it",
        Op::Fork { child: new } | Op::Thread { thread: new } if *new >= MAX_PROCESSES => {
            "too many processes"
        }
        Op::Exec { addr } if !ARENA.contains(addr) => "a jump to an address outside of the arena",
        Op::ExitAndReap { target: 0 } => "process 0 has the notifier",
        Op::Open(of) if !Opened::can_be(of) => "a file that the plan must leave alone",
        Op::ProcessMadvise { iov, .. } | Op::SelfProcessMadvise { iov, .. }
            if iov.len() > MOST_RANGES =>
        {
            "more ranges than a process keeps"
        }
        op if !can_answer(op) => "an answer that the recorder cannot give",
        op if op.refused().is_some() => "an operation that no script can have",
        op if !is_own(op) && request(op, None).is_none() => {
            "an operation that only other recorders do"
        }
        op if op.file().is_some_and(|name| !is_open(name)) => "a file that is not in the plan",
        _ => return None,
    })
}

/// Returns true for an operation that the recorder does, not a process alone.
fn is_own(op: &Op) -> bool {
    let with_proc = matches!(
        op,
        Op::Fork { .. }
            | Op::Exit {}
            | Op::Thread { .. }
            | Op::MemRead { .. }
            | Op::MemWrite { .. }
            | Op::Rlimit { .. }
            | Op::Open(_)
            | Op::BadFd { .. }
            | Op::DirectWrite { .. }
    );
    let by_others = others::is_of(op) || daemons::is_of(op);
    with_proc || by_others || Special::is_of(op) || op.has_results()
}

/// Returns false for a copy that is too long, and for a move of pages by a process that waits.
fn can_answer(op: &Op) -> bool {
    let short = |call: &Answer| !matches!(call, Answer::UffdCopy(c) if c.len > Copy::MOST);
    let stays = |call: &Answer| !matches!(call, Answer::UffdMove(_));
    match op {
        Op::FaultLoad(FaultLoad { resolve, .. }) | Op::FaultStore(FaultStore { resolve, .. }) => {
            resolve.iter().all(|Resolve(c)| short(c) && stays(c))
        }
        other => Answer::of(other).is_none_or(|call| short(&call)),
    }
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::{
        addr::PAGE_SIZE,
        host::{ARENA, Plan, Unavailable},
        replay::{FileKind, FileSpec, Hex, Op, OpenPath},
    };

    fn why(plan: &Plan) -> Option<(usize, &'static str)> {
        match check(plan) {
            Ok(()) => None,
            Err(Unavailable::Step { nth, why }) => Some((nth, why)),
            Err(other) => panic!("{other}"),
        }
    }
    fn of(steps: Vec<(u32, Op)>) -> Plan {
        Plan {
            steps,
            ..Plan::default()
        }
    }
    fn open(path: &str, mode: u32) -> Op {
        let (path, name) = (path.to_owned(), "x".to_owned());
        Op::Open(OpenPath { path, mode, name })
    }

    #[test]
    fn names_that_no_layout_shows_are_refused() {
        for (name, is_good) in [
            ("f0", true),
            ("a-b_c.d", true),
            ("anon:x", false),
            ("zero", false),
            ("a b", false),
            ("a@b", false),
            ("a/b", false),
            ("", false),
        ] {
            let spec = FileSpec {
                size: PAGE_SIZE,
                kind: FileKind::Memfd,
            };
            let mut plan = Plan::default();
            plan.files.insert(name.to_owned(), spec);
            assert_eq!(why(&plan).is_none(), is_good, "{name:?}");
        }
    }

    #[test]
    fn files_of_the_machine_are_left_as_they_are() {
        for (path, mode, is_good) in [
            ("/etc/hostname", 0, true),
            ("/dev/zero", 2, true),
            ("/dev/null", 1, true),
            ("/etc/hostname", 2, false),
            ("/dev/zero", 0o102, false),
            ("hostname", 0, false),
            ("/a@b", 0, false),
        ] {
            let plan = of(vec![(0, open(path, mode))]);
            assert_eq!(why(&plan).is_none(), is_good, "{path} {mode:o}");
        }
        let pread = |file: &str| Op::Pread {
            file: file.to_owned(),
            off: 0,
        };
        let opened = of(vec![(0, open("/etc/hostname", 0)), (0, pread("x"))]);
        assert_eq!(why(&opened), None);
        let before = of(vec![(0, pread("x")), (0, open("/etc/hostname", 0))]);
        assert_eq!(why(&before), Some((0, "a file that is not in the plan")));
    }

    #[test]
    fn what_no_process_can_be_asked_is_refused() {
        let thread = Op::Thread { thread: 1 };
        let advice = |n| Op::SelfProcessMadvise {
            iov: vec![(Hex(ARENA.start), PAGE_SIZE); n],
            advice: crate::mm::Advice::Cold,
        };
        assert_eq!(why(&of(vec![(0, thread.clone()), (0, advice(32))])), None);
        for (steps, nth) in [
            (vec![(0, thread), (1, Op::Exit {})], 1),
            (vec![(0, advice(33))], 0),
            (vec![(0, Op::ExitAndReap { target: 0 })], 0),
            (vec![(0, Op::Thread { thread: 8 })], 0),
            (
                vec![(
                    0,
                    Op::Mincore {
                        addr: ARENA.start,
                        len: 65 * PAGE_SIZE,
                    },
                )],
                0,
            ),
        ] {
            let plan = of(steps);
            assert_eq!(why(&plan).map(|w| w.0), Some(nth), "{plan:?}");
        }
        for (start, is_good) in [
            (ARENA.start, true),
            (ARENA.start + 1, false),
            (ARENA.end, false),
        ] {
            let plan = Plan {
                heap: Some(start),
                ..Plan::default()
            };
            assert_eq!(why(&plan).is_none(), is_good, "{start:#x}");
        }
    }
}

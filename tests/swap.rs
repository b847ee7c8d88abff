//! Pages out and in again: under forks, by advice and by pressure, and with a device that is full.

mod common;

use common::{PAGE, RW, World, at, objects::swapping};
use emmu::{Mm, mm::Advice};
use proptest::prelude::*;
use std::sync::Arc;

/// Pages of the memory that is shared by forks.
const PAGES: u64 = 12;

#[derive(Clone, Debug)]
enum Step {
    Store(usize, u64, u8),
    Out(usize, u64, u64),
    Free(usize, u64),
    Reclaim,
    Shrink(u64),
    Fork(usize),
    Exit(usize),
    Migrate(usize, u64),
    Discard(usize, u64),
    Merge,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (who, page) = (0..6_usize, 0..PAGES);
    let one = (who.clone(), page.clone());
    let step = prop_oneof![
        6 => (who.clone(), page.clone(), 1..255_u8).prop_map(|(w, p, b)| Step::Store(w, p, b)),
        3 => (who.clone(), page, 1..5_u64).prop_map(|(w, p, n)| Step::Out(w, p, n)),
        1 => one.clone().prop_map(|(w, p)| Step::Free(w, p)),
        2 => Just(Step::Reclaim),
        1 => (1..9_u64).prop_map(Step::Shrink),
        2 => who.clone().prop_map(Step::Fork),
        1 => who.prop_map(Step::Exit),
        1 => one.clone().prop_map(|(w, p)| Step::Migrate(w, p)),
        1 => one.prop_map(|(w, p)| Step::Discard(w, p)),
        1 => Just(Step::Merge),
    ];
    prop::collection::vec(step, 1..60)
}

/// A process and what its pages must read; more than one value where a lazily freed page may be gone.
struct Process {
    mm: Arc<Mm>,
    bytes: [(u8, bool); PAGES as usize],
}

fn merge_all(w: &mut World, family: &[Process]) {
    let all = family
        .iter()
        .flat_map(|f| (0..PAGES).map(|p| (&*f.mm, at(p))));
    let pages: Vec<_> = all.collect();
    w.machine.merge(&mut w.thread.cx(), &pages);
}

fn act(w: &mut World, family: &mut Vec<Process>, step: &Step) {
    let n = family.len();
    match *step {
        Step::Store(who, p, b) => {
            let proc = &mut family[who % n];
            w.inside(&proc.mm, |w| w.put(p, b));
            proc.bytes[p as usize] = (b, false);
        }
        Step::Out(who, p, len) => {
            let mm = family[who % n].mm.clone();
            w.inside(&mm, |w| {
                w.advise(p, len.min(PAGES - p), Advice::PageOut).unwrap()
            });
        }
        Step::Free(who, p) => {
            let proc = &mut family[who % n];
            w.inside(&proc.mm, |w| w.advise(p, 1, Advice::Free).unwrap());
            proc.bytes[p as usize].1 = true;
        }
        Step::Reclaim => {
            w.machine.reclaim(&mut w.thread.cx());
        }
        Step::Shrink(n) => {
            w.machine.shrink(&mut w.thread.cx(), n);
        }
        Step::Fork(who) if n < 6 => {
            let (mm, bytes) = (family[who % n].mm.clone(), family[who % n].bytes);
            let mm = w.inside(&mm, World::fork);
            family.push(Process { mm, bytes });
        }
        Step::Exit(who) if n > 1 && who % n > 0 => {
            let gone = family.remove(who % n);
            w.reap(&gone.mm);
        }
        Step::Migrate(who, p) => {
            let mm = family[who % n].mm.clone();
            mm.migrate(&mut w.thread.cx(), at(p)).unwrap();
        }
        Step::Discard(who, p) => {
            let proc = &mut family[who % n];
            w.inside(&proc.mm, |w| w.advise(p, 1, Advice::DontNeed).unwrap());
            proc.bytes[p as usize] = (0, false);
        }
        Step::Merge => merge_all(w, family),
        Step::Fork(_) | Step::Exit(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn every_byte_is_kept(steps in steps()) {
        let mut w = swapping(1024, 256);
        w.map(0, PAGES, RW);
        let mut family = vec![Process { mm: w.mm.clone(), bytes: [(0, false); PAGES as usize] }];
        for step in &steps {
            act(&mut w, &mut family, step);
            for (nr, proc) in family.iter().enumerate() {
                w.inside(&proc.mm, World::check_rmap);
                // Every other step without a look, so that pages stay out.
                if matches!(step, Step::Out(..) | Step::Reclaim) {
                    continue;
                }
                for p in 0..PAGES {
                    let (byte, freed) = proc.bytes[p as usize];
                    let seen = w.inside(&proc.mm, |w| w.get(p)).unwrap();
                    prop_assert!(seen == byte || (freed && seen == 0), "process {} page {}: {} for {} after {:?}", nr, p, seen, byte, step);
                }
            }
        }
        for proc in family.drain(1..) {
            w.reap(&proc.mm);
        }
        drop(family);
        let machine = w.machine.clone();
        w.end();
        prop_assert_eq!((machine.mem().swap().used(), machine.mem().swap().cached()), (0, 0));
    }
}

#[test]
fn a_full_device_keeps_pages_in_memory() {
    let mut w = swapping(64, 2);
    w.map(0, 4, RW);
    (0..4).for_each(|n| w.put(n, n as u8 + 1));
    w.advise(0, 4, Advice::PageOut).unwrap();
    assert_eq!(w.machine.mem().swap().used(), 2);
    assert_eq!([0, 1, 2, 3].map(|n| w.get(n).unwrap()), [1, 2, 3, 4]);
    w.end();
}

#[test]
fn sharers_of_a_slot_share_the_frame_again() {
    let mut w = swapping(64, 64);
    w.map(0, 1, RW);
    w.put(0, 7);
    let child = w.fork();
    w.machine.reclaim(&mut w.thread.cx());
    let used = w.machine.mem().in_use();
    assert_eq!(w.get(0), Ok(7));
    assert_eq!(w.inside(&child, |w| w.get(0)), Ok(7));
    assert_eq!(w.machine.mem().in_use(), used + 1);
    w.put(0, 8);
    assert_eq!(w.inside(&child, |w| w.get(0)), Ok(7));
    w.reap(&child);
    w.end();
}

#[test]
fn locked_memory_stays() {
    let mut w = swapping(64, 64);
    w.map(0, 4, RW);
    w.fill(0, 4);
    w.lock(0, 2).unwrap();
    w.told();
    assert_eq!(w.machine.reclaim(&mut w.thread.cx()), 2);
    assert!(w.advise(0, 1, Advice::PageOut).is_err());
    w.unlock(0, 2).unwrap();
    w.advise(0, 2, Advice::PageOut).unwrap();
    assert_eq!(w.machine.mem().in_use(), 0);
}

#[test]
fn lazily_freed_pages_go_unless_written_again() {
    let mut w = swapping(64, 64);
    w.map(0, 2, RW);
    w.fill(0, 2);
    w.advise(0, 2, Advice::Free).unwrap();
    w.put(1, 5);
    w.machine.reclaim(&mut w.thread.cx());
    assert_eq!((w.get(0), w.get(1)), (Ok(0), Ok(5)));
    assert_eq!(PAGE, 4096);
}

//! A fork that shares tables comes out as one that copies them: results, windows, entries, counts,
//! and nothing left.

use crate::common::{BASE, PAGE, RW, World, at};
use emmu::{
    Contents, Machine, MachineConfig, MemConfig, Mm,
    addr::{Vpn, VpnRange},
    extmmu::Recorder,
    frame::FrameFlags,
    mm::{Advice, ForkMode, MmapArgs, MremapArgs, MremapFlags, PageState, Prot},
    notifier::{AgeKind, Registration},
};
use proptest::prelude::*;
use std::{fmt::Write as _, sync::Arc};

fn config(fork: ForkMode) -> MachineConfig {
    MachineConfig {
        memory: MemConfig {
            frames: 1 << 14,
            swap: 1 << 12,
            contents: Contents::Real,
        },
        fork,
        ..MachineConfig::default()
    }
}

/// Pages of a leaf.
const LEAF: u64 = 512;
/// Leaves that operations name.
const LEAVES: u64 = 4;

fn page(n: u64) -> VpnRange {
    VpnRange::single(Vpn(BASE / PAGE + n))
}

/// What is done by one of the processes. Pages are few to a leaf, so that operations meet.
#[derive(Clone, Copy, Debug)]
struct Step {
    what: u8,
    who: u8,
    page: u64,
    len: u64,
    to: u64,
}

fn step() -> impl Strategy<Value = Step> {
    let page =
        || (0..LEAVES, 0_u64..4).prop_map(|(leaf, n)| leaf * LEAF + [0, 1, 300, 511][n as usize]);
    let len = prop_oneof![Just(1_u64), Just(2), Just(211), Just(LEAF), Just(2 * LEAF)];
    (0_u8..36, any::<u8>(), page(), len, page()).prop_map(|(what, who, page, len, to)| Step {
        what,
        who,
        page,
        len,
        to,
    })
}

struct Process {
    mm: Arc<Mm>,
    recorder: Arc<Recorder>,
    _registration: Registration,
}

/// A family, and what has been seen of it.
struct Family {
    machine: Arc<Machine>,
    thread: emmu::ctx::Thread,
    processes: Vec<Process>,
    seen: String,
}

impl Family {
    fn new(mode: ForkMode) -> Self {
        let machine = Machine::new(config(mode));
        let mut thread = machine.enter().expect("one machine a thread");
        let mm = Mm::new(&machine);
        let args = MmapArgs::anonymous(LEAVES * LEAF * PAGE).fixed(BASE);
        mm.mmap(&mut thread.cx(), &args).expect("mappable");
        let mut family = Self {
            machine,
            thread,
            processes: Vec::new(),
            seen: String::new(),
        };
        family.adopt(mm);
        family
    }
    fn adopt(&mut self, mm: Arc<Mm>) {
        let (recorder, registration) = mm.register(&mut self.thread.cx(), Recorder::new);
        self.processes.push(Process {
            mm,
            recorder,
            _registration: registration,
        });
    }
    fn see(&mut self, what: impl std::fmt::Debug) {
        writeln!(self.seen, "{what:?}").expect("a string takes all");
    }
    fn act(&mut self, step: Step) {
        let n = usize::from(step.who) % self.processes.len();
        let mm = Arc::clone(&self.processes[n].mm);
        self.see((step, n));
        match step.what {
            0..=4 if self.processes.len() < 5 => {
                let child = mm.fork(&mut self.thread.cx()).expect("there is memory");
                self.adopt(child);
            }
            5 if self.processes.len() > 1 => {
                let gone = self.processes.remove(n);
                gone.mm.exit(&mut self.thread.cx());
            }
            6..=8 => self.look(),
            _ => self.call(&mm, step),
        }
        self.told();
    }
    fn call(&mut self, mm: &Mm, step: Step) {
        let cx = &mut self.thread.cx();
        let (addr, len) = (at(step.page), step.len * PAGE);
        let advise = |cx: &mut _, advice| format!("{:?}", mm.madvise(cx, addr, len, advice));
        let came = match step.what {
            9..=14 => format!("{:?}", mm.store(cx, addr, step.len as u8)),
            15..=17 => format!("{:?}", mm.load(cx, addr)),
            18 => format!("{:?}", mm.munmap(cx, addr, len)),
            19 => format!("{:?}", mm.mprotect(cx, addr, len, Prot::READ)),
            20 => format!("{:?}", mm.mprotect(cx, addr, len, RW)),
            21 | 22 => {
                let args = MremapArgs {
                    addr,
                    old_len: len,
                    new_len: len,
                    flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
                    new_addr: at(step.to),
                };
                format!("{:?}", mm.mremap(cx, args))
            }
            23 => advise(cx, Advice::DontNeed),
            24 => advise(cx, Advice::Free),
            25 => advise(cx, Advice::Cold),
            26 => advise(cx, Advice::PageOut),
            27 => advise(cx, Advice::Collapse),
            28 => advise(cx, Advice::HugePage),
            29 => format!("{}", mm.age(cx, page(step.page), AgeKind::ClearFlush)),
            30 => format!("{:?}", mm.migrate(cx, addr)),
            31 => format!("{}", self.machine.reclaim_all(cx)),
            32 => format!("{:?}", mm.mincore(cx, addr, len)),
            33 => format!(
                "{:?} {:?}",
                mm.mlock(cx, addr, PAGE),
                mm.munlock(cx, addr, PAGE)
            ),
            34 => advise(cx, Advice::WipeOnFork),
            _ => {
                let args = MmapArgs::anonymous(len).fixed(addr);
                format!("{:?}", mm.mmap(cx, &args))
            }
        };
        self.see(came);
    }
    fn told(&mut self) {
        let told: Vec<_> = self.processes.iter().map(|p| p.recorder.take()).collect();
        self.see(told);
        self.see((
            self.machine.mem().in_use(),
            self.machine.mem().swap().used(),
        ));
    }
    /// Everything there is: entries, rights, counts, tables, VMAs.
    fn look(&mut self) {
        let all = VpnRange::new(Vpn(BASE / PAGE), Vpn(BASE / PAGE + (LEAVES + 2) * LEAF)).unwrap();
        let mem = Arc::clone(self.machine.mem());
        for n in 0..self.processes.len() {
            let mm = Arc::clone(&self.processes[n].mm);
            let mut cx = self.thread.cx();
            let lines: Vec<String> = mm.maps(&mut cx).iter().map(ToString::to_string).collect();
            let entries = mm.pagemap(&mut cx, all);
            let walker = mm.walker(&mut cx);
            let mut out = format!("{n}: {} tables\n{}\n", mm.tables(), lines.join("\n"));
            for (at, state) in entries {
                let counts = match state {
                    PageState::Anon(pfn) => Some((
                        mem.mapcount(pfn),
                        mem.refcount(pfn),
                        mem.flags(pfn) & FrameFlags::ANON_EXCLUSIVE,
                    )),
                    _ => None,
                };
                writeln!(out, "{at:?} {state:?} {:?} {counts:?}", walker.pte(at)).unwrap();
            }
            drop(walker);
            assert_eq!(mm.unreachable_pages(&mut cx), []);
            self.seen.push_str(&out);
        }
    }
    /// The processes end in the order that `dice` says.
    fn end(mut self, mut dice: usize) -> String {
        self.look();
        while !self.processes.is_empty() {
            let gone = self.processes.remove(dice % self.processes.len());
            dice /= 5;
            gone.mm.exit(&mut self.thread.cx());
            assert_eq!(gone.mm.tables(), 0);
            if !self.processes.is_empty() {
                self.look();
            }
        }
        assert_eq!(self.machine.mem().in_use(), 0, "frames are left");
        assert_eq!(self.machine.mem().swap().used(), 0, "slots are left");
        self.seen
    }
}

fn story(mode: ForkMode, steps: &[Step], dice: usize) -> String {
    let mut family = Family::new(mode);
    for &step in steps {
        family.act(step);
    }
    family.end(dice)
}

#[track_caller]
fn same(copied: &str, shared: &str) {
    let differing = copied.lines().zip(shared.lines()).position(|(a, b)| a != b);
    if let Some(n) = differing {
        let lines = |s: &str| {
            s.lines()
                .skip(n.saturating_sub(12))
                .take(14)
                .collect::<Vec<_>>()
                .join("\n")
        };
        panic!(
            "line {n}\ncopied:\n{}\nshared:\n{}",
            lines(copied),
            lines(shared)
        );
    }
    assert_eq!(copied.len(), shared.len());
}

proptest! {
    #![proptest_config(crate::drawn::config(256))]
    #[test]
    fn a_fork_that_shares_cannot_be_told_from_one_that_copies(
        steps in prop::collection::vec(step(), 1..60),
        dice in any::<usize>(),
    ) {
        same(&story(ForkMode::Copy, &steps, dice), &story(ForkMode::Share, &steps, dice));
    }
}

/// A parent with four leaves full of pages, and its world.
fn parent() -> World {
    let mut w = World::with(config(ForkMode::Share));
    w.map(0, LEAVES * LEAF, RW);
    w.fill(0, LEAVES * LEAF);
    w
}

#[test]
fn tables_are_shared_until_they_are_wanted() {
    let mut w = parent();
    let pfn = match w.mm.walker(&mut w.thread.cx()).pte(Vpn(BASE / PAGE)) {
        emmu::mm::Pte::Present { pfn, write: true } => pfn,
        other => panic!("{other:?}"),
    };
    let child = w.mm.fork(&mut w.thread.cx()).unwrap();
    let mem = Arc::clone(w.machine.mem());
    // Its number alone does not say who shares it yet: nothing was copied.
    assert_eq!(mem.mapcount(pfn), 1);
    let seen = |mm: &Mm, w: &mut World| mm.walker(&mut w.thread.cx()).pte(Vpn(BASE / PAGE));
    let protected = emmu::mm::Pte::Present { pfn, write: false };
    assert_eq!(
        (seen(&child, &mut w), child.tables()),
        (protected, w.mm.tables())
    );
    assert_eq!(seen(&Arc::clone(&w.mm), &mut w), protected);
    child.store(&mut w.thread.cx(), at(1), 7).unwrap();
    assert_eq!(mem.mapcount(pfn), 2);
    assert_eq!(
        (w.get(1), child.load(&mut w.thread.cx(), at(1))),
        (Ok(1), Ok(7))
    );
    child.exit(&mut w.thread.cx());
    assert_eq!(mem.mapcount(pfn), 1);
    w.end();
}

#[test]
fn a_table_that_cannot_be_had_changes_nothing() {
    let mut w = parent();
    let child = w.mm.fork(&mut w.thread.cx()).unwrap();
    let inject = |w: &World| Arc::clone(w.machine.mem());
    let mem = inject(&w);
    mem.inject().arm(1);
    let refused = child.store(&mut w.thread.cx(), at(5), 9);
    mem.inject().disarm();
    assert_eq!(refused.unwrap_err().errno(), emmu::Errno::ENOMEM);
    assert_eq!(
        (w.get(5), child.load(&mut w.thread.cx(), at(5))),
        (Ok(1), Ok(1))
    );
    child.store(&mut w.thread.cx(), at(5), 9).unwrap();
    assert_eq!(
        (w.get(5), child.load(&mut w.thread.cx(), at(5))),
        (Ok(1), Ok(9))
    );
    child.exit(&mut w.thread.cx());
    w.end();
}

/// Writers of a parent and two children, a reader, and a thread that forks and ends more.
#[test]
fn threads_of_all_sharers_want_it_at_once() {
    let mut w = parent();
    let rounds = if cfg!(debug_assertions) { 20 } else { 200 };
    for round in 0..rounds {
        let spaces = [
            Arc::clone(&w.mm),
            w.mm.fork(&mut w.thread.cx()).unwrap(),
            w.mm.fork(&mut w.thread.cx()).unwrap(),
        ];
        std::thread::scope(|s| {
            for (n, mm) in spaces.iter().enumerate() {
                let machine = &w.machine;
                s.spawn(move || {
                    let mut thread = machine.enter().unwrap();
                    for p in (0..LEAVES * LEAF).step_by(97) {
                        mm.store(&mut thread.cx(), at(p), n as u8 + 10).unwrap();
                        assert_eq!(mm.load(&mut thread.cx(), at(p)), Ok(n as u8 + 10));
                    }
                });
                s.spawn(move || {
                    let mut thread = machine.enter().unwrap();
                    let child = mm.fork(&mut thread.cx()).unwrap();
                    for p in (0..LEAVES * LEAF).step_by(97) {
                        let byte = child.load(&mut thread.cx(), at(p)).unwrap();
                        let own = n as u8 + 10;
                        assert!(
                            byte == own || byte < 10 || (round > 0 && byte == 10),
                            "{byte}"
                        );
                    }
                    child.exit(&mut thread.cx());
                });
            }
        });
        for child in &spaces[1..] {
            child.exit(&mut w.thread.cx());
        }
    }
    assert_eq!(w.machine.mem().in_use() as u64, LEAVES * LEAF);
    w.end();
}

#[cfg(feature = "replay")]
mod recorded {
    use emmu::{
        mm::ForkMode,
        replay::{replay_forking, shipped},
    };

    #[test]
    fn scripts_go_the_same_way() {
        for script in shipped().expect("the archive is whole") {
            let copied = replay_forking(&script, ForkMode::Copy).expect("no machine is in use");
            let shared = replay_forking(&script, ForkMode::Share).expect("no machine is in use");
            assert_eq!(format!("{copied:?}"), format!("{shared:?}"));
        }
    }
}

//! Random operations on a family of processes, against a model that knows nothing but pages: rights, contents, sharing.

mod common;

use common::{BASE, PAGE, World, at};
use emmu::{
    Errno, FaultError, Mm,
    addr::Pfn,
    mm::{Advice, MapFlags, MmapArgs, MremapArgs, MremapFlags, PageState, Prot, VmFlags},
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// Pages that operations name.
const ARENA: u64 = 40;

#[derive(Clone, Debug)]
enum Op {
    Map {
        from: u64,
        n: u64,
        prot: u8,
        shared: bool,
        replace: bool,
    },
    Unmap {
        from: u64,
        n: u64,
    },
    Protect {
        from: u64,
        n: u64,
        prot: u8,
    },
    Move {
        from: u64,
        n: u64,
        to: u64,
        keep: bool,
    },
    Resize {
        from: u64,
        old: u64,
        new: u64,
    },
    Advise {
        from: u64,
        n: u64,
        advice: Advice,
    },
    Store {
        page: u64,
        byte: u8,
    },
    Load {
        page: u64,
    },
    Fork,
    Exit,
    CheckAll,
}

fn op() -> impl Strategy<Value = (usize, Op)> {
    let (page, n, prot) = (0..ARENA, 1..9_u64, 0..4_u8);
    let advice = prop::sample::select(vec![
        Advice::DontNeed,
        Advice::Free,
        Advice::Cold,
        Advice::DontFork,
        Advice::DoFork,
        Advice::WipeOnFork,
        Advice::KeepOnFork,
        Advice::GuardInstall,
        Advice::GuardRemove,
    ]);
    let op = prop_oneof![
        4 => (page.clone(), n.clone(), prot.clone(), any::<bool>(), prop::bool::weighted(0.8))
            .prop_map(|(from, n, prot, shared, replace)| Op::Map { from, n, prot, shared, replace }),
        2 => (page.clone(), n.clone()).prop_map(|(from, n)| Op::Unmap { from, n }),
        3 => (page.clone(), n.clone(), prot).prop_map(|(from, n, prot)| Op::Protect { from, n, prot }),
        3 => (page.clone(), n.clone(), page.clone(), any::<bool>())
            .prop_map(|(from, n, to, keep)| Op::Move { from, n, to, keep }),
        2 => (page.clone(), n.clone(), n.clone())
            .prop_map(|(from, old, new)| Op::Resize { from, old, new }),
        3 => (page.clone(), n, advice).prop_map(|(from, n, advice)| Op::Advise { from, n, advice }),
        8 => (page.clone(), 1..=255_u8).prop_map(|(page, byte)| Op::Store { page, byte }),
        4 => page.prop_map(|page| Op::Load { page }),
        1 => Just(Op::Fork),
        1 => Just(Op::Exit),
        1 => Just(Op::CheckAll),
    ];
    (0..8_usize, op)
}

fn rights(prot: u8) -> Prot {
    [
        Prot::empty(),
        Prot::READ,
        common::RW,
        Prot::READ | Prot::EXEC,
    ][usize::from(prot)]
}

/// A page as the model sees it.
#[derive(Clone, Debug)]
struct Page {
    prot: Prot,
    /// Object and index in it; none: private.
    object: Option<(usize, u64)>,
    byte: u8,
    guard: bool,
    no_fork: bool,
    wipe: bool,
}

#[derive(Clone, Debug, Default)]
struct Object {
    pages: u64,
    bytes: BTreeMap<u64, u8>,
}

type Pages = BTreeMap<u64, Page>;

#[derive(Default)]
struct Model {
    objects: Vec<Object>,
    processes: Vec<Pages>,
}

impl Model {
    fn access(&mut self, who: usize, page: u64, write: Option<u8>) -> Result<u8, FaultError> {
        let addr = at(page);
        let p = self.processes[who]
            .get_mut(&page)
            .ok_or(FaultError::NotMapped(addr))?;
        let allowed = match write {
            Some(_) => p.prot.contains(Prot::WRITE),
            None => !p.prot.is_empty(),
        };
        if !allowed {
            return Err(FaultError::Denied(addr));
        }
        if p.guard {
            return Err(FaultError::Guarded(addr));
        }
        let cell = match p.object {
            None => &mut p.byte,
            Some((object, index)) => {
                let object = &mut self.objects[object];
                if index >= object.pages {
                    return Err(FaultError::Beyond(addr));
                }
                object.bytes.entry(index).or_default()
            }
        };
        *cell = write.unwrap_or(*cell);
        Ok(*cell)
    }
    fn map(&mut self, who: usize, (from, n): (u64, u64), prot: Prot, shared: bool) {
        let object = shared.then(|| {
            self.objects.push(Object {
                pages: n,
                ..Object::default()
            });
            self.objects.len() - 1
        });
        for i in 0..n {
            let page = Page {
                prot,
                object: object.map(|o| (o, i)),
                byte: 0,
                guard: false,
                no_fork: false,
                wipe: false,
            };
            self.processes[who].insert(from + i, page);
        }
    }
    fn advise(&mut self, who: usize, (from, n): (u64, u64), advice: Advice) -> Option<Errno> {
        let mut hole = None;
        for n in from..from + n {
            let Some(p) = self.processes[who].get_mut(&n) else {
                hole = Some(Errno::ENOMEM);
                continue;
            };
            let private = p.object.is_none();
            match advice {
                Advice::DontNeed => p.byte = 0,
                Advice::Free | Advice::WipeOnFork if !private => return Some(Errno::EINVAL),
                Advice::WipeOnFork => p.wipe = true,
                Advice::KeepOnFork => p.wipe = false,
                Advice::DontFork => p.no_fork = true,
                Advice::DoFork => p.no_fork = false,
                Advice::GuardInstall => (p.guard, p.byte) = (true, 0),
                Advice::GuardRemove => p.guard = false,
                // Free and Cold change nothing that is seen while there is memory.
                _ => {}
            }
        }
        hole
    }
    fn relocate(&mut self, who: usize, (from, n): (u64, u64), to: u64, keep: bool) {
        let pages = &mut self.processes[who];
        for i in 0..n {
            let Some(page) = pages.remove(&(from + i)) else {
                continue;
            };
            if keep {
                let left = Page {
                    byte: 0,
                    guard: false,
                    ..page.clone()
                };
                pages.insert(from + i, left);
            }
            pages.insert(to + i, page);
        }
    }
    fn fork(&mut self, who: usize) {
        let child = self.processes[who]
            .iter()
            .filter(|(_, p)| !p.no_fork)
            .map(|(n, p)| {
                let mut p = p.clone();
                if p.wipe {
                    (p.byte, p.guard) = (0, false);
                }
                (*n, p)
            })
            .collect();
        self.processes.push(child);
    }
}

/// The family on emmu, and what it should be.
struct Both {
    world: World,
    family: Vec<Arc<Mm>>,
    model: Model,
}

impl Both {
    fn new() -> Self {
        let world = World::new();
        let family = vec![Arc::clone(&world.mm)];
        let mut model = Model::default();
        model.processes.push(Pages::default());
        Self {
            world,
            family,
            model,
        }
    }

    fn run(&mut self, who: usize, op: &Op) {
        let who = who % self.family.len();
        let mm = Arc::clone(&self.family[who]);
        match *op {
            Op::Map { .. } => self.map(who, &mm, op),
            Op::Protect { from, n, prot } => self.protect(who, &mm, (from, n), rights(prot)),
            Op::Move { from, n, to, keep } => self.relocate(who, &mm, (from, n), (to, keep)),
            Op::Resize { from, old, new } => self.resize(who, &mm, from, (old, new)),
            Op::Unmap { from, n } => {
                let cx = &mut self.world.thread.cx();
                assert_eq!(mm.munmap(cx, at(from), n * PAGE), Ok(()));
                self.model.processes[who].retain(|p, _| !(from..from + n).contains(p));
            }
            Op::Advise { from, n, advice } => {
                let wanted = self.model.advise(who, (from, n), advice);
                let cx = &mut self.world.thread.cx();
                let got = mm.madvise(cx, at(from), n * PAGE, advice);
                assert_eq!(got.err().map(|e| e.errno()), wanted);
            }
            Op::Store { page, byte } => {
                let wanted = self.model.access(who, page, Some(byte)).map(|_| ());
                let cx = &mut self.world.thread.cx();
                assert_eq!(mm.store(cx, at(page), byte), wanted);
            }
            Op::Load { page } => {
                let wanted = self.model.access(who, page, None);
                assert_eq!(mm.load(&mut self.world.thread.cx(), at(page)), wanted);
            }
            Op::Fork if self.family.len() < 6 => {
                let child = mm.fork(&mut self.world.thread.cx());
                self.family.push(child.expect("enough memory"));
                self.model.fork(who);
            }
            Op::Exit if who > 0 => {
                mm.exit(&mut self.world.thread.cx());
                self.family.remove(who);
                self.model.processes.remove(who);
            }
            Op::Fork | Op::Exit => {}
            Op::CheckAll => self.check_contents(),
        }
    }

    fn map(&mut self, who: usize, mm: &Mm, op: &Op) {
        let Op::Map {
            from,
            n,
            prot,
            shared,
            replace,
        } = *op
        else {
            unreachable!("the caller matched")
        };
        let mut args = MmapArgs::anonymous(n * PAGE)
            .fixed(at(from))
            .prot(rights(prot));
        if shared {
            args = args.shared();
        }
        if !replace {
            args = args.with(MapFlags::FIXED_NOREPLACE);
        }
        let pages = &self.model.processes[who];
        let taken = (from..from + n).any(|p| pages.contains_key(&p));
        let got = mm.mmap(&mut self.world.thread.cx(), &args);
        let got = got.map_err(|e| e.errno());
        if taken && !replace {
            assert_eq!(got, Err(Errno::EEXIST));
        } else {
            assert_eq!(got, Ok(at(from)));
            self.model.map(who, (from, n), rights(prot), shared);
        }
    }
    fn protect(&mut self, who: usize, mm: &Mm, (from, n): (u64, u64), prot: Prot) {
        let pages = &mut self.model.processes[who];
        let end = (from..from + n).find(|p| !pages.contains_key(p));
        for p in from..end.unwrap_or(from + n) {
            pages.get_mut(&p).expect("mapped").prot = prot;
        }
        let got = mm.mprotect(&mut self.world.thread.cx(), at(from), n * PAGE, prot);
        assert_eq!(got.map_err(|e| e.errno()).err(), end.map(|_| Errno::ENOMEM));
    }
    fn relocate(&mut self, who: usize, mm: &Mm, (from, n): (u64, u64), (to, keep): (u64, bool)) {
        let mut flags = MremapFlags::MAYMOVE | MremapFlags::FIXED;
        flags.set(MremapFlags::DONTUNMAP, keep);
        let args = remap(from, n, n, flags, to);
        let got = mm.mremap(&mut self.world.thread.cx(), args);
        let got = got.map_err(|e| e.errno());
        if from < to + n && to < from + n {
            assert_eq!(got, Err(Errno::EINVAL));
        } else if self.model.processes[who].contains_key(&from) {
            assert_eq!(got, Ok(at(to)));
            self.model.relocate(who, (from, n), to, keep);
        } else {
            assert_eq!(got, Err(Errno::EFAULT));
        }
    }
    /// In place. Whether there is room depends on VMAs, of which the model knows nothing: emmu's word is taken, but it
    /// must not have grown over anything.
    fn resize(&mut self, who: usize, mm: &Mm, from: u64, (old, new): (u64, u64)) {
        let args = remap(from, old, new, MremapFlags::empty(), 0);
        let got = mm.mremap(&mut self.world.thread.cx(), args);
        let got = got.map_err(|e| e.errno());
        let pages = &mut self.model.processes[who];
        if !pages.contains_key(&from) {
            assert_eq!(got, Err(Errno::EFAULT));
        } else if new <= old {
            assert_eq!(got, Ok(at(from)));
            pages.retain(|p, _| !(from + new..from + old).contains(p));
        } else if got.is_ok() {
            let last = pages[&(from + old - 1)].clone();
            for i in 0..new - old {
                let more = Page {
                    byte: 0,
                    guard: false,
                    object: last.object.map(|(o, index)| (o, index + 1 + i)),
                    ..last.clone()
                };
                let was = pages.insert(from + old + i, more);
                assert!(was.is_none(), "grown over page {}", from + old + i);
            }
        }
    }

    /// Every page of every process, mapped or not.
    fn check_contents(&mut self) {
        for who in 0..self.family.len() {
            for page in 0..ARENA + 16 {
                let got = self.family[who].load(&mut self.world.thread.cx(), at(page));
                let wanted = self.model.access(who, page, None);
                assert_eq!(got, wanted, "process {who}, page {page}");
            }
        }
    }
    /// The VMAs cover the model's pages with their rights, and the counts of frames are those of the entries.
    fn check_shape(&mut self) {
        let cx = &mut self.world.thread.cx();
        let mut mapped = HashMap::new();
        for (mm, pages) in self.family.iter().zip(&self.model.processes) {
            let mut seen = BTreeMap::new();
            for line in mm.maps(cx) {
                for page in (line.start..line.end).step_by(PAGE as usize) {
                    let bits = Prot::from_bits_truncate(line.flags.bits() as u32 & 7);
                    seen.insert((page - BASE) / PAGE, bits);
                }
            }
            let wanted: BTreeMap<u64, Prot> = pages.iter().map(|(n, p)| (*n, p.prot)).collect();
            assert_eq!(seen, wanted);
            for (_, state) in mm.pagemap(cx, World::pages(0, ARENA + 16)) {
                match state {
                    PageState::Anon(pfn) => mapped.entry(pfn).or_insert((0, 0)).0 += 1,
                    // The object holds one reference more.
                    PageState::Object(pfn) => {
                        let counts = mapped.entry(pfn).or_insert((0, 1));
                        counts.0 += 1;
                    }
                    PageState::Zero | PageState::Guard | PageState::Swap => {}
                }
            }
        }
        self.check_accounts(&mapped);
        let mem = self.world.machine.mem();
        for (pfn, (maps, extra)) in mapped {
            assert_eq!(
                (mem.mapcount(pfn), mem.refcount(pfn)),
                (maps, maps + extra),
                "{pfn:?}"
            );
        }
    }
    /// Frames in use are those that some entry or some object holds; promised are the pages of accounted VMAs and of
    /// objects.
    fn check_accounts(&mut self, mapped: &HashMap<Pfn, (u32, u32)>) {
        let cx = &mut self.world.thread.cx();
        let pages = self.model.processes.iter().flat_map(BTreeMap::values);
        let alive: BTreeSet<usize> = pages.filter_map(|p| Some(p.object?.0)).collect();
        let objects = alive.iter().map(|&o| &self.model.objects[o]);
        let private = mapped.values().filter(|(_, held)| *held == 0).count();
        let resident: usize = objects.clone().map(|o| o.bytes.len()).sum();
        let in_use = self.world.machine.mem().in_use();
        assert_eq!(in_use as usize, private + resident, "frames in use");
        let accounted = |mm: &Arc<Mm>| -> u64 {
            let lines = mm.maps(cx).into_iter();
            let lines = lines.filter(|l| l.flags.contains(VmFlags::ACCOUNT));
            lines.map(|l| (l.end - l.start) / PAGE).sum()
        };
        let promised =
            self.family.iter().map(accounted).sum::<u64>() + objects.map(|o| o.pages).sum::<u64>();
        assert_eq!(self.world.machine.commit().pages(), promised as i64);
    }
    fn end(self) {
        let Self {
            mut world, family, ..
        } = self;
        for mm in family.iter().skip(1) {
            mm.exit(&mut world.thread.cx());
        }
        drop(family);
        world.end();
    }
}

fn remap(from: u64, old: u64, new: u64, flags: MremapFlags, to: u64) -> MremapArgs {
    MremapArgs {
        addr: at(from),
        old_len: old * PAGE,
        new_len: new * PAGE,
        flags,
        new_addr: at(to),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn results_and_contents_are_those_of_the_model(ops in prop::collection::vec(op(), 1..120)) {
        let mut both = Both::new();
        for (who, op) in &ops {
            both.run(*who, op);
            both.check_shape();
        }
        both.check_contents();
        both.end();
    }
}

//! Whatever is done, and however it ends, nothing is left: no frame, no table page, no promise.

use crate::common::{PAGE, RW, World, at, calls::remap};
use emmu::{
    Machine, MachineConfig, MemConfig, Mm, Overcommit,
    ctx::Thread,
    extmmu::Recorder,
    mm::{Advice, MapFlags, MlockallFlags, MmapArgs, MremapFlags, Prot, VmFlags},
    notifier::Registration,
};
use std::{collections::BTreeMap, ops::Range, sync::Arc};

/// A small generator, so that a failure is found again by its seed.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
    fn chance(&mut self, in_ten: u64) -> bool {
        self.roll(10) < in_ten
    }
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let i = self.roll(from.len() as u64);
        from[usize::try_from(i).expect("an index")]
    }
    /// A page near the boundary of some table.
    fn page(&mut self) -> u64 {
        let around = self.pick(&[8, 512, 1024, 1 << 18, 1 << 27]);
        around - 8 + self.roll(40)
    }
    fn len(&mut self) -> u64 {
        if self.chance(1) {
            self.pick(&[512, 1024, 1100])
        } else {
            1 + self.roll(24)
        }
    }
}

/// Ways in which an operation can be stopped half-way.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    None,
    FewFrames,
    FewMappings,
    LittlePromised,
    Injected,
}

fn machine(trouble: Trouble) -> Arc<Machine> {
    let mut config = MachineConfig {
        memory: MemConfig {
            frames: 1 << 14,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    };
    match trouble {
        Trouble::None | Trouble::Injected => {}
        Trouble::FewFrames => {
            config.memory.frames = 24;
            config.overcommit = Overcommit::Always;
        }
        Trouble::FewMappings => config.max_map_count = 12,
        Trouble::LittlePromised => config.overcommit = Overcommit::Never { limit: 300 },
    }
    Machine::new(config)
}

/// Private or shared memory with random options.
fn mapping(dice: &mut Dice, bytes: u64) -> MmapArgs {
    let args = MmapArgs::anonymous(bytes);
    let args = if dice.chance(3) { args.shared() } else { args };
    args.flags(dice.pick(&[
        MapFlags::empty(),
        MapFlags::empty(),
        MapFlags::POPULATE,
        MapFlags::LOCKED,
        MapFlags::GROWSDOWN,
        MapFlags::NORESERVE,
    ]))
}

/// A random `mremap`, as [`step`] makes it.
fn move_some(
    dice: &mut Dice,
    mm: &Mm,
    thread: &mut Thread,
    (page, len): (u64, u64),
) -> Option<Range<u64>> {
    let new = if dice.chance(6) { len } else { dice.len() };
    let old = if dice.chance(1) { 0 } else { len };
    let flags = MremapFlags::from_bits_retain(dice.pick(&[0, 1, 1, 3, 3, 3, 5, 7]));
    let done = mm.mremap(&mut thread.cx(), remap(page, old, new, flags, dice.page()));
    let left = done.is_ok() && flags.contains(MremapFlags::DONTUNMAP);
    left.then_some(at(page)..at(page + len))
}

/// One random operation; whether it succeeds does not matter. Says which memory moved and left its
/// old place mapped.
fn step(dice: &mut Dice, mm: &Mm, thread: &mut Thread) -> Option<Range<u64>> {
    let cx = &mut thread.cx();
    let (page, len) = (dice.page(), dice.len());
    let (addr, bytes) = (at(page), len * PAGE);
    let prot = dice.pick(&[RW, RW, Prot::READ, Prot::empty(), RW | Prot::EXEC]);
    match dice.roll(20) {
        0..3 => {
            let args = mapping(dice, bytes).fixed(addr).prot(prot);
            let _done = mm.mmap(cx, &args);
        }
        3 => {
            let _done = mm.mmap(cx, &MmapArgs::anonymous(bytes));
        }
        4..6 => {
            let _done = mm.munmap(cx, addr, bytes);
        }
        6..8 => {
            let _done = mm.mprotect(cx, addr, bytes, prot);
        }
        8..11 => {
            return move_some(dice, mm, thread, (page, len));
        }
        11..14 => {
            let _done = mm.madvise(cx, addr, bytes, dice.pick(Advice::ALL));
        }
        14 => {
            let _done = mm.mlock(cx, addr, bytes);
        }
        15 => {
            let _done = mm.munlock(cx, addr, bytes);
        }
        16 => {
            let flags = MlockallFlags::from_bits_retain(dice.pick(&[0, 1, 2, 3]));
            let _done = mm.mlockall(cx, flags);
        }
        17 => {
            mm.brk(cx, at((1 << 20) + dice.roll(30)));
        }
        18 if dice.chance(1) => {
            let _done = mm.mseal(cx, addr, PAGE);
        }
        _ => {
            for page in page..page + len.min(12) {
                let _done = mm.store(cx, at(page), 1);
                let _done = mm.load(cx, at(page + 3));
            }
        }
    }
    None
}

/// The pages that are mapped, and whether they are locked.
fn locks(mm: &Mm, thread: &mut Thread) -> BTreeMap<u64, bool> {
    let lines = mm.maps(&mut thread.cx());
    let pages = lines.iter().flat_map(|line| {
        let locked = line.flags.contains(VmFlags::LOCKED);
        (line.start / PAGE..line.end / PAGE).map(move |page| (page, locked))
    });
    pages.collect()
}

/// Pages that were locked before this memory moved, and are mapped without being locked in its old
/// place: all of a mapping, of whatever part moved.
fn left_behind(
    mm: &Mm,
    thread: &mut Thread,
    before: &BTreeMap<u64, bool>,
    moved: &Range<u64>,
) -> u64 {
    let lines = mm.maps(&mut thread.cx());
    let old = lines
        .iter()
        .filter(|l| l.start < moved.end && moved.start < l.end);
    let open = old.filter(|l| !l.flags.contains(VmFlags::LOCKED));
    let was = |page: &u64| before.get(page) == Some(&true);
    let pages = open.flat_map(|l| l.start / PAGE..l.end / PAGE);
    pages.filter(was).count() as u64
}

/// A family after a random life. `watched`: with an external MMU on the first.
fn family(
    dice: &mut Dice,
    machine: &Arc<Machine>,
    thread: &mut Thread,
    trouble: Trouble,
) -> Vec<Arc<Mm>> {
    let first = Mm::new(machine);
    first.set_start_brk(&mut thread.cx(), at(1 << 20)).unwrap();
    let mut family = vec![first];
    for _ in 0..150 {
        let who = dice.pick(&(0..family.len()).collect::<Vec<_>>());
        if matches!(trouble, Trouble::Injected) && dice.chance(5) {
            machine.mem().inject().arm(1 + dice.roll(6));
        }
        if family.len() < 5 && dice.roll(15) == 0 {
            family.extend(family[who].fork(&mut thread.cx()).ok());
        } else {
            step(dice, &family[who], thread);
        }
        machine.mem().inject().disarm();
    }
    family
}

fn assert_nothing_left(machine: &Machine, seed: u64) {
    let left = (machine.mem().in_use(), machine.commit().pages());
    assert_eq!(left, (0, 0), "frames and promises left by seed {seed}");
}

fn lives(trouble: Trouble) {
    for seed in 0..60 {
        let mut dice = Dice::new(seed);
        let machine = machine(trouble);
        let mut thread = machine.enter().expect("one at a time");
        let mut family = family(&mut dice, &machine, &mut thread, trouble);
        while !family.is_empty() {
            let who = dice.pick(&(0..family.len()).collect::<Vec<_>>());
            let mm = family.swap_remove(who);
            if dice.chance(7) {
                mm.exit(&mut thread.cx());
                assert_eq!(mm.tables(), 0, "seed {seed}");
                assert_eq!(mm.map_count(&mut thread.cx()), 0);
                assert_eq!(mm.sizes(&mut thread.cx()), (0, 0));
            }
        }
        assert_nothing_left(&machine, seed);
    }
}

#[test]
fn lives_without_trouble() {
    lives(Trouble::None);
}

#[test]
fn lives_with_few_frames() {
    lives(Trouble::FewFrames);
}

#[test]
fn lives_with_few_mappings() {
    lives(Trouble::FewMappings);
}

#[test]
fn lives_with_little_promised() {
    lives(Trouble::LittlePromised);
}

#[test]
fn lives_with_failing_allocations() {
    lives(Trouble::Injected);
}

/// What the accounts say at any moment is what the mappings add up to. Locked memory that moved and
/// left its old place counts there too, for good, though it is not locked any more.
#[test]
fn the_accounts_are_exact_at_every_step() {
    for seed in 0..40 {
        let mut dice = Dice::new(1000 + seed);
        let machine = machine(Trouble::None);
        let mut thread = machine.enter().expect("one at a time");
        let mm = Mm::new(&machine);
        mm.set_start_brk(&mut thread.cx(), at(1 << 20)).unwrap();
        let mut left = 0;
        for n in 0..150 {
            let before = locks(&mm, &mut thread);
            if let Some(moved) = step(&mut dice, &mm, &mut thread) {
                left += left_behind(&mm, &mut thread, &before, &moved);
            }
            let cx = &mut thread.cx();
            let (mut total, mut locked, mut private) = (0, left, 0);
            let mut shared = false;
            for line in mm.maps(cx) {
                let pages = (line.end - line.start) / PAGE;
                let count = |has: bool| if has { pages } else { 0 };
                total += pages;
                locked += count(line.flags.contains(VmFlags::LOCKED));
                private += count(line.flags.contains(VmFlags::ACCOUNT));
                shared |= !line.anonymous;
            }
            assert_eq!(mm.sizes(cx), (total, locked), "seed {seed}, step {n}");
            let promised = u64::try_from(machine.commit().pages()).expect("not negative");
            if shared {
                assert!(promised >= private, "seed {seed}, step {n}");
            } else {
                assert_eq!(promised, private, "seed {seed}, step {n}");
            }
        }
        mm.exit(&mut thread.cx());
        assert_nothing_left(&machine, seed);
    }
}

#[test]
fn an_object_goes_with_its_last_mapping_in_whatever_process() {
    let mut w = World::new();
    w.share(0, 4);
    w.fill(0, 4);
    let child = w.fork();
    w.munmap(0, 4).unwrap();
    assert_eq!((w.machine.mem().in_use(), w.promised()), (4, 4));
    w.inside(&child, |w| w.munmap(1, 3)).unwrap();
    assert_eq!(w.machine.mem().in_use(), 4, "a part is enough");
    drop(child);
    assert_eq!((w.machine.mem().in_use(), w.promised()), (0, 0));
    w.end();
}

#[test]
fn a_drop_without_exit_gives_everything_back() {
    let machine = machine(Trouble::None);
    let mut thread = machine.enter().expect("the only one");
    let mm = Mm::new(&machine);
    let args = MmapArgs::anonymous(2000 * PAGE).fixed(at(0));
    mm.mmap(&mut thread.cx(), &args.flags(MapFlags::POPULATE))
        .unwrap();
    let child = mm.fork(&mut thread.cx()).unwrap();
    assert_eq!(
        (machine.mem().in_use(), machine.commit().pages()),
        (2000, 4000)
    );
    drop(mm);
    assert_eq!(
        (machine.mem().in_use(), machine.commit().pages()),
        (2000, 2000)
    );
    drop(thread);
    drop(child);
    assert_nothing_left(&machine, 0);
}

#[test]
fn exit_twice_and_life_after_exit() {
    let mut w = World::new();
    w.map(0, 8, RW);
    w.fill(0, 8);
    let mm = Arc::clone(&w.mm);
    w.reap(&mm);
    w.reap(&mm);
    assert!(w.get(0).is_err());
    w.map(0, 2, RW);
    w.put(0, 1);
    w.end();
}

#[test]
fn a_life_that_is_watched_leaves_nothing_either() {
    for seed in 0..30 {
        let mut dice = Dice::new(2000 + seed);
        let machine = machine(Trouble::Injected);
        let mut thread = machine.enter().expect("one at a time");
        let mm = Mm::new(&machine);
        let mut watch: Option<(Arc<Recorder>, Registration)> = None;
        for _ in 0..150 {
            if dice.roll(20) == 0 {
                match watch.take() {
                    Some((_, registration)) => mm.unregister(&mut thread.cx(), registration),
                    None => watch = Some(mm.register(&mut thread.cx(), Recorder::new)),
                }
            }
            step(&mut dice, &mm, &mut thread);
            assert_eq!(mm.windows_open(), 0, "seed {seed}");
        }
        mm.exit(&mut thread.cx());
        assert_eq!(mm.tables(), 0);
        assert_nothing_left(&machine, seed);
    }
}

//! Two threads on disjoint memory against one: `cargo bench --bench scaling`, and `-- NAME` for
//! those whose name holds it. What is printed is how many times as much two threads get done, by
//! the clock and by processor time, and what they would if they shared nothing, as the median of
//! the rounds with what eight in ten of them lie between.

mod duel;

use duel::{Race, run};
use emmu::{
    Contents, Machine, MachineConfig, MemConfig, Mm, Overcommit, PAGE_SIZE,
    addr::{Vpn, VpnRange},
    ctx::{Atomic, CallCx, CallbackCx},
    extmmu::kvm::{Gfn, MemSlot, SlotFlags, Vcpu, Vm, VmConfig},
    mm::{Advice, MapFlags, MmapArgs, Prot},
    notifier::{Access, Ack, Event, ExternalMmu, Gate, Invalidation, OrderedStore, Seat},
};
use std::sync::Arc;

/// Pages of a share: 16 MiB.
const PAGES: u64 = 4 << 10;
const ROUNDS: usize = 41;
const RW: Prot = Prot::READ.union(Prot::WRITE);

/// Where the share of a thread lies: in tables of its own from the second level on.
const fn addr(who: usize, n: u64) -> u64 {
    (1 << 40) + ((who as u64) << 39) + n * PAGE_SIZE
}

fn machine() -> Arc<Machine> {
    Machine::new(MachineConfig {
        memory: MemConfig {
            swap: 0,
            frames: 1 << 20,
            contents: Contents::None,
        },
        overcommit: Overcommit::Always,
        ..MachineConfig::default()
    })
}

/// Memory of both threads, in one address space or in one each.
struct Shares {
    mms: [Arc<Mm>; 2],
    map: fn(&Mm, &mut CallCx<'_>, usize),
    work: fn(&Mm, &mut CallCx<'_>, usize),
    child: std::sync::Mutex<Vec<Arc<Mm>>>,
    forks: bool,
}

impl Race for Shares {
    fn prepare(&self, cx: &mut CallCx<'_>) {
        for child in self.child.lock().expect("no panic").drain(..) {
            child.exit(cx);
        }
        for (who, mm) in self.mms.iter().enumerate() {
            (self.map)(mm, cx, who);
        }
        if self.forks {
            let child = self.mms[0].fork(cx).expect("there is memory");
            self.child.lock().expect("no panic").push(child);
        }
    }
    fn work(&self, cx: &mut CallCx<'_>, who: usize) {
        (self.work)(&self.mms[who], cx, who);
    }
}

fn fresh(mm: &Mm, cx: &mut CallCx<'_>, who: usize) {
    let args = MmapArgs::anonymous(PAGES * PAGE_SIZE).fixed(addr(who, 0));
    mm.mmap(cx, &args).expect("there is room");
}
fn touched(mm: &Mm, cx: &mut CallCx<'_>, who: usize) {
    fresh(mm, cx, who);
    store(mm, cx, who);
}
/// Pages of an object, which it has in memory, and no entry of them.
fn file(mm: &Mm, cx: &mut CallCx<'_>, who: usize) {
    let len = PAGES * PAGE_SIZE;
    let args = MmapArgs::anonymous(len).shared().flags(MapFlags::POPULATE);
    mm.mmap(cx, &args.fixed(addr(who, 0)))
        .expect("there is room");
    mm.madvise(cx, addr(who, 0), len, Advice::DontNeed)
        .expect("mapped");
}
fn store(mm: &Mm, cx: &mut CallCx<'_>, who: usize) {
    for n in 0..PAGES {
        mm.store(cx, addr(who, n), 1).expect("mapped");
    }
}
fn load(mm: &Mm, cx: &mut CallCx<'_>, who: usize) {
    for n in 0..PAGES {
        mm.load(cx, addr(who, n)).expect("mapped");
    }
}

/// Thread 0 faults; thread 1 changes the layout of its own share all the time.
fn beside(
    mm: &Mm,
    cx: &mut CallCx<'_>,
    who: usize,
    times: usize,
    change: impl Fn(&Mm, &mut CallCx<'_>, u64),
) {
    if who == 0 {
        return store(mm, cx, who);
    }
    for _ in 0..times {
        change(mm, cx, addr(who, 0));
    }
}
fn fresh_and_touched(mm: &Mm, cx: &mut CallCx<'_>, who: usize) {
    [fresh, touched][who](mm, cx, who);
}
fn protect_beside(mm: &Mm, cx: &mut CallCx<'_>, who: usize) {
    beside(mm, cx, who, 8, |mm, cx, at| {
        for prot in [Prot::READ, RW] {
            mm.mprotect(cx, at, PAGES * PAGE_SIZE, prot)
                .expect("mapped");
        }
    });
}
fn remap_beside(mm: &Mm, cx: &mut CallCx<'_>, who: usize) {
    beside(mm, cx, who, 2, |mm, cx, at| {
        mm.munmap(cx, at, PAGES * PAGE_SIZE).expect("mapped");
        touched(mm, cx, 1);
    });
}
fn remap_small_beside(mm: &Mm, cx: &mut CallCx<'_>, who: usize) {
    beside(mm, cx, who, 500, |mm, cx, at| {
        let page = MmapArgs::anonymous(PAGE_SIZE).fixed(at);
        mm.munmap(cx, at, PAGE_SIZE).expect("mapped");
        mm.mmap(cx, &page).expect("there is room");
    });
}

fn shares(name: &str, only: &str, two_spaces: bool, shares: impl FnOnce(&mut Shares)) {
    if !name.contains(only) {
        return;
    }
    let machine = machine();
    let mm = Mm::new(&machine);
    let other = if two_spaces {
        Mm::new(&machine)
    } else {
        Arc::clone(&mm)
    };
    let mut race = Shares {
        mms: [mm, other],
        map: fresh,
        work: store,
        child: std::sync::Mutex::default(),
        forks: false,
    };
    shares(&mut race);
    run(&machine, name, ROUNDS, &race);
}

/// A driver with a table of nothing.
struct Driver(Gate<OrderedStore<u64>, (), Atomic>);

impl ExternalMmu for Driver {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.0.exclude_entries(cx, inv)
    }
}

/// Translations that are looked up and validated, or windows, each thread in its own part.
struct Outside {
    mm: Arc<Mm>,
    /// One a thread, so that their gates are not what is measured.
    drivers: [Arc<Driver>; 2],
    work: fn(&Self, &mut CallCx<'_>, usize),
}

impl Race for Outside {
    fn prepare(&self, cx: &mut CallCx<'_>) {
        for who in [0, 1] {
            touched(&self.mm, cx, who);
        }
    }
    fn work(&self, cx: &mut CallCx<'_>, who: usize) {
        (self.work)(self, cx, who);
    }
}

impl Outside {
    fn resolve(&self, cx: &mut CallCx<'_>, who: usize) {
        let gate = &self.drivers[who].0;
        for n in 0..PAGES {
            let page = Vpn::containing(addr(who, n));
            let found = self.mm.resolve(cx, gate.ticket(page, Access::Read));
            let pending = found.expect("mapped");
            std::hint::black_box(pending.admit(cx).expect("no window is open").frame());
        }
    }
    fn windows(&self, cx: &mut CallCx<'_>, who: usize) {
        let mut guard = self.mm.lock_shared(cx);
        let mut lease = guard.lease();
        for n in 0..PAGES {
            let range = VpnRange::single(Vpn::containing(addr(who, n)));
            lease.window(range, Event::Clear).close();
        }
    }
}

fn outside(name: &str, only: &str, drivers: bool, work: fn(&Outside, &mut CallCx<'_>, usize)) {
    if !name.contains(only) {
        return;
    }
    let machine = machine();
    let mm = Mm::new(&machine);
    let mut thread = machine.enter().expect("the first of this thread");
    let build = |seat: Seat| Arc::new(Driver(Gate::new(seat, OrderedStore::default(), ())));
    let pairs = [0, 1].map(|_| mm.register(&mut thread.cx(), build));
    let [(zero, r0), (one, r1)] = pairs;
    if !drivers {
        mm.unregister(&mut thread.cx(), r0);
        mm.unregister(&mut thread.cx(), r1);
    }
    drop(thread);
    let race = Outside {
        mm,
        drivers: [zero, one],
        work,
    };
    run(&machine, name, ROUNDS, &race);
    end(&machine, &race.mm);
}

/// Ends an address space that external MMUs are registered on.
fn end(machine: &Arc<Machine>, mm: &Mm) {
    let mut thread = machine.enter().expect("the others have left");
    mm.exit(&mut thread.cx());
    assert_eq!(machine.mem().in_use(), 0, "a benchmark lost frames");
}

/// A guest with a processor for each thread, which touches what its thread has the host change.
struct Guest {
    mm: Arc<Mm>,
    vcpus: [Vcpu; 2],
    change: fn(&Mm, &mut CallCx<'_>, u64),
}

/// Pages that are dropped or protected at once.
const STEP: u64 = 16;

impl Race for Guest {
    fn prepare(&self, cx: &mut CallCx<'_>) {
        for who in [0, 1] {
            store(&self.mm, cx, who);
        }
    }
    fn work(&self, cx: &mut CallCx<'_>, who: usize) {
        for at in (0..PAGES).step_by(usize::try_from(STEP).expect("small")) {
            (self.change)(&self.mm, cx, addr(who, at));
            for n in at..at + STEP {
                let gpa = who as u64 * PAGES + n;
                self.vcpus[who]
                    .store(cx, gpa * PAGE_SIZE, 1)
                    .expect("in a slot");
            }
        }
    }
}

fn guest(name: &str, only: &str, change: fn(&Mm, &mut CallCx<'_>, u64)) {
    if !name.contains(only) {
        return;
    }
    let machine = machine();
    let mm = Mm::new(&machine);
    let mut thread = machine.enter().expect("the first of this thread");
    let cx = &mut thread.cx();
    let (vm, registration) = Vm::create(cx, &mm, VmConfig::default());
    for who in [0, 1] {
        fresh(&mm, cx, usize::from(who));
        let slot = MemSlot {
            id: who,
            gfn: Gfn(u64::from(who) * PAGES),
            pages: PAGES,
            hva: Vpn::containing(addr(usize::from(who), 0)),
            flags: SlotFlags::empty(),
        };
        vm.set_memory(cx, slot).expect("no other slot is there");
    }
    let vcpus = [vm.vcpu(cx), vm.vcpu(cx)];
    drop(thread);
    let race = Guest { mm, vcpus, change };
    run(&machine, name, ROUNDS, &race);
    end(&machine, &race.mm);
    drop(registration);
}

fn main() {
    let only = std::env::args().nth(1).unwrap_or_default();
    let only = if only.starts_with("--") { "" } else { &only };
    println!(
        "{:<44} by the clock         by processor time    nothing shared",
        "two threads against one"
    );
    for (place, two) in [("one space", false), ("two spaces", true)] {
        let name = |what: &str| format!("{what}, {place}");
        shares(&name("fault, zero page"), only, two, |s| s.work = load);
        shares(&name("fault, anonymous"), only, two, |_| ());
        shares(&name("fault, file"), only, two, |s| {
            s.map = file;
            s.work = load;
        });
        shares(&name("load"), only, two, |s| {
            s.map = touched;
            s.work = load;
        });
    }
    shares("fault, copy on write, one space", only, false, |s| {
        s.map = touched;
        s.forks = true;
    });
    for (what, work) in [
        (
            "fault beside mprotect",
            protect_beside as fn(&Mm, &mut CallCx<'_>, usize),
        ),
        ("fault beside munmap and faults", remap_beside),
        ("fault beside munmap and mmap, a page", remap_small_beside),
    ] {
        shares(what, only, false, |s| {
            s.map = fresh_and_touched;
            s.work = work;
        });
    }
    outside("resolve and admit", only, true, Outside::resolve);
    outside("window, nobody registered", only, false, Outside::windows);
    outside("window, two drivers", only, true, Outside::windows);
    guest("madvise and refault by a processor", only, |mm, cx, at| {
        mm.madvise(cx, at, STEP * PAGE_SIZE, Advice::DontNeed)
            .expect("mapped");
    });
    guest("mprotect and refault by a processor", only, |mm, cx, at| {
        let len = STEP * PAGE_SIZE;
        mm.mprotect(cx, at, len, Prot::READ).expect("mapped");
        mm.mprotect(cx, at, len, RW).expect("mapped");
    });
}

//! The worlds that operations run in: one machine, two threads, each with memory of its own in one
//! address space or in one each, with devices or without.

use crate::{arena, host, operations::Operation};
use emmu::{
    Machine, MachineConfig, MemConfig, Mm, Overcommit, PAGE_SIZE,
    addr::{Vpn, VpnRange},
    ctx::{Atomic, CallCx},
    driver::{AtomicCallbackCx, SpinningMmu},
    extmmu::{
        gru::{Gru, GruConfig, GruContext, GruSpace},
        kvm::{Gfn, MemSlot, SlotFlags, Vcpu, Vm, VmConfig},
    },
    file::{File, FileMode, Shmem},
    mm::MmapArgs,
    notifier::{Ack, Gate, Invalidation, OrderedStore, Registration, Seat},
};
use std::{
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

/// Bytes of a leaf table, and of the part of an object that an operation works on.
pub(crate) const PART: u64 = 4 << 20;
/// Bytes from the memory of one side to that of the other: in another leaf table, in the same
/// table of the second level.
const SIDE: u64 = 512 << 20;
const BASE: u64 = 1 << 40;

/// A kind of world.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) two_spaces: bool,
    pub(crate) devices: bool,
}

pub(crate) const KINDS: [Kind; 4] = [
    Kind {
        name: "one space",
        two_spaces: false,
        devices: false,
    },
    Kind {
        name: "two spaces",
        two_spaces: true,
        devices: false,
    },
    Kind {
        name: "one space with devices",
        two_spaces: false,
        devices: true,
    },
    Kind {
        name: "two spaces with devices",
        two_spaces: true,
        devices: true,
    },
];

/// A driver with a table, and nothing to do beside dropping entries.
pub(crate) struct Driver(pub(crate) Gate<OrderedStore<Vpn>, (), Atomic>);

impl SpinningMmu for Driver {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.0.exclude_entries(cx, inv)
    }
}

impl Driver {
    pub(crate) fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self(Gate::new(seat, OrderedStore::default(), ())))
    }
}

/// The devices of one side. In one address space, both sides have processors of one guest and
/// contexts of one process, each context on a GRU of its own.
pub(crate) struct Devices {
    pub(crate) driver: Arc<Driver>,
    pub(crate) vcpu: Vcpu,
    pub(crate) context: GruContext,
}

/// Memory of one side, and what it is made of.
pub(crate) struct Share {
    pub(crate) mm: Arc<Mm>,
    /// Another address space, which is forked.
    pub(crate) other: Arc<Mm>,
    pub(crate) file: Arc<File>,
    /// In a block of its own: a processor counts what it does.
    pub(crate) devices: Option<Box<Devices>>,
}

/// Two shares of a machine, and a file that both map.
pub(crate) struct World {
    machine: Arc<Machine>,
    pub(crate) shares: [Share; 2],
    pub(crate) file: Arc<File>,
    /// Counts of the operation that is known to meet itself.
    pub(crate) control: Box<crate::operations::Control>,
}

/// A thread at work on its share.
pub(crate) struct Side<'w, 't> {
    pub(crate) world: &'w World,
    /// 0 or 1.
    pub(crate) who: usize,
    pub(crate) cx: CallCx<'t>,
    /// Where its memory for this operation is, in bytes.
    pub(crate) at: u64,
    /// The same within the files and the guests of the side, in bytes.
    pub(crate) offset: u64,
    pub(crate) children: &'w mut Vec<Arc<Mm>>,
    pub(crate) registrations: &'w mut Vec<Registration>,
}

impl<'w> Side<'w, '_> {
    pub(crate) fn share(&self) -> &'w Share {
        &self.world.shares[self.who]
    }
    pub(crate) fn devices(&self) -> &'w Devices {
        self.share().devices.as_ref().expect("a world with devices")
    }
}

fn file(machine: &Machine) -> Arc<File> {
    let memory = Shmem::memfd(machine.host(), "shared", 2 * SIDE).expect("there is memory");
    File::open(memory, FileMode::ReadWrite)
}

fn guest(cx: &mut CallCx<'_>, mm: &Arc<Mm>) -> Arc<Vm> {
    let (vm, _stays) = Vm::create(cx, mm, VmConfig::default());
    let slot = MemSlot {
        id: 0,
        gfn: Gfn(0),
        pages: 2 * SIDE / PAGE_SIZE,
        hva: Vpn::containing(BASE),
        flags: SlotFlags::empty(),
    };
    vm.set_memory(cx, slot).expect("no other slot is there");
    vm
}

impl World {
    fn new(kind: Kind, machine: Arc<Machine>, cx: &mut CallCx<'_>) -> Self {
        let one = Mm::new(&machine);
        let other = match kind.two_spaces {
            true => Mm::new(&machine),
            false => Arc::clone(&one),
        };
        let mms = [one, other];
        let grus = Gru::several(2, GruConfig::default());
        let spaces = if kind.two_spaces { 2 } else { 1 };
        let of: Vec<_> = mms[..if kind.devices { spaces } else { 0 }]
            .iter()
            .map(|mm| {
                let (process, _stays) = GruSpace::attach(cx, mm, &grus, None);
                (guest(cx, mm), process)
            })
            .collect();
        let share = |who: usize, cx: &mut CallCx<'_>| Share {
            mm: Arc::clone(&mms[who]),
            other: Mm::new(&machine),
            file: file(&machine),
            devices: of.get(who.min(spaces - 1)).map(|(vm, process)| {
                Box::new(Devices {
                    driver: mms[who].register(cx, Driver::new).0,
                    vcpu: vm.vcpu(cx),
                    context: GruContext::new(process, who).expect("as many GRUs"),
                })
            }),
        };
        Self {
            shares: [share(0, cx), share(1, cx)],
            file: file(&machine),
            control: Box::default(),
            machine,
        }
    }
    /// Forks the address spaces, so that the pages of those operations that want it are shared.
    fn fork(&self, kind: Kind, cx: &mut CallCx<'_>) {
        for share in &self.shares[..if kind.two_spaces { 2 } else { 1 }] {
            std::mem::forget(share.mm.fork(cx).expect("there is memory"));
        }
    }
}

/// What the main thread has a side do.
#[derive(Clone, Copy)]
enum Phase {
    /// Map what is to be shared by a fork.
    PrepareForked,
    Prepare,
    /// Do everything once, on other memory, and have frames at hand, and room for more.
    Warm,
    /// Do each operation from one and the same state, in a process of its own.
    Apart,
}

/// Runs the operations of a world, each from one state: the two threads fork a process for each.
pub(crate) fn run(kind: Kind, operations: &[&Operation]) {
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 8 << 10,
            ..MemConfig::default()
        },
        overcommit: Overcommit::Always,
        ..MachineConfig::default()
    });
    let mut main = machine.enter().expect("the first of this thread");
    let world = World::new(kind, Arc::clone(&machine), &mut main.cx());
    thread::scope(|scope| {
        let sides = [0, 1].map(|who| {
            let (go, wait) = channel();
            let (done, finished) = channel();
            let world = &world;
            scope.spawn(move || serve(world, operations, who, &wait, &done));
            (go, finished)
        });
        let both = |phase| {
            for (go, finished) in &sides {
                go.send(phase).expect("it waits");
                finished.recv().expect("it does not panic");
            }
        };
        both(Phase::PrepareForked);
        world.fork(kind, &mut main.cx());
        both(Phase::Prepare);
        both(Phase::Warm);
        both(Phase::Apart);
    });
    // Nothing is given back: the process ends.
    std::mem::forget(world);
}

fn serve(
    world: &World,
    operations: &[&Operation],
    who: usize,
    wait: &Receiver<Phase>,
    done: &Sender<()>,
) {
    arena::use_arena(1 + who);
    let (mut children, mut registrations) = (Vec::new(), Vec::new());
    for phase in wait {
        // Anew for each phase: the epoch of a thread that has just entered has no garbage, and
        // counts its pins from 0, so no operation meets the turn in which garbage is collected.
        let mut thread = world.machine.enter().expect("the first of this thread");
        let mut side = Side {
            world,
            who,
            cx: thread.cx(),
            at: 0,
            offset: 0,
            children: &mut children,
            registrations: &mut registrations,
        };
        work(&mut side, operations, phase);
        // Before the other side begins: an epoch that is left is a change that it would meet.
        drop(thread);
        done.send(()).expect("it listens");
    }
}

fn work(side: &mut Side<'_, '_>, operations: &[&Operation], phase: Phase) {
    if matches!(phase, Phase::Apart) {
        // The first pin of a thread collects garbage, and the next of them to do so is the 128th.
        let loaded = side.share().other.load(&mut side.cx, BASE + PART);
        loaded.expect("mapped");
    }
    for (n, operation) in operations.iter().enumerate() {
        // The first part is for the warm-up, the second is what is traced.
        let parts = match phase {
            Phase::PrepareForked | Phase::Prepare => 0..2,
            Phase::Warm => 0..1,
            Phase::Apart => 1..2,
        };
        for part in parts {
            side.offset = (2 * n as u64 + part) * PART + side.who as u64 * SIDE;
            side.at = BASE + side.offset;
            match phase {
                Phase::PrepareForked if operation.forked => (operation.prepare)(side),
                Phase::Prepare if !operation.forked => (operation.prepare)(side),
                Phase::Warm => (operation.work)(side),
                Phase::Apart => apart(side, operation),
                _ => {}
            }
        }
    }
    if matches!(phase, Phase::Warm) {
        settle(side);
    }
}

/// Has the thread give some frames back, so that it has them at hand and room for more.
fn settle(side: &mut Side<'_, '_>) {
    let (mm, cx) = (&side.share().other, &mut side.cx);
    let len = 96 * PAGE_SIZE;
    let args = MmapArgs::anonymous(len).fixed(BASE + PART);
    mm.mmap(cx, &args).expect("there is room");
    for n in 0..96 {
        let stored = mm.store(cx, BASE + PART + n * PAGE_SIZE, 1);
        stored.expect("mapped");
    }
    mm.munmap(cx, BASE + PART + PAGE_SIZE, len - PAGE_SIZE)
        .expect("mapped");
}

/// Runs an operation in a process of its own, which is a copy of this one.
fn apart(side: &mut Side<'_, '_>, operation: &Operation) {
    let worked = host::in_a_copy(|| {
        arena::use_other_half();
        arena::MARKS.begin.store(1, Relaxed);
        (operation.work)(side);
        arena::MARKS.end.store(1, Relaxed);
    });
    assert!(worked, "{} failed", operation.name);
}

/// The page at an address.
pub(crate) fn page(at: u64) -> VpnRange {
    VpnRange::single(Vpn::containing(at))
}

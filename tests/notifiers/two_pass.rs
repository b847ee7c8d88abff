//! Invalidation in two passes: every device is set going before the first is waited for.

use crate::common::{BASE, PAGE, World, at, machine};
use emmu::{
    Mm,
    addr::{Vpn, VpnRange},
    ctx::{Atomic, AtomicCallbackCx, CallCx, CallbackCx, Sleepable},
    extmmu::xpmem::{Attachment, Manners, Owner, OwnerConfig, Partition, PartitionId},
    mm::{Advice, MmapArgs},
    notifier::{
        Access, Ack, ExternalMmu, FirstPass, Gate, Invalidation, NoStore, OrderedStore,
        Registration, Seat, SecondPass, Translation,
    },
    oracle::{Finding, Oracle},
};
use std::{
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc::{self, Receiver},
    },
    time::Duration,
};

fn pages(from: u64, to: u64) -> VpnRange {
    World::pages(from, to)
}

/// Devices that flush on threads of their own, and how many are at it.
struct Devices {
    now: AtomicUsize,
    most: AtomicUsize,
    /// Each answers when all are at it.
    meet: Option<Barrier>,
}

impl Devices {
    fn new(meet: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            meet: meet.map(Barrier::new),
        })
    }
    fn post(self: &Arc<Self>) -> Receiver<()> {
        let now = self.now.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(now, SeqCst);
        let (answer, wait) = mpsc::channel();
        let devices = Arc::clone(self);
        std::thread::spawn(move || {
            if let Some(meet) = &devices.meet {
                meet.wait();
            }
            answer.send(())
        });
        wait
    }
    fn wait(&self, posted: &Receiver<()>) {
        let answered = posted.recv_timeout(Duration::from_secs(600));
        answered.expect("the devices meet only if all are asked before one is waited for");
        self.now.fetch_sub(1, SeqCst);
    }
}

/// A driver of such a device.
struct Flusher {
    gate: Gate<OrderedStore<u64>, (), Sleepable>,
    devices: Arc<Devices>,
    passes: usize,
    ends: AtomicUsize,
}

impl Flusher {
    fn new(seat: Seat, devices: &Arc<Devices>, passes: usize) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            devices: Arc::clone(devices),
            passes,
            ends: AtomicUsize::new(0),
        })
    }
}

impl ExternalMmu for Flusher {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        if inv.range() != VpnRange::ALL {
            self.devices.wait(&self.devices.post());
        }
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
    fn invalidate_begin<'s, 'i>(
        &'s self,
        cx: CallbackCx<'_>,
        inv: Invalidation<'i>,
    ) -> FirstPass<'i, SecondPass<'s>> {
        if self.passes == 1 {
            return FirstPass::Done(self.invalidate_start(cx, inv));
        }
        let posted = self.devices.post();
        inv.defer(move |cx, inv| {
            self.devices.wait(&posted);
            self.gate.exclude(cx, inv, |(), _, _| ())
        })
    }
    fn invalidate_end(&self, _: AtomicCallbackCx<'_>, range: VpnRange) {
        let window = usize::from(range != VpnRange::ALL);
        self.ends.fetch_add(window, SeqCst);
    }
}

const N: usize = 8;

/// Half of the drivers on the chain, half with subscriptions; one window over all of them.
fn open_one(devices: &Arc<Devices>, passes: usize) {
    let machine = machine(256);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let args = MmapArgs::anonymous(16 * PAGE).fixed(BASE);
    mm.mmap(&mut cx, &args).unwrap();
    let (ds, regs): (Vec<Arc<Flusher>>, Vec<Registration>) = (0..N)
        .map(|n| {
            let build = |seat| Flusher::new(seat, devices, passes);
            match n % 2 {
                0 => mm.register(&mut cx, build),
                _ => mm.subscribe(&mut cx, pages(0, 8), build),
            }
        })
        .unzip();
    mm.madvise(&mut cx, at(2), PAGE, Advice::DontNeed).unwrap();
    assert!(ds.iter().all(|d| d.ends.load(SeqCst) == 1));
    assert_eq!((devices.now.load(SeqCst), mm.windows_open()), (0, 0));
    for reg in regs {
        reg.unregister(&mut cx);
    }
}

#[test]
fn in_two_passes_all_devices_flush_at_the_same_time() {
    let devices = Devices::new(Some(N));
    open_one(&devices, 2);
    assert_eq!(devices.most.load(SeqCst), N);
}

/// The twin: so it is without.
#[test]
fn in_one_pass_one_device_flushes_after_the_other() {
    let devices = Devices::new(None);
    open_one(&devices, 1);
    assert_eq!(devices.most.load(SeqCst), 1);
}

#[test]
fn who_has_begun_is_told_the_end_when_another_driver_panics() {
    struct Bomb(#[expect(dead_code)] Gate<NoStore, (), Atomic>);
    impl ExternalMmu for Bomb {
        fn invalidate_start<'i>(&self, _: CallbackCx<'_>, _: Invalidation<'i>) -> Ack<'i> {
            panic!("boom");
        }
    }
    let machine = machine(256);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let devices = Devices::new(None);
    // The last to register is asked first.
    let _bomb = mm.register(&mut cx, |seat| Arc::new(Bomb(Gate::new(seat, NoStore, ()))));
    let (d, _reg) = mm.register(&mut cx, |seat| Flusher::new(seat, &devices, 2));
    let boom = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut g = mm.lock_shared(&mut cx);
        let mut lease = g.lease();
        lease.with_window(pages(0, 1), emmu::notifier::Event::Clear, |_| ());
    }));
    assert!(boom.is_err());
    assert_eq!((d.ends.load(SeqCst), mm.windows_open()), (1, 0));
    // It cannot be released: its last callback panics.
    std::mem::forget(mm);
}

/// Asked after all owners, before anybody is waited for.
struct Onlooker {
    gate: Gate<OrderedStore<u64>, (), Sleepable>,
    owners: Mutex<Vec<Arc<Owner>>>,
    looks: AtomicUsize,
}

impl ExternalMmu for Onlooker {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        for owner in self.owners.lock().unwrap().iter() {
            assert_eq!(owner.windows(), 1, "it is not asked yet");
            assert_eq!(owner.failures(), [], "its partition was waited for");
            self.looks.fetch_add(1, SeqCst);
        }
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
}

/// The natural user: the recalls of all owners are out before the first answer is waited for. The
/// partitions never answer, so whoever has waited for one has had to cut it off.
#[test]
fn recalls_of_several_owners_overlap() {
    let machine = machine(256);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let args = MmapArgs::anonymous(16 * PAGE).fixed(BASE);
    mm.mmap(&mut cx, &args).unwrap();
    mm.store(&mut cx, at(0), 5).unwrap();
    // Who came first is asked last.
    let (onlooker, _stays) = mm.register(&mut cx, |seat| {
        Arc::new(Onlooker {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            owners: Mutex::default(),
            looks: AtomicUsize::new(0),
        })
    });
    let config = OwnerConfig {
        deadline: Duration::from_millis(20),
        ..OwnerConfig::default()
    };
    let one = |cx: &mut CallCx<'_>, n| {
        let (owner, reg) = Owner::attach(cx, &mm, config);
        let partition = Partition::new(PartitionId(n));
        let segment = owner.make(pages(0, 16), Access::Read);
        let importer: Attachment = owner.import(&partition, segment, 0, 16).unwrap();
        let mut byte = [0];
        importer.read(cx, 0, &mut byte).unwrap();
        assert_eq!((byte[0], partition.entries()), (5, 1));
        partition.set_manners(Manners::Hangs);
        (owner, partition, importer, reg)
    };
    let all: Vec<_> = (0..5).map(|n| one(&mut cx, n)).collect();
    let owners = all.iter().map(|(owner, ..)| Arc::clone(owner));
    *onlooker.owners.lock().unwrap() = owners.collect();
    mm.madvise(&mut cx, at(0), PAGE, Advice::DontNeed).unwrap();
    onlooker.owners.lock().unwrap().clear();
    assert_eq!(onlooker.looks.load(SeqCst), all.len());
    for (owner, partition, ..) in &all {
        assert_eq!((owner.failures().len(), partition.entries()), (1, 0));
    }
    drop(all);
    mm.exit(&mut cx);
}

/// A device with entries of its own, of which it is told in messages.
#[derive(Default)]
struct Messages {
    entries: Mutex<Vec<Translation>>,
}

impl Messages {
    fn map(&self, t: Translation) {
        self.entries.lock().unwrap().push(t);
    }
    fn flush(&self, range: VpnRange) {
        let mut entries = self.entries.lock().unwrap();
        entries.retain(|t| !t.range().overlaps(range));
    }
}

/// A driver of it, in two passes: it sends the flush in the first, with its gate held or without.
struct Sender {
    gate: Gate<OrderedStore<u64>, (), Sleepable>,
    device: Messages,
    under_gate: bool,
    /// Told when the flush is on its way, or is about to wait for the gate.
    posts: Mutex<mpsc::Sender<()>>,
}

impl ExternalMmu for Sender {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.device.flush(inv.range());
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
    fn invalidate_begin<'s, 'i>(
        &'s self,
        mut cx: CallbackCx<'_>,
        inv: Invalidation<'i>,
    ) -> FirstPass<'i, SecondPass<'s>> {
        if self.under_gate {
            let _told = self.posts.lock().unwrap().send(());
            let _gate = self.gate.lock(&mut cx);
            self.device.flush(inv.range());
        } else {
            self.device.flush(inv.range());
            let _told = self.posts.lock().unwrap().send(());
        }
        inv.defer(move |cx, inv| self.gate.exclude(cx, inv, |(), _, _| ()))
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        let entries = self.device.entries.lock().unwrap();
        entries.iter().for_each(|t| visit(*t));
        drop(entries);
        self.gate.audit(visit)
    }
}

/// A fault was admitted before the window, and tells the device of its entry when the window has
/// begun.
fn fault_around_a_flush(under_gate: bool) -> Vec<Finding> {
    let machine = machine(256);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let oracle = Oracle::new(&machine);
    // How long a window takes is the machine's matter.
    oracle.set_deadline(Duration::MAX);
    let args = MmapArgs::anonymous(16 * PAGE).fixed(BASE);
    mm.mmap(&mut cx, &args).unwrap();
    mm.store(&mut cx, at(0), 5).unwrap();
    let (posts, posted) = mpsc::channel();
    let (sender, _stays) = mm.register(&mut cx, |seat| {
        Arc::new(Sender {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            device: Messages::default(),
            under_gate,
            posts: Mutex::new(posts),
        })
    });
    oracle.watch(&mm, Arc::clone(&sender) as Arc<dyn ExternalMmu>);
    let ticket = sender.gate.ticket(Vpn::containing(at(0)), Access::Read);
    let pending = mm.resolve(&mut cx, ticket).unwrap();
    std::thread::scope(|s| {
        let permit = pending.admit(&mut cx).ok().unwrap();
        let (mm, machine) = (&mm, &machine);
        s.spawn(move || {
            let mut thread = machine.enter().unwrap();
            mm.madvise(&mut thread.cx(), at(0), PAGE, Advice::DontNeed)
                .unwrap();
        });
        posted.recv().unwrap();
        let translation = permit.cached().translation();
        let gate = permit.establish(0);
        sender.device.map(translation);
        drop(gate);
    });
    let found = oracle.take();
    sender.device.flush(VpnRange::ALL);
    mm.exit(&mut cx);
    found
}

#[test]
fn what_the_first_pass_sends_is_behind_the_entries_of_permits_that_are_held() {
    assert_eq!(fault_around_a_flush(true), []);
    let found = fault_around_a_flush(false);
    assert!(
        found
            .iter()
            .any(|f| matches!(f, Finding::InsideWindow { .. })),
        "without the gate it is not: {found:?}"
    );
}

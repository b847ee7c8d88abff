//! A callback asks about the file whose reverse map is being walked, or kept from walks.

use crate::common::{
    PAGE, World,
    calls::{FIXED, remap},
    ends_within,
    objects::shmem,
};
use emmu::{
    Machine, Mm,
    driver::*,
    error::SealError,
    file::{File, FileMode, Seals, Shmem},
    mm::{MapFlags, MmapArgs},
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

/// What a callback found: the number of mappings, and the answer to a new seal.
type Found = (usize, Result<(), SealError>);

struct Asker {
    gate: Gate<OrderedStore<Vpn>, (), Atomic>,
    machine: Arc<Machine>,
    file: Arc<File>,
    found: Mutex<Option<Found>>,
}

impl SpinningMmu for Asker {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        let mut found = self.found.lock().unwrap();
        if found.is_none() {
            // Another thread maps the file, and waits for the walk.
            let (machine, file) = (Arc::clone(&self.machine), Arc::clone(&self.file));
            thread::spawn(move || map_elsewhere(&machine, &file));
            thread::sleep(Duration::from_millis(200));
            *found = Some(ask(&self.file));
        }
        self.gate.exclude_entries(cx, inv)
    }
}

fn ask(file: &File) -> Found {
    let seals = Seals::WRITE | Seals::SHRINK;
    (file.object().mapping().vmas(), file.add_seals(seals))
}

fn map_elsewhere(machine: &Arc<Machine>, file: &Arc<File>) {
    let mut thread = machine.enter().unwrap();
    let mm = Mm::new(machine);
    let args = MmapArgs::anonymous(PAGE).shared().file(file, 0);
    mm.mmap(&mut thread.cx(), &args).unwrap();
    mm.exit(&mut thread.cx());
}

fn ends(work: impl FnOnce() + Send + 'static) {
    ends_within(Duration::from_secs(300), work);
}

/// A truncation that began is not sealed in the middle: no object shrinks that is sealed against
/// it.
#[test]
fn a_truncation_calls_a_driver_that_asks() {
    ends(|| {
        let mut w = World::new();
        let memory = Shmem::sealable(w.machine.host(), "asked", 4 * PAGE).unwrap();
        let file = File::open(memory, FileMode::ReadWrite);
        w.map_file(0, 4, &file, 0, MapFlags::SHARED);
        let (machine, mm) = (Arc::clone(&w.machine), Arc::clone(&w.mm));
        let (asker, registration) = mm.register(&mut w.thread.cx(), |seat: Seat| {
            Arc::new(Asker {
                gate: Gate::new(seat, OrderedStore::default(), ()),
                machine,
                file: Arc::clone(&file),
                found: Mutex::default(),
            })
        });
        file.truncate(w.thread.cx(), 0).unwrap();
        let found = asker.found.lock().unwrap().take();
        assert_eq!(found, Some((1, Err(SealError::Changing))));
        assert_eq!(
            (file.seals(), file.object().size()),
            (Ok(Seals::empty()), 0)
        );
        mm.unregister(&mut w.thread.cx(), registration);
    });
}

/// A seal of another thread waits for the truncation.
#[test]
fn a_seal_waits_for_a_truncation() {
    struct Slow(Gate<OrderedStore<Vpn>, (), Atomic>, AtomicBool);
    impl SpinningMmu for Slow {
        fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
            self.1.store(true, SeqCst);
            thread::sleep(Duration::from_millis(200));
            self.0.exclude_entries(cx, inv)
        }
    }
    let mut w = World::new();
    let memory = Shmem::sealable(w.machine.host(), "asked", 4 * PAGE).unwrap();
    let file = File::open(memory, FileMode::ReadWrite);
    w.map_file(0, 4, &file, 0, MapFlags::SHARED);
    let mm = Arc::clone(&w.mm);
    let (slow, _registration) = mm.register(&mut w.thread.cx(), |seat: Seat| {
        let gate = Gate::new(seat, OrderedStore::default(), ());
        Arc::new(Slow(gate, AtomicBool::new(false)))
    });
    thread::scope(|s| {
        s.spawn(|| {
            while !slow.1.load(SeqCst) {
                thread::yield_now();
            }
            file.add_seals(Seals::SHRINK).unwrap();
            assert_eq!(file.object().size(), 0, "sealed in the middle");
        });
        file.truncate(w.thread.cx(), 0).unwrap();
    });
}

/// `mremap` moves entries with the reverse map locked exclusively, and flushes devices meanwhile.
#[test]
fn a_move_flushes_a_device_that_asks() {
    struct Iommu(TlbGate<()>, Arc<File>, Mutex<Vec<Found>>);
    impl SecondaryTlb for Iommu {
        fn flush(&self, cx: AtomicCallbackCx<'_>, range: VpnRange) {
            self.2.lock().unwrap().push(ask(&self.1));
            self.0.flush(cx, range, |(), _| ());
        }
    }
    ends(|| {
        let mut w = World::new();
        let file = shmem(&mut w, 4);
        w.map_file(0, 4, &file, 0, MapFlags::SHARED);
        w.fill(0, 4);
        let mm = Arc::clone(&w.mm);
        let (iommu, _registration) = mm.register_tlb(&mut w.thread.cx(), |seat| {
            let gate = TlbGate::new(seat, ());
            Arc::new(Iommu(gate, Arc::clone(&file), Mutex::default()))
        });
        // A mapping that moves is one throughout; a part of it is copied first.
        for (mv, vmas) in [
            (remap(0, 4, 4, FIXED, 100), 1),
            (remap(102, 2, 2, FIXED, 200), 2),
        ] {
            w.mremap(mv).unwrap();
            let found = std::mem::take(&mut *iommu.2.lock().unwrap());
            let asked = (vmas, Err(SealError::Changing));
            assert!(found.contains(&asked), "{found:?}");
        }
        assert_eq!(w.get(100), Ok(1));
    });
}

//! Another process stores to a file of huge pages while a driver drops its translations of a
//! mapping that changes. The page does not come into the table of that mapping any more, though the
//! other process may join its table.

use emmu::{
    HugePoolConfig, HugeSize, Machine, MachineConfig, MemConfig, Mm, PAGE_SIZE,
    addr::{Vpn, VpnRange},
    ctx::{AtomicCallbackCx, CallCx},
    file::{File, FileMode, HugetlbFile},
    mm::{MapFlags, MmapArgs, Prot, Pte},
    notifier::{SecondaryTlb, TlbGate},
};
use std::{
    sync::{Arc, Mutex, Weak},
    thread,
};

const GIB: u64 = 1 << 30;
const HUGE: u64 = 512 * PAGE_SIZE;
const AT: u64 = 4 * GIB;
const POOL: u64 = 4;

/// A driver during whose next flush another process stores.
struct Meanwhile {
    gate: TlbGate<()>,
    stores: Mutex<Weak<Mm>>,
}

impl SecondaryTlb for Meanwhile {
    fn flush(&self, cx: AtomicCallbackCx<'_>, range: VpnRange) {
        self.gate.flush(cx, range, |(), _| ());
        let other = std::mem::take(&mut *self.stores.lock().unwrap()).upgrade();
        if let Some(mm) = other {
            let store = move || {
                let stored = mm
                    .machine()
                    .with_current(|cx| mm.store(cx, AT + 3 * HUGE, 99));
                stored.unwrap().unwrap();
            };
            thread::spawn(store).join().unwrap();
        }
    }
}

/// Two processes with the same mapping of a file of 1 GiB, of which the first one has mapped page
/// 5. It carries `operation` out; in the first flush the other one stores to page 3. Returns the
/// entry of the first one for page 3 then.
fn store_during(operation: impl FnOnce(&Arc<Mm>, &mut CallCx<'_>)) -> Pte {
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 512 * (POOL as u32 + 1),
            ..MemConfig::default()
        },
        huge_pages: HugePoolConfig {
            pages: POOL,
            overcommit: 0,
        },
        ..MachineConfig::default()
    });
    let object = HugetlbFile::memfd(machine.host(), "pool", GIB, HugeSize::Mib2).unwrap();
    let file = File::open(object, FileMode::ReadWrite);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let args = MmapArgs::anonymous(GIB).file(&file, 0).shared();
    let args = args.flags(MapFlags::NORESERVE).fixed(AT);
    let [one, other] = [(); 2].map(|()| Mm::new(&machine));
    for mm in [&one, &other] {
        mm.mmap(&mut cx, &args).unwrap();
    }
    one.store(&mut cx, AT + 5 * HUGE, 7).unwrap();
    let (driver, _registration) = one.register_tlb(&mut cx, |seat| {
        Arc::new(Meanwhile {
            gate: TlbGate::new(seat, ()),
            stores: Mutex::new(Weak::new()),
        })
    });
    *driver.stores.lock().unwrap() = Arc::downgrade(&other);
    operation(&one, &mut cx);
    assert_eq!(driver.stores.lock().unwrap().strong_count(), 0, "it stored");
    let pte = one.walker(&mut cx).pte(Vpn::containing(AT + 3 * HUGE));
    assert_eq!(other.load(&mut cx, AT + 3 * HUGE), Ok(99));
    other.exit(&mut cx);
    one.exit(&mut cx);
    drop((args, file));
    let pool = machine.mem().huge_pool(HugeSize::Mib2);
    assert_eq!(pool.free, POOL, "a page is lost");
    pte
}

#[test]
fn no_page_comes_in_behind_munmap() {
    let pte = store_during(|mm, cx| mm.munmap(cx, AT, GIB).unwrap());
    assert_eq!(pte, Pte::None);
}

#[test]
fn no_page_comes_in_behind_a_mapping_over_it() {
    let pte = store_during(|mm, cx| {
        let over = MmapArgs::anonymous(GIB).flags(MapFlags::NORESERVE);
        mm.mmap(cx, &over.fixed(AT)).unwrap();
    });
    assert_eq!(pte, Pte::None);
}

#[test]
fn no_writable_page_comes_into_read_only_memory() {
    let pte = store_during(|mm, cx| mm.mprotect(cx, AT, GIB, Prot::READ).unwrap());
    assert!(!matches!(pte, Pte::Present { write: true, .. }), "{pte:?}");
}

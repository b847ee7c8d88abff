//! Mistakes that need two threads to show: a device works while the process gives its pages up, until the oracle has found
//! something or the device has used a frame that was given back. Correct drivers do the same for as long, and stay silent.

use emmu::{
    Machine, MachineConfig, Mm,
    addr::{Vpn, VpnRange},
    ctx::{Cx, Sleepable, rank},
    extmmu::{
        References,
        gru::{self, AddressSpace, Context, Gru, GruConfig},
        kvm::{self, Gfn, MemSlot, SlotFlags, Vm, VmConfig},
        xpmem::{self, Owner, OwnerConfig, Partition, PartitionId},
    },
    mm::{Advice, MmapArgs},
    notifier::{Access, ExternalMmu},
    oracle::Oracle,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

type Idle<'t> = Cx<'t, rank::Idle, Sleepable>;
/// One access of a device to the page of that number.
type Use = Box<dyn Fn(&mut Idle<'_>, u64) + Send>;

const BASE: u64 = 1 << 30;
const PAGE: u64 = emmu::PAGE_SIZE;
const PAGES: u64 = 8;

/// Whether anything was found within `limit`.
fn found(
    limit: Duration,
    device: impl FnOnce(&mut Idle<'_>, &Arc<Mm>) -> (Arc<dyn ExternalMmu>, Use),
) -> bool {
    let machine = Machine::new(MachineConfig::default());
    let mm = Mm::new(&machine);
    let oracle = Oracle::new(&machine);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    mm.mmap(&mut cx, &MmapArgs::anonymous(PAGES * PAGE).fixed(BASE))
        .unwrap();
    let (ext, access) = device(&mut cx, &mm);
    oracle.watch(&mm, ext);
    let stop = AtomicBool::new(false);
    let until = Instant::now() + limit;
    let caught = std::thread::scope(|s| {
        let (machine, stop) = (&machine, &stop);
        let user = s.spawn(move || {
            let mut thread = machine.enter().unwrap();
            let mut cx = thread.cx();
            let work = AssertUnwindSafe(|| {
                for n in (0..PAGES).cycle().take_while(|_| !stop.load(Relaxed)) {
                    access(&mut cx, n);
                }
            });
            catch_unwind(work).is_err()
        });
        let mut seen = false;
        while !seen && !user.is_finished() && Instant::now() < until {
            mm.madvise(&mut cx, BASE, PAGES * PAGE, Advice::DontNeed)
                .unwrap();
            for n in 0..PAGES {
                mm.store(&mut cx, BASE + n * PAGE, 1).unwrap();
            }
            oracle.audit();
            seen = !oracle.take().is_empty();
        }
        stop.store(true, Relaxed);
        user.join().unwrap() || seen
    });
    mm.exit(&mut cx);
    caught
}

fn kvm(
    mistake: Option<kvm::Mistake>,
) -> impl FnOnce(&mut Idle<'_>, &Arc<Mm>) -> (Arc<dyn ExternalMmu>, Use) {
    move |cx, mm| {
        let config = VmConfig {
            mistake,
            ..VmConfig::default()
        };
        let (vm, _stays) = Vm::create(cx, mm, config);
        let slot = MemSlot {
            id: 0,
            gfn: Gfn(0),
            pages: PAGES,
            hva: Vpn::containing(BASE),
            flags: SlotFlags::empty(),
        };
        vm.set_memory(cx, slot).unwrap();
        let vcpu = vm.vcpu(cx);
        let cache = vm.pfn_cache(0);
        let access: Use = Box::new(move |cx, n| {
            vcpu.load(cx, n * PAGE).unwrap();
            cache.read(cx, 0, &mut [0]).unwrap();
        });
        (vm, access)
    }
}

fn gru(
    mistake: Option<gru::Mistake>,
) -> impl FnOnce(&mut Idle<'_>, &Arc<Mm>) -> (Arc<dyn ExternalMmu>, Use) {
    move |cx, mm| {
        let config = GruConfig {
            preload: 4,
            ..GruConfig::default()
        };
        let grus = Gru::several(1, config);
        let (space, _stays) = AddressSpace::attach(cx, mm, &grus, mistake);
        let context = Context::new(&space, 0);
        let access: Use = Box::new(move |cx, n| {
            context.read(cx, BASE + n * PAGE, &mut [0]).unwrap();
        });
        (space, access)
    }
}

fn xpmem(
    mistake: Option<xpmem::Mistake>,
) -> impl FnOnce(&mut Idle<'_>, &Arc<Mm>) -> (Arc<dyn ExternalMmu>, Use) {
    move |cx, mm| {
        let config = OwnerConfig {
            references: References::Unpinned,
            mistake,
            ..OwnerConfig::default()
        };
        let (owner, _stays) = Owner::attach(cx, mm, config);
        let first = Vpn::containing(BASE);
        let pages = VpnRange::new(first, first.plus(PAGES)).unwrap();
        let segment = owner.make(pages, Access::Read);
        let partition = Partition::new(PartitionId(1));
        let importer = owner.import(&partition, segment, 0, PAGES).unwrap();
        let access: Use = Box::new(move |cx, n| {
            importer.read(cx, n * PAGE, &mut [0]).unwrap();
        });
        (owner, access)
    }
}

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(500);

#[test]
fn a_lookup_that_is_not_asked_about_again_is_caught() {
    assert!(found(LONG, kvm(Some(kvm::Mistake::NoRetry))));
}

#[test]
fn a_cache_that_becomes_valid_outside_of_its_lock_is_caught() {
    assert!(found(LONG, kvm(Some(kvm::Mistake::EarlyValid))));
}

#[test]
fn a_miss_that_a_purge_does_not_cancel_is_caught() {
    assert!(found(LONG, gru(Some(gru::Mistake::NoDisarm))));
}

#[test]
fn pages_entered_ahead_without_asking_are_caught() {
    assert!(found(LONG, gru(Some(gru::Mistake::BlindPreload))));
}

#[test]
fn a_window_that_counts_itself_in_after_its_purge_is_caught() {
    assert!(found(LONG, gru(Some(gru::Mistake::LateActive))));
}

#[test]
fn a_window_that_counts_itself_out_before_its_end_is_caught() {
    assert!(found(LONG, gru(Some(gru::Mistake::EarlyEnd))));
}

#[test]
fn a_page_that_is_exported_without_asking_again_is_caught() {
    assert!(found(LONG, xpmem(Some(xpmem::Mistake::NoRetry))));
}

#[test]
fn correct_drivers_stay_silent() {
    assert!(!found(SHORT, xpmem(None)));
    assert!(!found(SHORT, kvm(None)));
    assert!(!found(SHORT, gru(None)));
}

//! A device that walks the page table panics as it is flushed or leaves: no other device is harmed,
//! and no address space.

use crate::{
    common::{PAGE, RW, at, numbered::page},
    world::{On, World},
};
use emmu::{
    Machine, Mm,
    driver::{Access, AtomicCallbackCx, SecondaryTlb, TlbGate, TlbRegistration, TlbSeat, VpnRange},
    mm::{Advice, MremapArgs, MremapFlags, Prot, Pte},
    reclaim::RmapWindows,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

struct Walker {
    gate: TlbGate<()>,
    /// Panics in the next flush.
    once: AtomicBool,
    /// Panics in each flush and as it is released.
    always: AtomicBool,
}

impl SecondaryTlb for Walker {
    fn flush(&self, cx: AtomicCallbackCx<'_>, range: VpnRange) {
        let bang = self.once.swap(false, SeqCst) || self.always.load(SeqCst);
        assert!(!bang, "a device that is flushed");
        self.gate.flush(cx, range, |(), _| ());
    }
    fn release(&self, _: AtomicCallbackCx<'_>) {
        assert!(!self.always.load(SeqCst), "a device that leaves");
    }
}

fn seated(w: &mut World) -> (Arc<Walker>, TlbRegistration) {
    let mm = w.mm.clone();
    mm.register_tlb(&mut w.cx(), |seat| {
        Arc::new(Walker {
            gate: TlbGate::new(seat, ()),
            once: AtomicBool::new(false),
            always: AtomicBool::new(false),
        })
    })
}

/// Sixteen pages, which the device may write to.
fn walk_all(w: &mut World, device: &Walker) {
    let mm = w.mm.clone();
    for n in 0..16 {
        assert_eq!(
            mm.walk(&mut w.cx(), &device.gate, page(n), Access::Write),
            Ok(true)
        );
    }
}

fn nothing_stale(w: &mut World, device: &Walker, after: &str) {
    let mm = w.mm.clone();
    let cx = &mut w.cx();
    for (at, pfn, writable) in device.gate.cached() {
        let now = mm.walker(cx).pte(at);
        let agrees = |write: bool| write || !writable;
        assert!(
            matches!(now, Pte::Present { pfn: p, write } if p == pfn && agrees(write)),
            "{at:?} is {now:?} after {after}"
        );
    }
}

type Op = (&'static str, fn(&mut World));

fn ops() -> [Op; 8] {
    fn advise(w: &mut World, advice: Advice) {
        let mm = w.mm.clone();
        mm.madvise(&mut w.cx(), at(0), 8 * PAGE, advice).unwrap();
    }
    [
        ("munmap", |w| {
            let mm = w.mm.clone();
            mm.munmap(&mut w.cx(), at(0), 8 * PAGE).unwrap();
        }),
        ("dontneed", |w| advise(w, Advice::DontNeed)),
        ("pageout", |w| advise(w, Advice::PageOut)),
        ("mprotect", |w| {
            let mm = w.mm.clone();
            mm.mprotect(&mut w.cx(), at(0), 8 * PAGE, Prot::READ)
                .unwrap();
        }),
        ("mmap over it", |w| w.map(0..8, RW)),
        ("mremap", |w| {
            let mm = w.mm.clone();
            let args = MremapArgs {
                addr: at(0),
                old_len: 8 * PAGE,
                new_len: 8 * PAGE,
                flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
                new_addr: at(1000),
            };
            // The second time they have moved, perhaps.
            let _moved = mm.mremap(&mut w.cx(), args);
        }),
        ("migration", |w| {
            let mm = w.mm.clone();
            mm.migrate(&mut w.cx(), at(3)).unwrap();
        }),
        ("fork", |w| {
            let mm = w.mm.clone();
            let child = mm.fork(&mut w.cx()).unwrap();
            w.children.push(child);
        }),
    ]
}

#[test]
fn a_device_that_panics_in_a_flush_keeps_no_other_from_its_own_and_loses_no_frame() {
    for (name, op) in ops() {
        let mut w = World::new(On::Chain, RmapWindows::Sleepable);
        w.map(0..16, RW);
        w.fill(0..16);
        w.take(0..16);
        let (first, leaves) = seated(&mut w);
        let (second, _stays) = seated(&mut w);
        for device in [&first, &second] {
            walk_all(&mut w, device);
        }
        first.once.store(true, SeqCst);
        catch_unwind(AssertUnwindSafe(|| op(&mut w))).expect_err(name);
        assert!(!first.once.load(SeqCst), "{name} flushed nothing");
        nothing_stale(&mut w, &second, name);
        w.check();
        // What the first has may be stale: it gets nothing, and no more.
        let mm = w.mm.clone();
        let cx = &mut w.cx();
        for n in 0..16 {
            let read = first.gate.read(cx, page(n), |frame| frame.read_u8(0));
            assert_eq!(read, None, "page {n} after {name}");
            assert_eq!(mm.walk(cx, &first.gate, page(n), Access::Read), Ok(false));
        }
        leaves.unregister(&mut w.cx());
        // Nothing panics any more.
        op(&mut w);
        nothing_stale(&mut w, &second, name);
        w.end();
    }
}

#[test]
fn an_address_space_ends_whatever_its_devices_do_as_they_leave() {
    for dropped in [false, true] {
        let machine = Machine::new(emmu::MachineConfig::default());
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        let mm = Mm::new(&machine);
        let args = emmu::mm::MmapArgs::anonymous(PAGE).fixed(at(0));
        mm.mmap(&mut cx, &args).unwrap();
        mm.store(&mut cx, at(0), 7).unwrap();
        let new = |seat: TlbSeat| {
            Arc::new(Walker {
                gate: TlbGate::new(seat, ()),
                once: AtomicBool::new(false),
                always: AtomicBool::new(true),
            })
        };
        let devices = [(); 2].map(|()| mm.register_tlb(&mut cx, new));
        for (device, _registration) in &devices {
            let walked = mm.walk(&mut cx, &device.gate, page(0), Access::Read);
            assert_eq!(walked, Ok(true));
        }
        let end = AssertUnwindSafe(|| match dropped {
            true => drop(mm),
            false => {
                let exit = catch_unwind(AssertUnwindSafe(|| mm.exit(&mut cx)));
                assert_eq!(mm.maps(&mut cx).len(), 0);
                exit.unwrap_or_else(|why| resume_unwind(why));
            }
        });
        catch_unwind(end).expect_err("they always panic");
        for (device, _registration) in &devices {
            let read = device.gate.read(&mut cx, page(0), |frame| frame.read_u8(0));
            assert_eq!(read, None);
        }
        assert_eq!((machine.mem().in_use(), machine.commit().pages()), (0, 0));
    }
}

#[test]
fn a_device_that_is_not_built_is_not_counted() {
    let mut w = World::new(On::Chain, RmapWindows::Sleepable);
    w.sixteen();
    let mm = w.mm.clone();
    let build = AssertUnwindSafe(|| {
        let _never = mm.register_tlb::<Walker>(&mut w.cx(), |_| panic!("not built"));
    });
    catch_unwind(build).unwrap_err();
    w.end();
}

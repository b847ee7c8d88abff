//! Each mistake of guest files is found.

use super::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The audit's answer to a machine with a mistake, after `f`, and that of the processor to a load
/// of guest address 0. `f` returns the file if it stays open.
fn mistaken(
    mistake: GuestMemoryMistake,
    f: impl FnOnce(&mut CallCx<'_>, &World, Arc<GuestMemfd>) -> Option<Arc<GuestMemfd>>,
) -> (Vec<GuestFinding>, Result<Result<u8, Exit>, String>) {
    let machine = Machine::new(Default::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let config = VmConfig {
        guest_mistake: Some(mistake),
        ..of(VmType::SwProtected)
    };
    let world = World::new(&mut cx, &machine, config);
    let memfd = world.vm.create_guest_memfd(PAGES * PAGE, NONE).unwrap();
    let slot = slot(0, 0, PAGES);
    world.vm.set_guest_memory(&mut cx, slot, &memfd, 0).unwrap();
    world.vcpu.store(&mut cx, 0, 1).unwrap();
    let _open = f(&mut cx, &world, memfd);
    let mut found = world.vm.audit_guest_memory();
    found.dedup();
    let load = || world.vcpu.load(&mut cx, 0);
    let used = catch_unwind(AssertUnwindSafe(load)).map_err(|why| {
        let why = why.downcast::<String>().expect("a message");
        why.split(':').next().expect("one part").to_owned()
    });
    (found, used.map_err(|why| why.chars().take(18).collect()))
}

fn stale_use() -> Result<Result<u8, Exit>, String> {
    Err("stale reference to".into())
}

#[test]
fn a_hole_that_leaves_entries_is_found() {
    let (found, used) = mistaken(GuestMemoryMistake::PunchKeepsEntries, |cx, world, memfd| {
        world.convert(cx, 0, PAGES, PRIVATE);
        world.vcpu.store(cx, 0, 2).unwrap();
        open(&memfd).punch_hole(cx.reborrow(), 0, PAGE).unwrap();
        Some(memfd)
    });
    assert_eq!(
        (found, used),
        (vec![GuestFinding::Stale(Gfn(0))], stale_use())
    );
}

/// C51: the slot goes on with pages of a file that does not know it.
#[test]
fn a_slot_whose_file_is_flipped_off_is_found() {
    let (found, used) = mistaken(GuestMemoryMistake::FlagFlip, |cx, world, memfd| {
        world.convert(cx, 0, PAGES, PRIVATE);
        world.vcpu.store(cx, 0, 2).unwrap();
        let flipped = MemSlot {
            flags: SlotFlags::empty(),
            ..slot(0, 0, PAGES)
        };
        world.vm.set_memory(cx, flipped).unwrap();
        drop(memfd);
        None
    });
    assert_eq!(
        (found, used),
        (vec![GuestFinding::Stale(Gfn(0))], stale_use())
    );
}

#[test]
fn a_conversion_that_removes_the_wrong_kind_is_found() {
    let (found, used) = mistaken(GuestMemoryMistake::WrongKindZapped, |cx, world, memfd| {
        world.convert(cx, 0, PAGES, PRIVATE);
        Some(memfd)
    });
    let wrong = |kind| GuestFinding::WrongKind { gfn: Gfn(0), kind };
    assert_eq!((found, used), (vec![wrong(PageKind::Shared)], Ok(Ok(1))));
    let (found, used) = mistaken(GuestMemoryMistake::WrongKindZapped, |cx, world, memfd| {
        world.convert(cx, 1, 1, PRIVATE);
        world.vcpu.store(cx, PAGE, 2).unwrap();
        world.convert(cx, 1, 1, SHARED);
        Some(memfd)
    });
    let wrong = |kind| GuestFinding::WrongKind { gfn: Gfn(1), kind };
    assert_eq!((found, used), (vec![wrong(PageKind::Private)], Ok(Ok(1))));
}

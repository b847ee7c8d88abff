//! A device behind an IOMMU that pins, as with VFIO: its memory stays where it is, whatever the
//! kernel would like to move, and no notifier is needed. Then live migration by dirty bits, and two
//! drivers with a mistake.
//!
//! ```text
//! cargo run --example iommu_dma
//! ```

use emmu::{
    Machine, MachineConfig, Mm, PAGE_SIZE,
    ctx::CallCx,
    extmmu::pinned::{
        DirtyRead, DmaFault, Domain, DomainConfig, Ioas, IoasConfig, IoasMap, PinMistake,
    },
    mm::{Advice, MmapArgs},
    notifier::Access,
};
use std::{error::Error, sync::Arc};

const GUEST: u64 = 1 << 40;
const PAGES: u64 = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let mut config = MachineConfig::default();
    config.memory.swap = 1024;
    let machine = Machine::new(config);
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    mm.mmap(
        &mut cx,
        &MmapArgs::anonymous(PAGES * PAGE_SIZE).fixed(GUEST),
    )?;

    // The guest's memory is mapped at I/O address 0, and pinned.
    let (ioas, device) = give(&mut cx, &mm, None)?;
    println!("pinned: {} pages", ioas.pinned());
    // Operations that move pages pass them over.
    mm.store(&mut cx, GUEST, 1)?;
    mm.madvise(&mut cx, GUEST, PAGES * PAGE_SIZE, Advice::PageOut)?;
    let moved = mm.migrate(&mut cx, GUEST)?;
    println!(
        "swapped out: {}, moved: {moved:?}",
        machine.mem().swap().used()
    );

    // A fork copies them for the child: the device stays with its process.
    let child = mm.fork(&mut cx)?;
    device.write(0, &[7])?;
    let (parent, child_sees) = (mm.load(&mut cx, GUEST)?, child.load(&mut cx, GUEST)?);
    println!("the device writes 7: the parent reads {parent}, the child {child_sees}");
    child.exit(&mut cx);

    // Live migration copies all pages, then those that the device wrote meanwhile.
    device.track_dirty(true)?;
    for page in [3, 4, 17] {
        device.write(page * PAGE_SIZE + 8, &[0xd1])?;
    }
    let all = (0, PAGES * PAGE_SIZE);
    let dirty = ioas.dirty_bitmap(&device, all, PAGE_SIZE, DirtyRead::Clear)?;
    let pages: Vec<u64> = dirty.iter().map(|iova| iova / PAGE_SIZE).collect();
    println!("written by the device: pages {pages:?}");

    // The unmapping ends the device's access before it unpins.
    ioas.unmap(0, PAGES * PAGE_SIZE)?;
    println!("after the unmapping: {}", outcome(device.read(0, &mut [0])));

    mistakes(&mut cx, &mm)?;
    mm.exit(&mut cx);
    Ok(())
}

/// Shows a device whose driver makes a mistake.
fn mistakes(cx: &mut CallCx<'_>, mm: &Arc<Mm>) -> Result<(), Box<dyn Error>> {
    for mistake in [PinMistake::NoFlush, PinMistake::DirtyNotFlushed] {
        println!("\n{mistake:?}:");
        let (ioas, device) = give(cx, mm, Some(mistake))?;
        device.track_dirty(true)?;
        for round in 1..=2 {
            device.write(0, &[round])?;
            let dirty =
                ioas.dirty_bitmap(&device, (0, PAGES * PAGE_SIZE), PAGE_SIZE, DirtyRead::Clear)?;
            println!("  write {round} is reported: {}", !dirty.is_clean());
        }
        ioas.unmap_all()?;
        println!(
            "  after the unmapping: {}",
            outcome(device.read(0, &mut [0]))
        );
    }
    Ok(())
}

/// Maps the guest's memory for a device.
fn give(
    cx: &mut CallCx<'_>,
    mm: &Arc<Mm>,
    mistake: Option<PinMistake>,
) -> Result<(Arc<Ioas>, Arc<Domain>), Box<dyn Error>> {
    let ioas = Ioas::new(IoasConfig::default());
    let config = DomainConfig {
        mistake,
        ..DomainConfig::default()
    };
    let device = ioas.attach(cx, config)?;
    let map = IoasMap {
        iova: Some(0),
        addr: GUEST,
        len: PAGES * PAGE_SIZE,
        access: Access::Write,
    };
    ioas.map(cx, mm, map)?;
    Ok((ioas, device))
}

fn outcome(transfer: Result<(), DmaFault>) -> String {
    transfer.map_or_else(
        |fault| fault.to_string(),
        |()| "the transfer is done".to_owned(),
    )
}

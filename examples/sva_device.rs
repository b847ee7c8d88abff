//! A device that shares the page table of a process (SVA): it uses the addresses of the process,
//! asks for pages that are not there, and is flushed before they go. Then two IOMMUs with a
//! mistake.
//!
//! ```text
//! cargo run --example sva_device
//! ```

use emmu::{
    Machine, MachineConfig, Mm, PAGE_SIZE,
    ctx::CallCx,
    extmmu::sva::{Iommu, SvaConfig, SvaDevice, SvaMistake},
    mm::{Advice, MmapArgs, Prot},
    oracle::Oracle,
};
use std::{error::Error, sync::Arc};

const PAGES: u64 = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGES * PAGE_SIZE))?;

    let iommu = Iommu::new(SvaConfig::default());
    let device = SvaDevice::new(&iommu);
    let bond = iommu.bind(&mut cx, &mm, &device)?;
    let pasid = bond.pasid();
    println!("the process has PASID {}", pasid.0);

    // The process has touched the first page; the device touches the second.
    mm.store(&mut cx, at, 7)?;
    let mut byte = [0];
    device.read(&mut cx, pasid, at, &mut byte)?;
    println!("the device reads {}: {}", byte[0], state(&iommu, &device));
    device.write(&mut cx, pasid, at + PAGE_SIZE, b"D")?;
    println!(
        "it writes a page that was not there: {}",
        state(&iommu, &device)
    );

    // A right is lost: a flush. It comes back: no flush, the device walks again.
    mm.mprotect(&mut cx, at, PAGE_SIZE, Prot::READ)?;
    println!("after mprotect to read: {}", state(&iommu, &device));
    let refused = device.write(&mut cx, pasid, at, b"x").unwrap_err();
    println!("a write is refused: {refused}");
    mm.mprotect(&mut cx, at, PAGE_SIZE, Prot::READ | Prot::WRITE)?;
    device.write(&mut cx, pasid, at, b"y")?;
    println!("and allowed again: {}", state(&iommu, &device));

    // The page goes: flush, then free. The device finds zeros.
    mm.madvise(&mut cx, at, PAGE_SIZE, Advice::DontNeed)?;
    device.read(&mut cx, pasid, at, &mut byte)?;
    println!("after MADV_DONTNEED the device reads {}", byte[0]);

    // The process ends before the device is unbound: its accesses are aborted.
    mm.exit(&mut cx);
    let gone = device.read(&mut cx, pasid, at, &mut byte).unwrap_err();
    println!("after the exit: {gone}");
    bond.unbind(&mut cx);
    let bill = iommu.bill();
    println!(
        "bill: {} flushes, {} translations, {} of them again, {} page requests",
        bill.windows,
        bill.faults,
        bill.refaults,
        iommu.requests().groups
    );

    for mistake in [SvaMistake::NoAtcFlush, SvaMistake::AnswersTwice] {
        broken(&mut cx, &machine, mistake)?;
    }
    Ok(())
}

/// Shows an IOMMU whose driver makes a mistake.
fn broken(
    cx: &mut CallCx<'_>,
    machine: &Arc<Machine>,
    mistake: SvaMistake,
) -> Result<(), Box<dyn Error>> {
    println!("\n{mistake:?}:");
    let mm = Mm::new(machine);
    let iommu = Iommu::new(SvaConfig {
        mistake: Some(mistake),
        ..SvaConfig::default()
    });
    let device = SvaDevice::new(&iommu);
    let bond = iommu.bind(cx, &mm, &device)?;
    let oracle = Oracle::new(machine);
    oracle.watch_tlb(&mm, bond.tlb());
    let at = mm.mmap(cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    device.write(cx, bond.pasid(), at, b"D")?;
    mm.madvise(cx, at, PAGE_SIZE, Advice::DontNeed)?;
    oracle.take().iter().take(1).for_each(|f| println!("  {f}"));
    let requests = iommu.requests();
    println!(
        "  {} requests, {} stray answers",
        requests.groups, requests.stray
    );
    bond.unbind(cx);
    mm.exit(cx);
    Ok(())
}

fn state(iommu: &Iommu, device: &SvaDevice) -> String {
    let (requests, bill) = (iommu.requests().groups, iommu.bill());
    format!(
        "{requests} page requests, {} translations, {} flushes, {} in the ATC",
        bill.faults,
        bill.windows,
        device.atc_len()
    )
}

//! An RDMA adapter that pages on demand: it faults pages in, follows the process through windows,
//! takes advice, and makes parts of an implicit region as they are used. Then two drivers with a
//! mistake.
//!
//! ```text
//! cargo run --example odp_region
//! ```

use emmu::{
    Machine, MachineConfig, Mm, PAGE_SIZE,
    ctx::CallCx,
    extmmu::odp::{Adapter, OdpAdvice, OdpConfig, OdpMistake},
    mm::{Advice, MmapArgs},
    notifier::Access,
    oracle::Oracle,
};
use std::{error::Error, sync::Arc};

const PAGES: u64 = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGES * PAGE_SIZE))?;

    let adapter = Adapter::new(OdpConfig::default());
    let key = adapter.register(&mut cx, &mm, (at, PAGES * PAGE_SIZE), Access::Write)?;
    println!("registered: {}", state(&adapter));

    // The first access of a page is a page fault; the next one is a hit.
    let mut byte = [0];
    for _ in 0..2 {
        adapter.read(&mut cx, key, at, &mut byte)?;
        println!("reads {}: {}", byte[0], state(&adapter));
    }
    adapter.write(&mut cx, key, at, b"R")?;
    println!("writes, so the zero page is replaced: {}", state(&adapter));

    // Advice brings in the rest before it is used.
    let all = (at, PAGES * PAGE_SIZE);
    let pages = adapter.advise(&mut cx, key, all, OdpAdvice::PrefetchWrite)?;
    adapter.write(&mut cx, key, at + 9 * PAGE_SIZE, b"R")?;
    println!("{pages} pages prefetched: {}", state(&adapter));

    // A window takes pages out of the adapter's table, and the next access faults again.
    mm.madvise(&mut cx, at, 8 * PAGE_SIZE, Advice::DontNeed)?;
    println!("after MADV_DONTNEED: {}", state(&adapter));
    adapter.read(&mut cx, key, at, &mut byte)?;
    println!("reads {}: {}", byte[0], state(&adapter));
    adapter.deregister(&mut cx, key)?;

    // All of memory under one key: children come as they are used, and go when they are empty.
    let key = adapter.register_implicit(&mm, Access::Write);
    let implicit = adapter.implicit(key).ok_or("it is implicit")?;
    for n in [0, 1, 2] {
        let far = MmapArgs::anonymous(PAGE_SIZE).fixed((1 << 40) + (n << 30));
        let at = mm.mmap(&mut cx, &far)?;
        adapter.write(&mut cx, key, at, b"R")?;
    }
    println!("\nimplicit: {} children", implicit.children());
    mm.munmap(&mut cx, 1 << 40, PAGE_SIZE)?;
    let ended = implicit.reap(&mut cx);
    println!(
        "after munmap the worker ends {ended}: {} children",
        implicit.children()
    );
    adapter.deregister(&mut cx, key)?;

    for mistake in [OdpMistake::NoZap, OdpMistake::LostDirty] {
        broken(&mut cx, &machine, mistake)?;
    }
    mm.exit(&mut cx);
    Ok(())
}

/// Shows an adapter whose driver makes a mistake.
fn broken(
    cx: &mut CallCx<'_>,
    machine: &Arc<Machine>,
    mistake: OdpMistake,
) -> Result<(), Box<dyn Error>> {
    println!("\n{mistake:?}:");
    let mm = Mm::new(machine);
    let adapter = Adapter::new(OdpConfig {
        mistake: Some(mistake),
        ..OdpConfig::default()
    });
    let at = mm.mmap(cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    let key = adapter.register(cx, &mm, (at, PAGE_SIZE), Access::Write)?;
    let oracle = Oracle::new(machine);
    let region = adapter.region(key, at).ok_or("it is registered")?;
    oracle.watch(&mm, region);
    adapter.write(cx, key, at, b"R")?;
    mm.madvise(cx, at, PAGE_SIZE, Advice::DontNeed)?;
    oracle.take().iter().take(1).for_each(|f| println!("  {f}"));
    adapter.deregister(cx, key)?;
    mm.exit(cx);
    Ok(())
}

fn state(adapter: &Adapter) -> String {
    let (faults, bill) = (adapter.faults(), adapter.bill());
    format!(
        "{} page faults, {} translations, {} pages dropped by {} windows",
        faults.raised, bill.faults, bill.dropped, bill.windows
    )
}

//! A TLB without page tables and without references: only the notifier keeps it coherent. It runs
//! with a driver that purges, then with two that make a mistake, which the oracle finds.
//!
//! ```text
//! cargo run --example gru_tlb
//! ```

use emmu::{
    Machine, MachineConfig, Mm,
    extmmu::gru::{Gru, GruConfig, GruContext, GruMistake, GruSpace},
    mm::{Advice, MmapArgs},
    notifier::ExternalMmu,
    oracle::{Finding, Oracle},
};
use std::{error::Error, sync::Arc};

const BASE: u64 = 0x10_0000_0000;
const PAGE: u64 = emmu::PAGE_SIZE;

fn main() -> Result<(), Box<dyn Error>> {
    let drivers = [
        ("a driver that purges", None),
        ("a driver that does not", Some(GruMistake::NoPurge)),
        (
            "a driver that purges when the window ends",
            Some(GruMistake::LatePurge),
        ),
    ];
    for (driver, mistake) in drivers {
        println!("{driver}:");
        let findings = life(mistake)?;
        findings.iter().take(3).for_each(|f| println!("  {f}"));
        println!("  the oracle has found {}\n", findings.len());
    }
    Ok(())
}

fn life(mistake: Option<GruMistake>) -> Result<Vec<Finding>, Box<dyn Error>> {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    mm.mmap(&mut cx, &MmapArgs::anonymous(64 * PAGE).fixed(BASE))?;

    let config = GruConfig {
        preload: 3,
        ..GruConfig::default()
    };
    let grus = Gru::several(1, config);
    let (space, _stays) = GruSpace::attach(&mut cx, &mm, &grus, mistake);
    let oracle = Oracle::new(&machine);
    oracle.watch(&mm, Arc::clone(&space) as Arc<dyn ExternalMmu>);

    // The first instruction misses. The page is not present, so the interrupt path cannot serve the
    // miss; the user path serves it.
    let context = GruContext::new(&space, 0)?;
    context.write(&mut cx, BASE, b"by the GRU")?;
    // The process stores to the next pages. The interrupt path finds them, and preloads their
    // neighbours as well.
    for n in 1..8 {
        mm.store(&mut cx, BASE + n * PAGE, 1)?;
    }
    let mut byte = [0];
    for n in 1..8 {
        context.read(&mut cx, BASE + n * PAGE, &mut byte)?;
    }
    println!("  {} entries in the TLB", grus[0].tlb_len());

    // Pages go, and the driver purges in the window unless it makes the mistake. A context that is
    // not loaded needs no purge: it will be loaded again with another identifier.
    mm.madvise(&mut cx, BASE, 4 * PAGE, Advice::DontNeed)?;
    println!("  {} after four pages went", grus[0].tlb_len());
    context.unload();
    mm.madvise(&mut cx, BASE, 8 * PAGE, Advice::DontNeed)?;
    println!(
        "  {} after all went while the context was not loaded",
        grus[0].tlb_len()
    );
    println!("  {:?}", grus[0].stats());

    mm.exit(&mut cx);
    oracle.audit_end(&mm);
    Ok(oracle.take())
}

//! Memory of one process in other partitions of the machine: a page goes only when all who have it have answered. One
//! partition is slow, one dies of the question, one never answers.
//!
//! ```text
//! cargo run --example xpmem_remote
//! ```

use emmu::{
    Machine, MachineConfig, Mm,
    addr::{Vpn, VpnRange},
    ctx::{Cx, Sleepable, rank},
    extmmu::xpmem::{Attachment, Manners, Owner, OwnerConfig, Partition, PartitionId},
    mm::{Advice, MmapArgs},
    notifier::{Access, ExternalMmu},
    oracle::Oracle,
};
use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

const BASE: u64 = 0x10_0000_0000;
const PAGE: u64 = emmu::PAGE_SIZE;

fn main() -> Result<(), Box<dyn Error>> {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    mm.mmap(&mut cx, &MmapArgs::anonymous(16 * PAGE).fixed(BASE))?;
    let config = OwnerConfig {
        deadline: Duration::from_millis(200),
        ..OwnerConfig::default()
    };
    let (owner, registration) = Owner::attach(&mut cx, &mm, config);
    let oracle = Oracle::new(&machine);
    oracle.watch(&mm, Arc::clone(&owner) as Arc<dyn ExternalMmu>);

    // The process exports its memory; three partitions attach it.
    let all = VpnRange::new(Vpn::containing(BASE), Vpn::containing(BASE + 16 * PAGE));
    let segment = owner.make(all.ok_or("no pages")?, Access::Write);
    let partitions = [1, 2, 3].map(|n| Partition::new(PartitionId(n)));
    let mut importers = Vec::new();
    for partition in &partitions {
        importers.push(owner.import(partition, segment, 0, 16)?);
    }
    importers[0].write(&mut cx, 0, b"from partition 1")?;
    let mut seen = [0; 16];
    importers[2].read(&mut cx, 0, &mut seen)?;
    println!("partition 3 reads {:?}", String::from_utf8_lossy(&seen));
    importers[1].read(&mut cx, 0, &mut seen)?;
    println!("frames exported: {}", owner.exported(&mut cx));

    // The process gives the page up. Everybody answers, one after 50 ms.
    partitions[0].set_manners(Manners::Slow(Duration::from_millis(50)));
    let since = Instant::now();
    mm.madvise(&mut cx, BASE, PAGE, Advice::DontNeed)?;
    println!(
        "\nall answered, the page is gone after {:.0?}",
        since.elapsed()
    );
    println!("frames exported: {}", owner.exported(&mut cx));

    death_and_silence(&mut cx, &mm, &owner, &partitions, &importers)?;

    println!("\n{:#?}", owner.bill());
    mm.unregister(&mut cx, registration);
    mm.exit(&mut cx);
    oracle.audit_end(&mm);
    oracle.audit_empty(&mut cx, 0);
    oracle.assert_silent();
    println!("the oracle is silent");
    Ok(())
}

/// One partition dies of the question, and one hangs.
fn death_and_silence(
    cx: &mut Cx<'_, rank::Idle, Sleepable>,
    mm: &Mm,
    owner: &Owner,
    partitions: &[Arc<Partition>; 3],
    importers: &[Attachment],
) -> Result<(), Box<dyn Error>> {
    let mut seen = [0; 16];
    for importer in importers {
        importer.write(cx, 0, b"again")?;
    }
    partitions[1].set_manners(Manners::Dies);
    partitions[2].set_manners(Manners::Hangs);
    let since = Instant::now();
    mm.madvise(cx, BASE, PAGE, Advice::DontNeed)?;
    println!(
        "\none died, one hung, the page is gone after {:.0?}",
        since.elapsed()
    );
    for failure in owner.failures() {
        println!("{failure}");
    }
    for (n, importer) in importers.iter().enumerate() {
        match importer.read(cx, 0, &mut seen) {
            Ok(()) => println!("partition {} goes on", n + 1),
            Err(e) => println!("partition {}: {e}", n + 1),
        }
    }
    Ok(())
}

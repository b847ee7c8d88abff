//! A space of 1 TiB with 16 Mi pages touched, and one of 65,530 mappings: what they cost.
//!
//! Fails if the first takes more than 1.5 GiB, or a munmap+mmap pair in the second more than 5 µs.

use emmu::{
    Contents, Machine, MachineConfig, MemConfig, Mm, PAGE_SIZE,
    ctx::{Cx, Sleepable, rank},
    mm::{MapFlags, MmapArgs, Prot},
};
use std::{error::Error, sync::Arc, time::Instant};

const BASE: u64 = 1 << 40;
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Peak resident memory of this process in bytes, where the system tells.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

fn machine(frames: u32) -> Arc<Machine> {
    Machine::new(MachineConfig {
        memory: MemConfig {
            frames,
            contents: Contents::None,
        },
        overcommit: emmu::Overcommit::Always,
        ..MachineConfig::default()
    })
}

/// Every 32nd block of 2 MiB is touched, page by page: 16 Mi pages all over 1 TiB.
fn terabyte(cx: &mut Cx<'_, rank::Idle, Sleepable>, mm: &Mm, machine: &Machine) -> Outcome<()> {
    let rw = MmapArgs::anonymous(TIB).fixed(BASE);
    mm.mmap(cx, &rw.with(MapFlags::NORESERVE))?;
    let start = Instant::now();
    for block in (0..TIB).step_by(32 * MIB as usize) {
        for at in (block..block + 2 * MIB).step_by(PAGE_SIZE as usize) {
            mm.store(cx, BASE + at, 1)?;
        }
    }
    let pages = u64::from(machine.mem().in_use());
    println!(
        "1 TiB: {pages} pages touched in {} tables, {:.0} ns a page",
        mm.tables(),
        start.elapsed().as_nanos() as f64 / pages as f64
    );
    let start = Instant::now();
    mm.munmap(cx, BASE, TIB)?;
    println!(
        "munmap: {:.0} ns a page",
        start.elapsed().as_nanos() as f64 / pages as f64
    );
    match peak() {
        None => println!("skipped: peak memory, no /proc/self/status"),
        Some(peak) => {
            println!("peak memory {} MiB", peak / MIB);
            assert!(peak < 1536 * MIB, "more than 1.5 GiB");
        }
    }
    Ok(())
}

/// Mappings that cannot merge: neighbours differ in their rights.
fn many(cx: &mut Cx<'_, rank::Idle, Sleepable>, mm: &Mm) -> Outcome<()> {
    let count = 65_530_u64;
    let args = |n: u64| {
        let prot = if n.is_multiple_of(2) {
            Prot::READ
        } else {
            Prot::READ | Prot::WRITE
        };
        MmapArgs::anonymous(PAGE_SIZE)
            .fixed(BASE + n * PAGE_SIZE)
            .prot(prot)
    };
    for n in 0..count {
        mm.mmap(cx, &args(n))?;
    }
    let (rounds, mut n) = (100_000_u64, 1);
    let start = Instant::now();
    for _ in 0..rounds {
        n = (n * 48_271 + 11) % count;
        mm.munmap(cx, BASE + n * PAGE_SIZE, PAGE_SIZE)?;
        mm.mmap(cx, &args(n))?;
    }
    let pair = start.elapsed().as_nanos() as f64 / rounds as f64;
    println!(
        "{} mappings: {pair:.0} ns a munmap+mmap pair",
        mm.map_count(cx)
    );
    assert!(pair < 5000.0, "more than 5 µs");
    Ok(())
}

fn main() -> Outcome<()> {
    let machine = machine(1 << 25);
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    terabyte(&mut cx, &mm, &machine)?;
    many(&mut cx, &mm)?;
    mm.exit(&mut cx);
    assert_eq!((machine.mem().in_use(), mm.tables()), (0, 0));
    Ok(())
}

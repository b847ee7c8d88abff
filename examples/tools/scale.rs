//! How far it goes: 1 TiB with 16 Mi pages touched all over it, and a map filled up to its 65,530
//! VMAs.
//!
//! ```text
//! cargo run --release --example scale
//! ```
//!
//! Fails if the first takes 1.5 GiB or more, or if in the second a munmap+mmap pair takes 5 µs or
//! more.

use emmu::{
    Contents, Machine, MachineConfig, MemConfig, Mm, Overcommit, PAGE_SIZE,
    ctx::CallCx,
    mm::{MapFlags, MmapArgs, Prot},
};
use std::{
    error::Error,
    time::{Duration, Instant},
};

type Outcome = Result<(), Box<dyn Error>>;

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;
/// A multiple of 512 GiB.
const BASE: u64 = TIB;
/// Of each so many bytes the first 2 MiB are touched.
const STRIDE: u64 = 32 * MIB;
const TOUCHED: u64 = TIB / STRIDE * (2 * MIB / PAGE_SIZE);
/// `vm.max_map_count`.
const VMAS: u64 = 65_530;

fn main() -> Outcome {
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            swap: 0,
            frames: 1 << 25,
            contents: Contents::None,
        },
        overcommit: Overcommit::Always,
        ..MachineConfig::default()
    });
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    terabyte(&mut cx, &mm)?;
    full_map(&mut cx, &mm)?;
    mm.exit(&mut cx);
    assert_eq!((machine.mem().in_use(), mm.tables()), (0, 0), "lost");
    Ok(())
}

/// Touches blocks of 2 MiB at equal distances, page by page.
fn terabyte(cx: &mut CallCx<'_>, mm: &Mm) -> Outcome {
    let args = MmapArgs::anonymous(TIB).flags(MapFlags::NORESERVE);
    mm.mmap(cx, &args.fixed(BASE))?;
    let start = Instant::now();
    for block in (BASE..BASE + TIB).step_by(STRIDE as usize) {
        for at in (block..block + 2 * MIB).step_by(PAGE_SIZE as usize) {
            mm.store(cx, at, 1)?;
        }
    }
    let touching = start.elapsed();
    let frames = mm.machine().mem().in_use();
    assert_eq!(u64::from(frames), TOUCHED);
    let (tables, vmas) = (mm.tables(), mm.map_count(cx));
    println!("1 TiB: {frames} frames, {tables} tables, VMAs: {vmas}");
    println!("  touch   {:6.1} ns a page", each(touching, TOUCHED));
    memory();
    let start = Instant::now();
    mm.munmap(cx, BASE, TIB)?;
    println!("  munmap  {:6.1} ns a page", each(start.elapsed(), TOUCHED));
    assert_eq!(mm.machine().mem().in_use(), 0);
    Ok(())
}

/// What the process takes now, and the most it took, where the system tells.
fn memory() {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        println!("skipped: resident memory, there is no /proc/self/status");
        return;
    };
    let mib = |field: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(field))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib / 1024)
    };
    match (mib("VmRSS:"), mib("VmHWM:")) {
        (Some(now), Some(peak)) => {
            println!("  VmRSS   {now} MiB, at most {peak} MiB");
            assert!(peak < 1536, "1.5 GiB or more");
        }
        _ => println!("skipped: resident memory, /proc/self/status does not tell it"),
    }
}

/// Pages with a VMA each, as neighbours differ in their rights; then one after the other, chosen at
/// random, is unmapped and mapped again.
fn full_map(cx: &mut CallCx<'_>, mm: &Mm) -> Outcome {
    let map = |cx: &mut CallCx<'_>, n: u64| {
        let prot = if n.is_multiple_of(2) {
            Prot::READ
        } else {
            Prot::READ | Prot::WRITE
        };
        let args = MmapArgs::anonymous(PAGE_SIZE).prot(prot);
        mm.mmap(cx, &args.fixed(BASE + n * PAGE_SIZE))
    };
    for n in 0..VMAS {
        map(cx, n)?;
    }
    assert_eq!(mm.map_count(cx) as u64, VMAS);
    let (batches, pairs) = (10, 20_000);
    // Knuth's generator, its upper half: a plain product modulo 65,530 soon repeats itself.
    let mut state = 1_u64;
    // The best of several: what else the machine does must not count.
    let mut pair = f64::INFINITY;
    for _ in 0..batches {
        let start = Instant::now();
        for _ in 0..pairs {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let n = (state >> 33) % VMAS;
            mm.munmap(cx, BASE + n * PAGE_SIZE, PAGE_SIZE)?;
            map(cx, n)?;
        }
        pair = pair.min(each(start.elapsed(), pairs));
    }
    println!("VMAs: {VMAS}");
    // A clock decides nothing: `benches/instructions.rs` holds the paths to what they cost.
    println!("  munmap+mmap of one in the middle  {pair:.0} ns (5000 are promised)");
    Ok(())
}

/// Nanoseconds for each of `count`.
fn each(time: Duration, count: u64) -> f64 {
    time.as_nanos() as f64 / count as f64
}

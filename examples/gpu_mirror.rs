//! A GPU that mirrors a process, as HMM makes it possible: faults in batches, pages that move to
//! its memory and come home, atomic operations on pages that it has alone. Then drivers with a
//! mistake.
//!
//! ```text
//! cargo run --example gpu_mirror
//! ```

use emmu::{
    Machine, MachineConfig, Mm, PAGE_SIZE,
    ctx::CallCx,
    extmmu::gpu::{Gpu, GpuBoard, GpuConfig, GpuMistake},
    frame::DeviceKind,
    mm::{Advice, MmapArgs},
    oracle::Oracle,
};
use std::{error::Error, sync::Arc};

const ARRAY: u64 = 1 << 40;
const PAGES: u64 = 32;

fn main() -> Result<(), Box<dyn Error>> {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    array(&mut cx, &mm)?;
    let (board, stays) = GpuBoard::add(&machine, DeviceKind::Private, 16)?;
    let (gpu, _registration) = Gpu::attach(&mut cx, &mm, Some(&board), GpuConfig::default());
    let engine = gpu.engine(0);

    // One fault maps the page and its neighbours.
    let mut word = [0; 8];
    engine.read(&mut cx, ARRAY, &mut word)?;
    println!("page 0 has {}: {} entries", word[0], gpu.entries(&mut cx));

    // The pages that the GPU works on move to its memory, and leave the machine's.
    let moved = gpu.to_device(&mut cx, ARRAY, 16 * PAGE_SIZE)?;
    println!("{moved} pages moved: {}", places(&machine, &board));
    for page in 0..16 {
        engine.write(&mut cx, ARRAY + page * PAGE_SIZE, &[100])?;
    }
    // The process wants one of them: it comes home, with what the GPU wrote.
    let seen = mm.load(&mut cx, ARRAY + 3 * PAGE_SIZE)?;
    println!("the process reads {seen}: {}", places(&machine, &board));

    // The board is full but for one frame: the oldest pages go home.
    let moved = gpu.to_device(&mut cx, ARRAY + 16 * PAGE_SIZE, 4 * PAGE_SIZE)?;
    println!("{moved} other pages moved: {}", places(&machine, &board));

    // Atomic operations: the GPU has the page alone until the process takes it back.
    let counter = ARRAY + 30 * PAGE_SIZE;
    mm.store(&mut cx, counter, 0)?;
    for _ in 0..3 {
        engine.update(&mut cx, counter, |old| old + 1)?;
        let now = mm.load(&mut cx, counter)?;
        mm.store(&mut cx, counter, now + 10)?;
    }
    println!("3 additions of 1 and of 10: {}", mm.load(&mut cx, counter)?);

    let left = gpu.evict(&mut cx)?;
    println!("evicted, {left} left: {}", places(&machine, &board));
    mm.exit(&mut cx);
    machine.remove_device(&mut cx, stays).expect("it is empty");
    drop(thread);
    mistakes()
}

/// Shows what the oracle says of drivers with a mistake.
fn mistakes() -> Result<(), Box<dyn Error>> {
    for mistake in [
        None,
        Some(GpuMistake::FirstEngineOnly),
        Some(GpuMistake::FiltersOwn),
    ] {
        let machine = Machine::new(MachineConfig::default());
        let mut thread = machine.enter()?;
        let mut cx = thread.cx();
        let mm = Mm::new(&machine);
        array(&mut cx, &mm)?;
        let (board, _stays) = GpuBoard::add(&machine, DeviceKind::Private, 16)?;
        let config = GpuConfig {
            mistake,
            ..GpuConfig::default()
        };
        let (gpu, _registration) = Gpu::attach(&mut cx, &mm, Some(&board), config);
        let oracle = Oracle::new(&machine);
        oracle.watch(&mm, gpu.clone());
        for engine in [0, 1] {
            gpu.engine(engine).read(&mut cx, ARRAY, &mut [0])?;
        }
        match mistake {
            Some(GpuMistake::FiltersOwn) => {
                gpu.to_device(&mut cx, ARRAY, PAGE_SIZE)?;
            }
            _ => mm.madvise(&mut cx, ARRAY, PAGE_SIZE, Advice::DontNeed)?,
        }
        let findings = oracle.take();
        let said = findings.first().map(ToString::to_string);
        println!(
            "\n{mistake:?}:\n  {}",
            said.unwrap_or("coherent".to_owned())
        );
    }
    Ok(())
}

/// Maps an array, each page of which has its number plus one.
fn array(cx: &mut CallCx<'_>, mm: &Arc<Mm>) -> Result<(), Box<dyn Error>> {
    mm.mmap(cx, &MmapArgs::anonymous(PAGES * PAGE_SIZE).fixed(ARRAY))?;
    for page in 0..PAGES {
        mm.store(cx, ARRAY + page * PAGE_SIZE, page as u8 + 1)?;
    }
    Ok(())
}

fn places(machine: &Machine, board: &GpuBoard) -> String {
    let (here, there) = (machine.mem().in_use(), board.memory().in_use());
    format!("{here} frames of memory, {there} of the board")
}

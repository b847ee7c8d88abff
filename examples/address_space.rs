//! An address space without devices: map, store, fork, copy on write, protect, unmap.
//!
//! ```text
//! cargo run --example address_space
//! ```

use emmu::{
    Errno, Machine, MachineConfig, Mm, PAGE_SIZE,
    ctx::CallCx,
    mm::{MmapArgs, Prot},
};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    // A machine owns frames. A thread that enters it gets a token, which every call borrows.
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();

    // A mapping is a promise: four pages of private memory, and not one frame of the machine.
    let parent = Mm::new(&machine);
    let idle = machine.mem().in_use();
    let at = parent.mmap(&mut cx, &MmapArgs::anonymous(4 * PAGE_SIZE))?;
    assert_eq!(machine.mem().in_use(), idle);

    // The first store to a page takes a frame.
    parent.write_bytes(&mut cx, at, b"one frame")?;
    assert_eq!(machine.mem().in_use(), idle + 1);

    // A child shares the frame. A store to the page copies it, and the child keeps the old bytes.
    let child = parent.fork(&mut cx)?;
    assert_eq!(machine.mem().in_use(), idle + 1);
    parent.write_bytes(&mut cx, at, b"two frames")?;
    assert_eq!(machine.mem().in_use(), idle + 2);
    assert_eq!(text(&child, &mut cx, at)?, "one frame");
    assert_eq!(text(&parent, &mut cx, at)?, "two frames");

    // The second page becomes read-only, which splits the VMA into three. A store is a SIGSEGV.
    let second = at + PAGE_SIZE;
    parent.mprotect(&mut cx, second, PAGE_SIZE, Prot::READ)?;
    let refused = parent.store(&mut cx, second, 1).unwrap_err();
    println!("a store to read-only memory: {refused}\n");
    for line in parent.maps(&mut cx) {
        println!("{line}");
    }
    assert_eq!(parent.map_count(&mut cx), 3);

    // With the old rights the three VMAs merge again. The child still has its one.
    let all = Prot::READ | Prot::WRITE;
    parent.mprotect(&mut cx, second, PAGE_SIZE, all)?;
    assert_eq!(parent.map_count(&mut cx), 1);
    assert_eq!(child.map_count(&mut cx), 1);

    // Errors are those of Linux: an address that is no multiple of the page size is EINVAL.
    let refused = parent.munmap(&mut cx, at + 1, PAGE_SIZE).unwrap_err();
    assert_eq!(refused.errno(), Errno::EINVAL);

    // The frames come back when the last mapping goes.
    parent.munmap(&mut cx, at, 4 * PAGE_SIZE)?;
    child.exit(&mut cx);
    parent.exit(&mut cx);
    assert_eq!(machine.mem().in_use(), idle);
    Ok(())
}

/// The bytes at `at` up to the first zero.
fn text(mm: &Mm, cx: &mut CallCx<'_>, at: u64) -> Result<String, emmu::FaultError> {
    let mut bytes = [0; 16];
    mm.read_bytes(cx, at, &mut bytes)?;
    let text = bytes.split(|b| *b == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}

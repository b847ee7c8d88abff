//! The least world: an address space with one page.

use emmu::{Machine, MachineConfig, Mm, mm::MmapArgs};
use std::sync::Arc;

pub(crate) const BASE: u64 = 1 << 30;
pub(crate) const PAGE: u64 = emmu::PAGE_SIZE;

/// A machine, and an address space whose one page, at [`BASE`], holds 1.
pub(crate) fn one_page(config: MachineConfig) -> (Arc<Machine>, Arc<Mm>) {
    let machine = Machine::new(config);
    let mm = Mm::new(&machine);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE).fixed(BASE))
        .unwrap();
    mm.store(&mut cx, BASE, 1).unwrap();
    drop(thread);
    (machine, mm)
}

//! An address space of numbered pages without recorder, windows by hand, and panics as text.

use super::{BASE, PAGE, at};
use emmu::{
    Machine, MachineConfig, MemConfig, Mm,
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    mm::MmapArgs,
    notifier::Event,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// The first address whose page number has bits that four levels of tables do not index by.
pub const ALIAS: u64 = 1 << 48;

/// A machine of 2048 frames and 64 pages of swap.
pub fn machine_with_swap() -> Arc<Machine> {
    Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 2048,
            swap: 64,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    })
}

/// Sixteen pages from `BASE` on, of which each has its number in its first byte.
pub fn filled(cx: &mut CallCx<'_>, machine: &Arc<Machine>) -> Arc<Mm> {
    let mm = Mm::new(machine);
    mm.mmap(cx, &MmapArgs::anonymous(16 * PAGE).fixed(BASE))
        .unwrap();
    for n in 0..16 {
        mm.store(cx, at(n), n as u8).unwrap();
    }
    mm
}

/// Page `n` of a test.
pub fn page(n: u64) -> Vpn {
    Vpn::containing(at(n))
}

/// A window over one page, in which nothing changes.
pub fn window(cx: &mut CallCx<'_>, mm: &Mm, n: u64) {
    let mut guard = mm.lock_shared(cx);
    let mut lease = guard.lease();
    drop(lease.window(VpnRange::single(page(n)), Event::Clear));
}

/// The text of the panic of `f`; none if it does not panic.
pub fn said(f: impl FnOnce()) -> Option<String> {
    let panicked = catch_unwind(AssertUnwindSafe(f)).err()?;
    let text = panicked.downcast_ref::<String>().cloned();
    text.or_else(|| Some((*panicked.downcast_ref::<&str>()?).to_owned()))
}

//! A processor of a real virtual machine in 64-bit mode, for guests without an operating system.

use kvm_bindings::{kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;

/// The first of three pages of page tables.
pub const PML4: u64 = 0x2000;

/// Writes tables by `write(address, entry)` that map the first MiB of this number one to one, by
/// pages of 2 MiB.
pub fn map_one_to_one(mib: u64, mut write: impl FnMut(u64, u64)) {
    let pages = (PML4 + 0x1000, PML4 + 0x2000);
    write(PML4, pages.0 | 7);
    write(pages.0, pages.1 | 7);
    (0..mib / 2).for_each(|n| write(pages.1 + n * 8, n << 21 | 0x87));
}

/// Puts a processor into 64-bit mode with these tables, about to run at `entry`.
pub fn enter(vcpu: &VcpuFd, entry: u64) {
    let code = kvm_segment {
        limit: u32::MAX,
        selector: 8,
        type_: 11,
        present: 1,
        s: 1,
        l: 1,
        g: 1,
        ..kvm_segment::default()
    };
    let data = kvm_segment {
        type_: 3,
        selector: 16,
        l: 0,
        db: 1,
        ..code
    };
    let mut s = vcpu.get_sregs().expect("registers");
    (s.cr0, s.cr3, s.cr4, s.efer) = (0x8001_0011, PML4, 1 << 5, (1 << 8) | (1 << 10));
    (s.cs, s.ds, s.es, s.fs, s.gs, s.ss) = (code, data, data, data, data, data);
    vcpu.set_sregs(&s).expect("64-bit mode");
    let regs = kvm_regs {
        rip: entry,
        rflags: 2,
        ..kvm_regs::default()
    };
    vcpu.set_regs(&regs).expect("registers");
}

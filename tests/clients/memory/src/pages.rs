//! A table of flags by page that is the memory map of an emulated process, for crates that keep
//! such maps themselves.
//!
//! A page of the process stands for each entry; it is mapped with the rights that the flags of the
//! entry are (reading 1, writing 2, executing 4), and not mapped if they are 0.

use emmu::{
    Machine, MachineConfig, Mm, PAGE_SIZE,
    addr::Vpn,
    ctx::CallCx,
    mm::{MapFlags, MmapArgs, Prot, VmFlags},
};
use std::{
    cell::OnceCell,
    ops::{Index, Range},
    sync::Arc,
};

/// The address of the page of entry 0.
const BASE: u64 = 1 << 30;

/// The table.
pub struct Pages {
    machine: Arc<Machine>,
    mm: Arc<Mm>,
    len: usize,
    /// The flags of all entries, until they change.
    seen: OnceCell<Vec<u8>>,
}

fn prot(flags: u8) -> Prot {
    Prot::from_bits(flags.into()).expect("flags of three bits")
}

impl Pages {
    /// Makes a table of `len` entries, none of which is mapped.
    pub fn new(len: usize) -> Self {
        let machine = Machine::new(MachineConfig::default());
        let mm = Mm::new(&machine);
        Self {
            machine,
            mm,
            len,
            seen: OnceCell::new(),
        }
    }
    fn change<E>(
        &mut self,
        start: usize,
        len: usize,
        f: impl FnOnce(&Mm, &mut CallCx<'_>, u64, u64) -> Result<(), E>,
    ) -> bool {
        let end = (start + len).min(self.len);
        let (at, bytes) = (
            BASE + start as u64 * PAGE_SIZE,
            (end - start) as u64 * PAGE_SIZE,
        );
        let done = self.machine.with_current(|cx| f(&self.mm, cx, at, bytes));
        self.seen.take();
        done.expect("this thread has no token").is_ok()
    }
    /// Maps entries with these flags. Returns false if one of them is mapped.
    pub fn map(&mut self, start: usize, len: usize, flags: u8) -> bool {
        self.change(start, len, |mm, cx, at, bytes| {
            let args = MmapArgs::anonymous(bytes).prot(prot(flags)).fixed(at);
            mm.mmap(cx, &args.flags(MapFlags::FIXED_NOREPLACE))
                .map(drop)
        })
    }
    /// Unmaps entries. Returns false if one of them is not mapped.
    pub fn unmap(&mut self, start: usize, len: usize) -> bool {
        let all = self[start..(start + len).min(self.len)]
            .iter()
            .all(|&flags| flags != 0);
        all && self.change(start, len, |mm, cx, at, bytes| mm.munmap(cx, at, bytes))
    }
    /// Gives entries other flags. Returns false if one of them is not mapped.
    pub fn protect(&mut self, start: usize, len: usize, flags: u8) -> bool {
        self.change(start, len, |mm, cx, at, bytes| {
            mm.mprotect(cx, at, bytes, prot(flags))
        })
    }
    /// Asks the process for the flags of all entries.
    fn flags(&self) -> Vec<u8> {
        let rights = [(VmFlags::READ, 1), (VmFlags::WRITE, 2), (VmFlags::EXEC, 4)];
        let look = |cx: &mut CallCx<'_>| {
            let guard = self.mm.lock_shared(cx);
            let mut flags = vec![0; self.len];
            let mut n = 0;
            while n < self.len {
                let at = Vpn::containing(BASE + n as u64 * PAGE_SIZE);
                let Some(vma) = guard.vma_at(at) else {
                    n += 1;
                    continue;
                };
                let has = rights
                    .iter()
                    .filter(|(right, _)| vma.flags.contains(*right));
                let end = vma.range.end().addr() - BASE;
                let end = usize::try_from(end / PAGE_SIZE).expect("an entry");
                flags[n..end].fill(has.map(|(_, flag)| flag).sum());
                n = end;
            }
            flags
        };
        self.machine
            .with_current(look)
            .expect("this thread has no token")
    }
}

impl Index<Range<usize>> for Pages {
    type Output = [u8];
    fn index(&self, at: Range<usize>) -> &[u8] {
        &self.seen.get_or_init(|| self.flags())[at]
    }
}
impl Index<usize> for Pages {
    type Output = u8;
    fn index(&self, at: usize) -> &u8 {
        &self.seen.get_or_init(|| self.flags())[at]
    }
}

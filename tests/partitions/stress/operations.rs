//! What the process and the machine do while devices use the memory.

use super::{BASE, FILE, HUGE, PAGE, Random, SMALL, World};
use emmu::{
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    file::{FallocateMode, File},
    mm::{Advice, MmapArgs, MremapArgs, MremapFlags, MsyncFlags, Prot},
    notifier::AgeKind,
};

/// Operates for as long as `goes_on` says of the number of operations. Returns that number.
pub(super) fn operate(w: &World, thread: u64, goes_on: &dyn Fn(u64) -> bool) -> u64 {
    let mut token = w.machine.enter().unwrap();
    let mut random = Random(99 + thread);
    let mut done = 0;
    while goes_on(done) {
        let (first, pages) = random.pages();
        let operation = Operation {
            w,
            at: BASE + first * PAGE,
            len: pages * PAGE,
            luck: random.below(1 << 16),
        };
        let cx = &mut token.cx();
        match random.below(4) {
            0 | 1 => operation.of_process(cx, random.below(8)),
            2 => operation.of_machine(cx, random.below(8)),
            _ => operation.of_files(cx, random.below(6)),
        }
        if done.is_multiple_of(8) {
            w.oracle.audit();
        }
        done += 1;
    }
    done
}

/// Some pages, and the operation's luck. What is refused is no error here.
struct Operation<'w> {
    w: &'w World,
    at: u64,
    len: u64,
    luck: u64,
}

const ADVICE: [Advice; 10] = [
    Advice::DontNeed,
    Advice::Free,
    Advice::Cold,
    Advice::PageOut,
    Advice::Mergeable,
    Advice::Collapse,
    Advice::HugePage,
    Advice::NoHugePage,
    Advice::PopulateWrite,
    Advice::WillNeed,
];

impl Operation<'_> {
    /// Calls of the process.
    fn of_process(&self, cx: &mut CallCx<'_>, nth: u64) {
        let Self { w, at, len, luck } = *self;
        let mm = &w.mm;
        match nth {
            0 => {
                let child = mm.fork(cx).unwrap();
                let _refused = child.store(cx, at, 1);
                let _refused = mm.store(cx, at, 3);
                let _refused = child.madvise(cx, at, len, Advice::DontNeed);
                child.exit(cx);
            }
            1 => mm.munmap(cx, at, len).unwrap(),
            2 | 3 => self.map(cx),
            4 => {
                let _unmapped = mm.mprotect(cx, at, len, Prot::READ);
                let _unmapped = mm.mprotect(cx, at, len, Prot::READ | Prot::WRITE);
            }
            5 => {
                let advice = ADVICE[luck as usize % ADVICE.len()];
                let _refused = mm.madvise(cx, at, len, advice);
            }
            6 => self.move_pages(cx),
            _ => {
                for page in 0..(len / PAGE).min(16) {
                    let _refused = mm.store(cx, at + page * PAGE, luck as u8);
                }
            }
        }
    }
    /// Maps something else: private memory, or a part of a file.
    fn map(&self, cx: &mut CallCx<'_>) {
        let Self { w, at, len, luck } = *self;
        let args = MmapArgs::anonymous(len);
        let offset = luck / 8 % FILE * PAGE;
        let args = match luck % 8 {
            0 => args.file(&w.shared, offset).shared(),
            1 => args.file(&w.disk, offset).shared(),
            2 => args.file(&w.disk, offset),
            3 => args.shared(),
            _ => args,
        };
        w.mm.mmap(cx, &args.fixed(at)).unwrap();
    }
    /// Moves pages to another place, whose pages go.
    fn move_pages(&self, cx: &mut CallCx<'_>) {
        let Self { w, at, len, luck } = *self;
        let (first, all) = match len < HUGE * PAGE && luck.is_multiple_of(2) {
            true => (0, SMALL),
            false => (HUGE, HUGE),
        };
        let left = all - len / PAGE;
        let to = first + luck / 4 % (left + 1);
        let flags = match luck / 2 % 2 {
            0 => MremapFlags::MAYMOVE | MremapFlags::FIXED,
            _ => MremapFlags::MAYMOVE | MremapFlags::FIXED | MremapFlags::DONTUNMAP,
        };
        let _refused = w.mm.mremap(
            cx,
            MremapArgs {
                addr: at,
                old_len: len,
                new_len: len,
                flags,
                new_addr: BASE + to * PAGE,
            },
        );
    }
    /// What the machine does with pages.
    fn of_machine(&self, cx: &mut CallCx<'_>, nth: u64) {
        let Self { w, at, len, luck } = *self;
        match nth {
            0 | 1 => {
                for page in 0..(len / PAGE).min(8) {
                    let _other_frame = w.mm.migrate(cx, at + page * PAGE).unwrap();
                }
            }
            2 | 3 => {
                let _reclaimed = w.machine.reclaim(cx, 1 + luck % 64);
            }
            4 => {
                let _refused = w.mm.madvise(cx, at, len, Advice::Mergeable);
                let pages = (0..(len / PAGE).min(8)).map(|n| (&*w.mm, at + n * PAGE));
                let _merged = w.machine.merge_same_pages(cx, &pages.collect::<Vec<_>>());
            }
            5 => {
                let pages = VpnRange::new(Vpn::containing(at), Vpn::containing(at + len));
                let kind = [AgeKind::Test, AgeKind::Clear, AgeKind::ClearFlush][luck as usize % 3];
                let _young = w.mm.age(cx, pages.expect("some"), kind);
            }
            6 => {
                let _collapsed = w.machine.khugepaged(cx);
                let _split = w.machine.split_deferred(cx);
            }
            _ => w.mm.clear_refs(cx, 1 + luck as i64 % 4).unwrap(),
        }
    }
    /// What others do with the files.
    fn of_files(&self, cx: &mut CallCx<'_>, nth: u64) {
        let Self { w, at, len, luck } = *self;
        let file: &File = match luck % 2 {
            0 => &w.shared,
            _ => &w.disk,
        };
        let from = luck / 2 % FILE * PAGE;
        let whole = FILE * PAGE;
        match nth {
            // The last page in part.
            0 | 1 => {
                file.truncate(cx.reborrow(), from + luck % PAGE).unwrap();
                file.truncate(cx.reborrow(), whole).unwrap();
            }
            2 => file.punch_hole(cx.reborrow(), from, len).unwrap(),
            3 => {
                let mode = FallocateMode::KEEP_SIZE;
                let end = (from + len).min(whole);
                file.fallocate(cx.reborrow(), mode, from, end - from)
                    .unwrap();
            }
            4 => {
                file.write_at(cx.reborrow(), from, &[luck as u8; 64])
                    .unwrap();
                file.sync(cx.reborrow()).unwrap();
            }
            _ => {
                let _unmapped = w.mm.msync(cx, at, len, MsyncFlags::SYNC);
            }
        }
    }
}

//! emmu beside the kernel that this runs on, at the same system calls, turn by turn; what is
//! measured is the ratio of the times, ours by the kernel's. The kernel does more: it clears and
//! copies pages, and enters and leaves by a trap. The ratio says what a model that does the
//! bookkeeping alone costs beside the thing itself.
//!
//! ```text
//! cargo bench --bench linux
//! ```

#[cfg(target_os = "linux")]
mod floor;
#[cfg(target_os = "linux")]
mod host;
#[cfg(target_os = "linux")]
mod ratio;
#[cfg(target_os = "linux")]
mod world;

#[cfg(target_os = "linux")]
mod linux {
    use crate::{
        host::{Child, Region},
        ratio::{Ratio, duel, scattered, timed},
        world::{RW, World, addr, with_world},
    };
    use criterion::Criterion;
    use emmu::{
        PAGE_SIZE,
        mm::{Advice, MremapArgs, MremapFlags, Prot},
    };
    use std::time::Duration;

    /// 256 MiB of pages.
    const PAGES: u64 = 64 << 10;
    /// 32 MiB: what one turn of faults takes.
    const FAULTS: u64 = 8 << 10;
    /// 1 GiB.
    const GIB: u64 = 1 << 18;
    const KERNEL: &str = "Linux";

    fn drop_pages(w: &mut World<'_>, pages: u64) {
        w.mm.madvise(&mut w.cx, addr(0), pages * PAGE_SIZE, Advice::DontNeed)
            .expect("mapped");
    }

    pub(crate) fn fork(c: &mut Criterion<Ratio>) {
        let theirs = Region::new(PAGES);
        theirs.store(PAGES);
        with_world(|w| {
            w.map(0..PAGES, |a| a);
            w.store(0..PAGES);
            duel(
                c,
                "fork of 64 Ki anonymous pages",
                KERNEL,
                &mut || {
                    // The kernel's fork has write-protected our memory too: the first fork after it
                    // takes those faults.
                    w.fork();
                    w.bury();
                    let time = timed(|| w.fork());
                    w.bury();
                    time
                },
                &mut || {
                    let mut child = None;
                    let time = timed(|| child = Some(Child::fork()));
                    drop(child);
                    time
                },
            );
        });
    }

    pub(crate) fn mremap(c: &mut Criterion<Ratio>) {
        let mut theirs = Region::aligned(GIB);
        theirs.store(GIB);
        with_world(|w| {
            w.map(0..GIB, |a| a);
            w.store(0..GIB);
            const TIMES: usize = 50;
            duel(
                c,
                "mremap of 1 GiB, aligned",
                KERNEL,
                &mut || {
                    let mut relocate = |from, to| {
                        let args = MremapArgs {
                            addr: addr(from),
                            old_len: GIB * PAGE_SIZE,
                            new_len: GIB * PAGE_SIZE,
                            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
                            new_addr: addr(to),
                        };
                        w.mm.mremap(&mut w.cx, args).expect("nothing is there");
                    };
                    timed(|| {
                        for _ in 0..TIMES {
                            relocate(0, GIB);
                            relocate(GIB, 0);
                        }
                    })
                },
                &mut || theirs.relocate(TIMES),
            );
        });
    }

    /// The same fault on page after page.
    fn fault(
        c: &mut Criterion<Ratio>,
        work: &str,
        ours: fn(&mut World<'_>) -> Duration,
        theirs: fn(&Region) -> Duration,
    ) {
        let region = Region::new(FAULTS);
        with_world(|w| {
            w.map(0..FAULTS, |a| a);
            duel(c, work, KERNEL, &mut || ours(w), &mut || theirs(&region));
        });
    }

    pub(crate) fn zero_page(c: &mut Criterion<Ratio>) {
        fault(
            c,
            "fault, zero page",
            |w| {
                drop_pages(w, FAULTS);
                timed(|| w.load(0..FAULTS))
            },
            |r| {
                r.discard();
                timed(|| r.load(FAULTS))
            },
        );
    }

    pub(crate) fn anonymous(c: &mut Criterion<Ratio>) {
        fault(
            c,
            "fault, anonymous",
            |w| {
                drop_pages(w, FAULTS);
                timed(|| w.store(0..FAULTS))
            },
            |r| {
                r.discard();
                timed(|| r.store(FAULTS))
            },
        );
    }

    pub(crate) fn copy_on_write(c: &mut Criterion<Ratio>) {
        fault(
            c,
            "fault, copy on write",
            |w| {
                w.store(0..FAULTS);
                w.fork();
                let time = timed(|| w.store(0..FAULTS));
                w.bury();
                time
            },
            |r| {
                r.store(FAULTS);
                let child = Child::fork();
                let time = timed(|| r.store(FAULTS));
                drop(child);
                time
            },
        );
    }

    /// A page in the middle is unmapped and mapped again, at random.
    pub(crate) fn pairs(c: &mut Criterion<Ratio>) {
        const TURN: usize = 1_000;
        // What a process may have by default is 65,530 VMAs; some are its own.
        for count in [1, 10_000, 60_000] {
            let theirs = Region::new(count);
            (0..count).for_each(|n| theirs.remap(n));
            with_world(|w| {
                let one = |w: &mut World<'_>, n: u64| {
                    let prot = if n.is_multiple_of(2) { Prot::READ } else { RW };
                    w.map(n..n + 1, |a| a.prot(prot));
                };
                (0..count).for_each(|n| one(w, n));
                let (mut mine, mut other) = (scattered(count), scattered(count));
                duel(
                    c,
                    &format!("munmap+mmap pair among {count} VMAs"),
                    KERNEL,
                    &mut || {
                        timed(|| {
                            for n in mine.by_ref().take(TURN) {
                                w.unmap(n..n + 1);
                                one(w, n);
                            }
                        })
                    },
                    &mut || {
                        timed(|| {
                            for n in other.by_ref().take(TURN) {
                                theirs.unmap(n);
                                theirs.remap(n);
                            }
                        })
                    },
                );
            });
        }
    }
}

#[cfg(target_os = "linux")]
criterion::criterion_group! {
    name = benches;
    config = ratio::criterion();
    targets = linux::zero_page, linux::anonymous, linux::copy_on_write, linux::fork, linux::mremap, linux::pairs
}
#[cfg(target_os = "linux")]
criterion::criterion_main!(benches);

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: not on Linux");
}

//! Whatever number a call is given, of all of 64 bits, it is answered, nothing runs for ever, and
//! all is given back in the end.

use crate::common::{
    BASE, PAGE, at,
    driver::Driver,
    numbered::{ALIAS, filled, machine_with_swap},
};
use emmu::{
    Mm, TASK_SIZE,
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    file::{File, FileMode, Shmem},
    mm::{
        Advice, MapFlags, MlockFlags, MmapArgs, MremapArgs, MremapFlags, MsyncFlags, Prot, Segment,
        VmFlags,
    },
    notifier::{Access, AgeKind, Event},
};
use std::sync::Arc;

fn page(addr: u64) -> Vpn {
    Vpn::containing(addr)
}

/// Numbers near every border, and from all of 64 bits; the seed decides.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        // Knuth's multiplier; the high half is random enough.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let high = self.0 >> 32;
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        high << 32 | self.0 >> 32
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn number(&mut self) -> u64 {
        let borders = [
            0,
            PAGE,
            BASE,
            at(16),
            1 << 36,
            TASK_SIZE,
            1 << 47,
            ALIAS,
            ALIAS + BASE,
            1 << 52,
            1 << 63,
            u64::MAX,
        ];
        match self.below(4) {
            0 => self.next(),
            1 => self.next() >> self.below(64),
            _ => {
                let border = borders[self.below(12) as usize];
                let off = self.below(35) * if self.below(2) == 0 { 1 } else { PAGE };
                if self.below(2) == 0 {
                    border.wrapping_add(off)
                } else {
                    border.wrapping_sub(off)
                }
            }
        }
    }
    /// Seldom off a page, so that more than the first check is met.
    fn addr(&mut self) -> u64 {
        let number = self.number();
        if self.below(4) == 0 {
            number
        } else {
            number & !(PAGE - 1)
        }
    }
    fn vpn(&mut self) -> Vpn {
        let number = self.number();
        Vpn(if self.below(2) == 0 {
            number
        } else {
            number >> 12
        })
    }
    fn range(&mut self) -> VpnRange {
        let (a, b) = (self.vpn(), self.vpn());
        VpnRange::new(a.min(b), a.max(b)).unwrap_or(VpnRange::single(a))
    }
}

fn advice(draw: &mut Draw) -> Advice {
    const ALL: [Advice; 21] = [
        Advice::Normal,
        Advice::Random,
        Advice::WillNeed,
        Advice::DontNeed,
        Advice::Free,
        Advice::Remove,
        Advice::DontFork,
        Advice::DoFork,
        Advice::HugePage,
        Advice::NoHugePage,
        Advice::DontDump,
        Advice::WipeOnFork,
        Advice::KeepOnFork,
        Advice::Cold,
        Advice::PageOut,
        Advice::PopulateRead,
        Advice::PopulateWrite,
        Advice::DontNeedLocked,
        Advice::Collapse,
        Advice::GuardInstall,
        Advice::GuardRemove,
    ];
    ALL[draw.below(21) as usize]
}

/// Whether it was done does not matter.
fn tried<T>(_: T) {}

/// One call that changes mappings, with whatever numbers.
fn change(draw: &mut Draw, cx: &mut CallCx<'_>, mm: &Mm, file: &Arc<File>) {
    let (a, b, c, d) = (draw.addr(), draw.addr(), draw.addr(), draw.addr());
    match draw.below(16) {
        0 => tried(mm.mmap(cx, &MmapArgs::anonymous(b).fixed(a))),
        1 => tried(mm.mmap(
            cx,
            &MmapArgs {
                addr: a,
                ..MmapArgs::anonymous(b)
            },
        )),
        2 => tried(mm.mmap(cx, &MmapArgs::anonymous(b).file(file, c).fixed(a).shared())),
        3 => tried(mm.munmap(cx, a, b)),
        4 => tried(mm.mprotect(cx, a, b, Prot::READ)),
        5 => {
            let flags = MremapFlags::from_bits_truncate(draw.below(8) as u32);
            let args = MremapArgs {
                addr: a,
                old_len: b,
                new_len: c,
                flags,
                new_addr: d,
            };
            tried(mm.would_remap_to(cx, args));
            tried(mm.mremap(cx, args));
        }
        6 => tried(mm.brk(cx, a)),
        7 => tried(mm.set_start_brk(cx, a)),
        8 => tried(mm.set_mmap_base(cx, a)),
        9 => tried(mm.set_start_stack(cx, a)),
        10 => tried(mm.madvise(cx, a, b, advice(draw))),
        11 => tried(mm.mlock2(cx, a, b, MlockFlags::ONFAULT)),
        12 => tried(mm.munlock(cx, a, b)),
        13 => tried(mm.name_memory(cx, a, b, Some("drawn"))),
        14 => tried(mm.remap_file_pages(cx, a, b, Prot::empty(), c, MapFlags::NONBLOCK)),
        _ => {
            let flags = VmFlags::READ | VmFlags::MAYREAD | VmFlags::MAYWRITE;
            let file = None;
            tried(mm.install(
                cx,
                &Segment {
                    start: a,
                    end: b,
                    flags,
                    file,
                    offset: c,
                },
            ));
        }
    }
}

/// One call that looks, or that asks for pages.
fn look(draw: &mut Draw, cx: &mut CallCx<'_>, (mm, other): (&Mm, &Mm), driver: &Driver) {
    let (a, b) = (draw.number(), draw.number());
    match draw.below(16) {
        0 => tried(mm.load(cx, a)),
        1 => tried(mm.store(cx, a, 1)),
        2 => tried(mm.read_bytes(cx, a, &mut [0; 5000])),
        3 => tried(mm.write_bytes(cx, a, &[1; 5000])),
        // The answer has a byte for each page.
        4 if !(1 << 36..=TASK_SIZE).contains(&b) => tried(mm.mincore(cx, a & !4095, b)),
        5 => tried(mm.msync(cx, a & !4095, b, MsyncFlags::SYNC)),
        6 => tried(mm.migrate(cx, a)),
        7 => tried(mm.with_locked_frame(cx, a, Access::Read, |_, _| ())),
        8 => tried(mm.age(cx, draw.range(), AgeKind::Clear)),
        9 => tried(mm.pagemap(cx, draw.range())),
        10 => tried(mm.copy_to(cx, a, (other, b), 5000)),
        11 => tried(mm.walker(cx).pte(draw.vpn())),
        12 => tried(mm.would_map_at(
            cx,
            &MmapArgs {
                addr: a,
                ..MmapArgs::anonymous(b)
            },
        )),
        13 => {
            let ticket = driver.gate.ticket(Vpn(page(BASE).0 + a % 8), Access::Read);
            if let Ok(Ok(permit)) = mm.resolve(cx, ticket).map(|p| p.admit(cx)) {
                tried(permit.establish(a));
            }
        }
        14 => {
            let range = draw.range();
            driver.gate.wait_idle(cx, range);
            let ticket = driver.gate.ticket(draw.vpn(), Access::Write);
            tried(
                mm.resolve(cx, ticket.allow_huge())
                    .map(|p| p.admit(cx).map(drop)),
            );
        }
        _ => {
            let (range, vpn) = (draw.range(), draw.vpn());
            let mut guard = mm.lock_shared(cx);
            let _vma = guard.vma_at(vpn);
            let mut lease = guard.lease();
            let mut window = lease.window(range, Event::Clear);
            let _there = window.lock_ptes(vpn, |txn| txn.slot(vpn).is_some());
            window.for_each_leaf(|_| ());
        }
    }
}

/// One call on a file, or a registration.
fn use_file(draw: &mut Draw, cx: &mut CallCx<'_>, mm: &Mm, file: &File) {
    let (a, b) = (draw.number(), draw.number());
    match draw.below(6) {
        0 => tried(file.read_at(cx.reborrow(), a, &mut [0; 5000])),
        1 if !(64 * PAGE..=1 << 60).contains(&a) => {
            tried(file.write_at(cx.reborrow(), a, &[1; 5000]))
        }
        1 => {}
        2 => tried(file.truncate(cx.reborrow(), a)),
        3 => tried(file.punch_hole(cx.reborrow(), a, b)),
        4 => tried(file.object().mapping().covers(cx, a)),
        _ => {
            let (_, registration) = mm.subscribe(cx, draw.range(), Driver::new);
            registration.unregister(cx);
        }
    }
}

/// Whatever is asked for, nothing panics, nothing runs for ever, and in the end everything is given
/// back.
#[test]
fn any_number_is_answered() {
    for seed in 0..200 {
        let machine = machine_with_swap();
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        let object = Shmem::memfd(machine.host(), "drawn", 16 * PAGE).unwrap();
        let file = File::open(object, FileMode::ReadWrite);
        let (mm, other) = (filled(&mut cx, &machine), filled(&mut cx, &machine));
        let (driver, registration) = mm.register(&mut cx, Driver::new);
        let mut draw = Draw(seed);
        for _ in 0..150 {
            match draw.below(4) {
                0 | 1 => {
                    change(&mut draw, &mut cx, &mm, &file);
                    // Of what is mapped, every page may be asked for.
                    if mm.sizes(&mut cx).0 > 1 << 14 {
                        mm.munmap(&mut cx, 0, TASK_SIZE).unwrap();
                    }
                }
                2 => look(&mut draw, &mut cx, (&mm, &other), &driver),
                _ => use_file(&mut draw, &mut cx, &mm, &file),
            }
        }
        for space in [&mm, &other] {
            for line in space.maps(&mut cx) {
                assert!(line.start < line.end && line.end <= TASK_SIZE, "{line:?}");
            }
            assert_eq!(space.unreachable_pages(&mut cx), []);
        }
        mm.unregister(&mut cx, registration);
        drop((driver, file));
        mm.exit(&mut cx);
        other.exit(&mut cx);
        assert_eq!(machine.mem().in_use(), 0, "seed {seed}");
        assert_eq!(machine.commit().pages(), 0, "seed {seed}");
        assert_eq!(machine.mem().swap().used(), 0, "seed {seed}");
    }
}

//! Random scripts of single kinds of memory: huge pages of a pool, segments and secrets, memory
//! that a userfaultfd fills, code.

use super::{
    advices::{CODE, FILLED, POOL, SEGMENTS},
    draw::{Draw, RW, ZONE, at, pick},
    living::Living,
};
use emmu::{
    PAGE_SIZE as PAGE,
    host::{ARENA, Plan},
    mm::{Advice, MapFlags, MremapArgs, MremapFlags, PageCategories, Prot},
    replay::{
        Copy, FileKind, FileSpec, Fill, MmapSecret, Moded, Move, Op, Open, Part, ScanOf, Shmat,
        Shmget,
    },
};
use std::collections::BTreeMap;

/// The kind of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Huge pages: private, shared, of a file; a pool that is not always large enough.
    Pool,
    /// A segment of System V, secret memory, and a file that is sealed.
    Segments,
    /// Every call of a userfaultfd that sends signals in the place of messages.
    Filled,
    /// Memory with execute rights and without, of which one byte at a time is run.
    Code,
}

const HUGE: u64 = 2 << 20;
/// Free huge pages at the beginning.
const FREE: u64 = 14;
/// An instruction that returns.
const RETURN: u8 = 0xc3;
/// Features of the userfaultfd: missing and minor pages of shared memory, signals, protection of
/// shared memory, poison, moves.
const FEATURES: u64 = 0x1_54a0;

/// A script under construction.
struct Making {
    kind: Kind,
    plan: Plan,
    living: Living,
}

fn file(size: u64, kind: FileKind) -> BTreeMap<String, FileSpec> {
    BTreeMap::from([("f0".into(), FileSpec { size, kind })])
}

/// The script that draws make.
pub fn plan(kind: Kind, draws: &[Draw]) -> Plan {
    let files = match kind {
        Kind::Pool => file(4 * HUGE, FileKind::Hugetlb),
        Kind::Segments => file(9 * PAGE + 77, FileKind::Sealable),
        Kind::Filled | Kind::Code => file(16 * PAGE, FileKind::Memfd),
    };
    let mut making = Making {
        kind,
        plan: Plan {
            name: format!("live-{kind:?}").to_lowercase(),
            files,
            huge_pages: (kind == Kind::Pool).then_some(FREE),
            ..Plan::default()
        },
        living: Living::new(),
    };
    making.open();
    for draw in draws {
        making.add(draw);
    }
    making.plan
}

impl Making {
    /// Something to begin with.
    fn open(&mut self) {
        let map = |page, pages, flags| mmap(at(page), pages * PAGE, RW, flags, None);
        let ops = match self.kind {
            Kind::Pool => vec![
                huge_map(0, 4, MapFlags::PRIVATE, false),
                huge_map(5, 4, MapFlags::SHARED, false),
            ],
            Kind::Segments => vec![
                shmget(5 * PAGE, 0),
                shmat(at(0), 0),
                Op::Secret { len: 6 * PAGE },
                secret(at(8), 4 * PAGE, RW),
                map(16, 8, MapFlags::PRIVATE),
            ],
            Kind::Filled => vec![
                Op::Uffd(Open {
                    features: Some(FEATURES),
                }),
                map(0, 12, MapFlags::PRIVATE),
                register(at(0), 12 * PAGE, 3),
                mmap(at(16), 10 * PAGE, RW, MapFlags::SHARED, Some(0)),
                register(at(16), 10 * PAGE, 7),
            ],
            Kind::Code => vec![map(0, 12, MapFlags::PRIVATE)],
        };
        let ops = ops.into_iter().map(|op| (0, op));
        self.plan.steps.extend(ops);
    }
    fn add(&mut self, d: &Draw) {
        let actor = self.living.actor(d.who);
        let op = match (d.kind, self.kind) {
            (0..40, _) => self.living.fork(),
            (40..60, _) => {
                self.plan.steps.extend(self.living.exit());
                return;
            }
            (_, Kind::Pool) => Some(of_pool(d)),
            (_, Kind::Segments) => Some(of_segments(d)),
            (_, Kind::Filled) => Some(of_filled(d)),
            (_, Kind::Code) => Some(of_code(d)),
        };
        let Some(op) = op else { return };
        // Only the process that made the userfaultfd calls it.
        let actor = if is_of_handler(&op) { 0 } else { actor };
        self.plan.steps.push((actor, op));
    }
}

/// Returns true for a call on the userfaultfd, and for a scan.
fn is_of_handler(op: &Op) -> bool {
    matches!(
        op,
        Op::UffdRegister(_)
            | Op::UffdUnregister(_)
            | Op::UffdCopy(_)
            | Op::UffdZeropage(_)
            | Op::UffdContinue(_)
            | Op::UffdPoison(_)
            | Op::UffdWriteprotect(_)
            | Op::UffdMove(_)
            | Op::PagemapScan(_)
    )
}

pub(super) fn mmap(addr: u64, len: u64, prot: Prot, flags: MapFlags, file: Option<u64>) -> Op {
    Op::Mmap {
        addr,
        len,
        prot,
        flags: flags | MapFlags::FIXED,
        file: file.map(|_| "f0".to_owned()),
        off: file.unwrap_or(0),
    }
}
fn huge_map(first: u64, n: u64, flags: MapFlags, of_file: bool) -> Op {
    let (flags, file) = match of_file {
        true => (flags, Some(first % 3 * HUGE)),
        false => (flags | MapFlags::HUGETLB, None),
    };
    mmap(ARENA.start + first * HUGE, n * HUGE, RW, flags, file)
}
fn shmget(len: u64, flags: u32) -> Op {
    Op::Shmget(Shmget { len, flags })
}
fn shmat(addr: u64, flags: u32) -> Op {
    Op::Shmat(Shmat { addr, flags })
}
fn secret(addr: u64, len: u64, prot: Prot) -> Op {
    let flags = MapFlags::SHARED | MapFlags::FIXED;
    Op::MmapSecret(MmapSecret {
        addr,
        len,
        prot,
        flags,
    })
}
fn register(addr: u64, len: u64, mode: u64) -> Op {
    Op::UffdRegister(Moded { addr, len, mode })
}
fn remap((addr, len): (u64, u64), new_len: u64, to: Option<u64>, keep: bool) -> Op {
    let (go, stay) = (MremapFlags::MAYMOVE, MremapFlags::DONTUNMAP);
    let mut flags = MremapFlags::empty();
    if to.is_some() {
        flags = go | MremapFlags::FIXED;
        flags.set(stay, keep);
    }
    Op::Mremap(MremapArgs {
        addr,
        old_len: len,
        new_len: if keep { len } else { new_len },
        flags,
        new_addr: to.unwrap_or(0),
    })
}

/// The operations that every kind of memory has.
pub(super) fn common(
    (addr, len): (u64, u64),
    unit: u64,
    d: &Draw,
    prots: &[Prot],
    advices: &[Advice],
) -> Op {
    match d.kind % 20 {
        0..7 => Op::Store { addr, byte: d.byte },
        7..11 => Op::Load { addr },
        11 | 12 => Op::Munmap { addr, len },
        13 | 14 => Op::Mprotect {
            addr,
            len,
            prot: pick(prots, d.choice),
        },
        15..18 => Op::Madvise {
            addr,
            len,
            advice: pick(advices, d.choice),
        },
        _ => {
            let to = ARENA.start + d.other * unit;
            let new = pick(&[len, len, len + unit, unit], d.choice / 3);
            let fixed = !d.byte.is_multiple_of(3);
            remap((addr, len), new, fixed.then_some(to), d.byte % 5 == 1)
        }
    }
}

/// A hole in the file of huge pages, or another size of it.
fn of_huge_file(d: &Draw) -> Op {
    let odd = pick(&[0, 0, 0, PAGE], d.choice);
    match d.kind % 100 {
        12..15 => Op::PunchHole {
            file: "f0".into(),
            off: d.other % 4 * HUGE + odd,
            len: pick(&[HUGE, 2 * HUGE, HUGE + PAGE], d.choice / 3),
        },
        _ => Op::Ftruncate {
            file: "f0".into(),
            len: d.other % 5 * HUGE,
        },
    }
}

fn of_pool(d: &Draw) -> Op {
    let (first, other) = (d.page % 10, d.other % 10);
    let (addr, n) = (ARENA.start + first * HUGE, 1 + d.n % 3);
    let len = n * HUGE;
    let odd = pick(&[0, 0, 0, PAGE], d.choice);
    match d.kind % 100 {
        0..12 => {
            let kinds = [MapFlags::PRIVATE, MapFlags::PRIVATE, MapFlags::SHARED];
            let mut flags = pick(&kinds, d.choice);
            flags.set(MapFlags::NORESERVE, d.byte.is_multiple_of(7));
            huge_map(first, n, flags, d.byte.is_multiple_of(3))
        }
        12..17 => of_huge_file(d),
        17..19 => mmap(addr, HUGE, RW, MapFlags::PRIVATE, None),
        19 => Op::Mlock { addr, len },
        20..24 => Op::Munmap {
            addr: addr + odd,
            len: pick(&[len, PAGE], d.choice / 4),
        },
        _ => {
            let d = Draw { other, ..*d };
            let inside = if d.kind % 20 < 11 {
                d.page % 3 * 5 * PAGE
            } else {
                0
            };
            common((addr + inside, len), HUGE, &d, &[RW, RW, Prot::READ], POOL)
        }
    }
}

/// The pages of a draw.
fn pages(d: &Draw) -> (u64, u64) {
    (at(d.page), d.n * PAGE)
}

fn of_segments(d: &Draw) -> Op {
    // SHM_RDONLY, SHM_RND, SHM_REMAP, SHM_EXEC.
    const AT: &[u32] = &[0, 0, 0o10000, 0o20000, 0o40000, 0o60000, 0o100_000];
    let (addr, len) = pages(d);
    match d.kind % 100 {
        // Sometimes SHM_NORESERVE.
        0..3 => shmget(len - d.other % 3 * 5, pick(&[0, 0, 0o10000], d.choice)),
        3..15 => shmat(addr + pick(&[0, 0, 0, 5], d.choice), pick(AT, d.choice / 4)),
        15..22 => Op::Shmdt { addr },
        22..24 => Op::Shmrm {},
        24 => Op::Shmlock {},
        25 => Op::Shmunlock {},
        26 => Op::Secret { len },
        27..33 => secret(addr, len, pick(&[RW, RW, Prot::READ], d.choice)),
        33..48 => of_sealed_file(d, (addr, len)),
        _ => common(
            (addr, len),
            PAGE,
            d,
            &[RW, Prot::READ, Prot::empty()],
            SEGMENTS,
        ),
    }
}

/// An operation on the file, which loses rights by seals.
fn of_sealed_file(d: &Draw, (addr, len): (u64, u64)) -> Op {
    match d.kind % 100 - 33 {
        0..3 => Op::Seal {
            file: "f0".into(),
            seals: pick(&[2, 4, 8, 16, 32, 64, 1], d.choice),
        },
        3..11 => {
            let kinds = [MapFlags::PRIVATE, MapFlags::SHARED];
            let off = d.other % 9 * PAGE;
            let prot = pick(&[RW, Prot::READ], d.choice / 2);
            mmap(addr, len, prot, pick(&kinds, d.choice), Some(off))
        }
        11..13 => Op::Pwrite {
            file: "f0".into(),
            off: d.other % 12 * PAGE + 7,
            byte: d.byte,
        },
        13 => Op::Ftruncate {
            file: "f0".into(),
            len: d.other % 12 * PAGE + 77,
        },
        _ => Op::PunchHole {
            file: "f0".into(),
            off: d.other % 9 * PAGE,
            len: PAGE,
        },
    }
}

/// A call on the userfaultfd, or a scan.
fn of_handler(d: &Draw, (addr, len): (u64, u64)) -> Op {
    let mode = Some(pick(&[0, 0, 2], d.choice));
    let fill = Fill {
        addr,
        len,
        mode: None,
    };
    match d.kind % 100 {
        0..6 => register(addr, len, pick(&[1, 2, 3, 4, 5, 6, 7], d.choice)),
        6..8 => Op::UffdUnregister(Part { addr, len }),
        8..18 => Op::UffdCopy(Copy {
            addr,
            len,
            byte: d.byte,
            mode,
        }),
        18..24 => Op::UffdZeropage(fill),
        24..30 => Op::UffdContinue(fill),
        30..33 => Op::UffdPoison(fill),
        33..40 => Op::UffdWriteprotect(Moded {
            addr,
            len,
            mode: u64::from(!d.byte.is_multiple_of(3)),
        }),
        40..47 => Op::UffdMove(Move {
            addr,
            src: at(d.other),
            len,
            mode,
        }),
        _ => Op::PagemapScan(ScanOf {
            target: 0,
            flags: 0,
            start: addr,
            end: addr + len,
            mask: PageCategories::WRITTEN.bits(),
            inverted: None,
            anyof: None,
            ret_mask: None,
        }),
    }
}

fn of_filled(d: &Draw) -> Op {
    let (addr, len) = pages(d);
    match d.kind % 100 {
        0..50 => of_handler(d, (addr, len)),
        50..55 => {
            let shared = d.byte.is_multiple_of(2);
            let flags = pick(&[MapFlags::PRIVATE, MapFlags::SHARED], usize::from(shared));
            mmap(addr, len, RW, flags, shared.then_some(d.other % 8 * PAGE))
        }
        55..57 => Op::Pwrite {
            file: "f0".into(),
            off: d.other % 16 * PAGE,
            byte: d.byte,
        },
        57..60 => Op::PunchHole {
            file: "f0".into(),
            off: d.other % 16 * PAGE,
            len: PAGE,
        },
        _ => common(
            (addr, len),
            PAGE,
            d,
            &[RW, RW, Prot::READ, Prot::empty()],
            FILLED,
        ),
    }
}

fn of_code(d: &Draw) -> Op {
    let rights = [
        RW,
        Prot::READ | Prot::EXEC,
        RW | Prot::EXEC,
        Prot::EXEC,
        Prot::READ,
        Prot::empty(),
    ];
    let (addr, len) = pages(d);
    match d.kind % 100 {
        0..35 => Op::Exec { addr },
        35..45 => {
            let of_file = d.byte.is_multiple_of(2).then_some(d.other % 12 * PAGE);
            let kinds = [MapFlags::PRIVATE, MapFlags::SHARED];
            let prot = pick(&rights, d.choice);
            mmap(addr, len, prot, pick(&kinds, d.choice / 6), of_file)
        }
        _ => {
            let byte = RETURN;
            common((addr, len), PAGE, &Draw { byte, ..*d }, &rights, CODE)
        }
    }
}

const _: () = assert!(ZONE >= 28, "what is open at first lies in it");

//! Random scripts of single themes: operations on other processes, merged pages, the place and the
//! limits of memory, bytes that go past the page cache.

use super::{
    advices::{DIRECT, HUGE_PAGES, MERGED, OTHERS, PLACED, REMOTE},
    draw::{Draw, RW, at, pick},
    kinds::{common, mmap},
    living::Living,
};
use emmu::{
    PAGE_SIZE as PAGE,
    host::{ARENA, Plan},
    mm::{Advice, MapFlags, Prot},
    replay::{FileKind, FileSpec, Hex, Op, OpenMode, OpenPath, Resource},
};
use std::collections::BTreeMap;

/// The theme of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// Copies, advice and accesses from process to process; threads; processes that are killed.
    Others,
    /// Equal pages that `ksmd` merges, beside stores and forks.
    Merged,
    /// A heap among its neighbours, stacks that grow, locks; limits of all of them.
    Placed,
    /// A file past its cache, beside mappings of it, and files by their paths.
    Direct,
    /// Huge pages of private memory, from faults, advice and `khugepaged`.
    Huge,
}

const HUGE: u64 = 2 << 20;
/// Where the heap of a script begins.
const HEAP: u64 = 12;

/// A path that no machine has.
const NOWHERE: &str = "/nowhere/at/all";

/// A script under construction.
struct Making {
    theme: Theme,
    plan: Plan,
    living: Living,
}

/// The script that draws make.
pub fn plan(theme: Theme, draws: &[Draw]) -> Plan {
    let file = |size, kind| BTreeMap::from([("f0".to_owned(), FileSpec { size, kind })]);
    let direct = || ("d0".to_owned(), ("f0".to_owned(), OpenMode::Direct));
    let mut making = Making {
        theme,
        plan: Plan {
            name: format!("live-{theme:?}").to_lowercase(),
            files: match theme {
                Theme::Merged | Theme::Huge => BTreeMap::new(),
                Theme::Others | Theme::Placed => file(16 * PAGE, FileKind::Memfd),
                Theme::Direct => file(12 * PAGE, FileKind::Disk),
            },
            opens: (theme == Theme::Direct).then(direct).into_iter().collect(),
            heap: (theme == Theme::Placed).then(|| at(HEAP)),
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
    fn push(&mut self, actor: u32, op: Op) {
        self.plan.steps.push((actor, op));
    }
    /// Something to begin with.
    fn open(&mut self) {
        let map = |page, pages, flags, file| mmap(at(page), pages * PAGE, RW, flags, file);
        let ops = match self.theme {
            Theme::Others => vec![
                map(0, 12, MapFlags::PRIVATE, None),
                map(16, 8, MapFlags::SHARED, Some(0)),
            ],
            Theme::Merged => vec![
                map(0, 12, MapFlags::PRIVATE, None),
                advise((at(0), 12 * PAGE), Advice::Mergeable),
            ],
            Theme::Huge => vec![
                mmap(ARENA.start, 3 * HUGE, RW, MapFlags::PRIVATE, None),
                advise((ARENA.start, 2 * HUGE), Advice::HugePage),
            ],
            Theme::Placed => vec![
                Op::DropIpcLock {},
                limit(Resource::Memlock, Some(8 << 20), false),
            ],
            Theme::Direct => vec![
                map(0, 8, MapFlags::PRIVATE, None),
                map(16, 8, MapFlags::SHARED, Some(0)),
                open("z", "/dev/zero", 2),
                open("h", "/etc/hostname", 0),
                Op::BadFd {
                    name: "b".into(),
                    fd: 999,
                },
            ],
        };
        for op in ops {
            self.push(0, op);
        }
    }
    fn add(&mut self, d: &Draw) {
        let actor = self.living.actor(d.who);
        let op = match (d.kind, self.theme) {
            (0..40, _) => self.living.fork(),
            (40..60, _) => {
                self.plan.steps.extend(self.living.exit());
                return;
            }
            (60..80, Theme::Others) => {
                self.plan.steps.extend(self.living.kill());
                return;
            }
            (80..110, Theme::Others) => self.living.thread(actor),
            (_, Theme::Others) => Some(self.of_others(d)),
            (_, Theme::Merged) => Some(of_merged(d)),
            (_, Theme::Placed) => Some(of_placed(d)),
            (_, Theme::Direct) => Some(of_direct(d)),
            (_, Theme::Huge) => Some(of_huge(d)),
        };
        if let Some(op) = op {
            self.push(actor, op);
        }
    }
    fn of_others(&self, d: &Draw) -> Op {
        let (addr, len) = (at(d.page), d.n * PAGE);
        let target = pick(&self.living.all(), d.choice);
        let remote = at(d.other) + pick(&[0, 0, 0, 100], d.choice / 3);
        let some = pick(&[1, PAGE, 2 * PAGE, PAGE / 2], d.choice / 5);
        match d.kind % 100 {
            0..9 => Op::PvmRead {
                addr,
                len: some,
                target,
                remote,
            },
            9..20 => Op::PvmWrite {
                addr,
                len: some,
                target,
                remote,
            },
            20..27 => Op::ProcessMadvise {
                target,
                iov: vec![(Hex(addr), len), (Hex(at(d.other)), PAGE)],
                advice: pick(REMOTE, d.choice / 2),
                flags: u32::from(d.byte == 7),
            },
            27..31 => Op::SelfProcessMadvise {
                iov: (0..d.n).map(|n| (Hex(at(d.page + 2 * n)), PAGE)).collect(),
                advice: pick(OTHERS, d.choice / 2),
            },
            31..36 => mincore((addr, len)),
            36 | 37 => Op::MemRead { addr, target },
            38 | 39 => Op::MemWrite {
                addr,
                target,
                byte: d.byte,
            },
            40..48 => of_map(d, (addr, len)),
            _ => common((addr, len), PAGE, d, PROTS, OTHERS),
        }
    }
}

const PROTS: &[Prot] = &[
    RW,
    RW,
    Prot::READ,
    Prot::empty(),
    Prot::READ.union(Prot::EXEC),
];

fn advise((addr, len): (u64, u64), advice: Advice) -> Op {
    Op::Madvise { addr, len, advice }
}
fn mincore((addr, len): (u64, u64)) -> Op {
    Op::Mincore { addr, len }
}
fn limit(which: Resource, bytes: Option<u64>, over: bool) -> Op {
    Op::Rlimit { which, bytes, over }
}
fn open(name: &str, path: &str, mode: u32) -> Op {
    Op::Open(OpenPath {
        path: path.into(),
        mode,
        name: name.into(),
    })
}

/// A mapping of nothing or of the file.
fn of_map(d: &Draw, (addr, len): (u64, u64)) -> Op {
    let file = d.byte.is_multiple_of(2).then_some(d.other % 12 * PAGE);
    let kinds = [MapFlags::PRIVATE, MapFlags::PRIVATE, MapFlags::SHARED];
    mmap(
        addr,
        len,
        pick(PROTS, d.choice / 3),
        pick(&kinds, d.choice),
        file,
    )
}

fn of_merged(d: &Draw) -> Op {
    let (addr, len) = (at(d.page % 24), d.n * PAGE);
    let byte = pick(&[0, 1, 1, 2, 2, 3], d.choice);
    match d.kind % 100 {
        0..10 => Op::Ksm { mode: 1 },
        10 if d.byte.is_multiple_of(3) => Op::Ksm { mode: 2 },
        10..16 => mmap(addr, len, RW, MapFlags::PRIVATE, None),
        16..26 => advise((addr, len), pick(MERGED, d.choice)),
        26..60 => Op::Store { addr, byte },
        60 => Op::Mlock { addr, len },
        61 => Op::Munlock { addr, len },
        _ => common((addr, len), PAGE, &Draw { byte, ..*d }, PROTS, MERGED),
    }
}

/// A limit of the memory that a process maps or locks, or of its stacks.
fn of_limit(d: &Draw) -> Op {
    let few = pick(&[0, 0, 1, 3, 8, 16], d.choice) * PAGE + pick(&[0, 5], d.choice / 6);
    match d.byte % 6 {
        0 => limit(Resource::As, None, false),
        1 | 2 => limit(Resource::As, Some(few), true),
        3 => limit(Resource::Memlock, Some(8 << 20), false),
        4 => limit(Resource::Memlock, Some(few), true),
        _ => {
            let pages = pick(&[8, 16, 64, 300, 1100, 2048], d.choice);
            limit(Resource::Stack, Some(pages * PAGE), false)
        }
    }
}

/// A mapping at a place that is free or not, that grows or not.
fn of_place(d: &Draw, (addr, len): (u64, u64)) -> Op {
    let shared = pick(
        &[MapFlags::PRIVATE, MapFlags::PRIVATE, MapFlags::SHARED],
        d.choice,
    );
    let fixed = pick(
        &[
            MapFlags::FIXED,
            MapFlags::FIXED_NOREPLACE,
            MapFlags::FIXED | MapFlags::FIXED_NOREPLACE,
        ],
        d.choice / 3,
    );
    let mut flags = shared | fixed;
    flags.set(MapFlags::LOCKED, d.byte.is_multiple_of(4));
    flags.set(MapFlags::NORESERVE, d.byte.is_multiple_of(5));
    let (mut addr, mut file) = (addr, None);
    if d.byte.is_multiple_of(3) {
        flags |= MapFlags::GROWSDOWN;
        // Stacks have room below them.
        addr += pick(&[300, 600, 1200], d.choice / 9) * PAGE;
    } else if d.byte.is_multiple_of(7) {
        file = Some("f0".to_owned());
    }
    Op::Mmap {
        addr,
        len,
        prot: pick(PROTS, d.choice / 5),
        flags,
        file,
        off: 0,
    }
}

fn of_placed(d: &Draw) -> Op {
    let (addr, len) = (at(d.page), d.n * PAGE);
    // Around stacks: a page of them, or one in the gap below.
    let near = at(d.page + pick(&[300, 600, 1200], d.choice / 9))
        - pick(&[0, 0, 1, 2, 8, 100, 255, 256, 257], d.choice) * PAGE;
    match d.kind % 100 {
        0..16 => Op::Brk {
            addr: pick(
                &[0, at(HEAP), at(HEAP) + 1, at(HEAP + d.other) + d.n * 900],
                d.choice.max(1) / 2,
            ),
        },
        16..22 => of_limit(d),
        22..40 => of_place(d, (addr, len)),
        40..46 => Op::Store {
            addr: near,
            byte: d.byte,
        },
        46..48 => Op::Load { addr: near },
        48 => Op::Mlockall {
            flags: pick(&[2, 6], d.choice),
        },
        49 => Op::Munlockall {},
        50..53 => Op::Mlock { addr, len },
        53 | 54 => Op::Mlock2 {
            addr,
            len,
            flags: 1,
        },
        55 | 56 => Op::Munlock { addr, len },
        57..60 => Op::Mprotect {
            addr: near,
            len: PAGE,
            prot: pick(PROTS, d.choice) | Prot::GROWSDOWN,
        },
        60 => mincore((addr, len)),
        _ => common((addr, len), PAGE, d, PROTS, PLACED),
    }
}

/// A transfer past the cache.
fn past_cache(d: &Draw, addr: u64) -> Op {
    let file = "d0".to_owned();
    let off = d.other % 14 * PAGE;
    let len = pick(&[PAGE, PAGE, 512, 2 * PAGE, 100], d.choice);
    match d.kind % 100 {
        0..9 => Op::DirectWrite {
            file,
            off: off + pick(&[0, 0, 512, 1], d.choice / 5),
            len,
            byte: d.byte,
        },
        9..14 => Op::DirectRead {
            file,
            off,
            addr,
            len,
        },
        _ => Op::DirectWriteFrom {
            file,
            off,
            addr,
            len,
        },
    }
}

fn of_direct(d: &Draw) -> Op {
    let (addr, len) = (at(d.page), d.n * PAGE);
    let file = "f0".to_owned();
    let off = d.other % 14 * PAGE;
    match d.kind % 100 {
        0..19 => past_cache(d, addr),
        19..26 => Op::Pread {
            file: pick(&["f0", "d0", "f0", "h"], d.choice).into(),
            off: if d.choice % 4 == 3 { 1 << 12 } else { off + 7 },
        },
        26..32 => mincore((addr, len)),
        32..34 => Op::Pwrite {
            file,
            off,
            byte: d.byte,
        },
        34 => Op::Fsync { file },
        35 => Op::Ftruncate {
            file,
            len: d.other % 14 * PAGE + pick(&[0, 0, 77], d.choice),
        },
        36..48 => of_map(d, (addr, len)),
        48..52 => of_path(d, (addr, len)),
        52..54 => {
            let paths = [
                ("/dev/zero", 2),
                ("/dev/zero", 0),
                ("/dev/null", 2),
                (NOWHERE, 0),
            ];
            let (path, mode) = pick(&paths, d.choice / 3);
            open(pick(&["z", "h", "n"], d.choice), path, mode)
        }
        _ => common((addr, len), PAGE, d, PROTS, DIRECT),
    }
}

/// A mapping of a file that was opened by its path, or of one that is not open.
fn of_path(d: &Draw, (addr, len): (u64, u64)) -> Op {
    let kinds = [MapFlags::PRIVATE, MapFlags::SHARED];
    Op::Mmap {
        addr,
        // A script does not know whether this machine has the file in its cache: a fault behind the
        // end would bring the page in that lies before.
        len: len.min(PAGE),
        prot: pick(&[Prot::READ, RW], d.choice / 6),
        flags: pick(&kinds, d.choice / 3) | MapFlags::FIXED,
        file: Some(pick(&["z", "h", "b"], d.choice).into()),
        off: 0,
    }
}

fn of_huge(d: &Draw) -> Op {
    let (first, other) = (d.page % 5, d.other % 5);
    // Whole huge pages, or some pages of one.
    let whole = !d.byte.is_multiple_of(3);
    let start = ARENA.start + first * HUGE;
    let (addr, len) = match whole {
        true => (start, (1 + d.n % 2) * HUGE),
        false => (start + d.other * PAGE, d.n * PAGE),
    };
    let d = Draw { other, ..*d };
    match d.kind % 100 {
        0..5 => Op::Khugepaged {
            advise: vec![(Hex(start), HUGE)],
        },
        5..12 => mmap(start, (1 + d.n % 2) * HUGE, RW, MapFlags::PRIVATE, None),
        12..30 => advise((addr, len), pick(HUGE_PAGES, d.choice)),
        30..45 => Op::Store {
            addr: start + d.page % 8 * 67 * PAGE,
            byte: d.byte,
        },
        _ => common((addr, len), HUGE, &d, PROTS, HUGE_PAGES),
    }
}

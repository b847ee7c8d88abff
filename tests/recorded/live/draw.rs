//! Random scripts: a draw is numbers, and becomes an operation with the processes that live by
//! then.

use super::{
    advices::{ANY, HELD, OUT, SWAPPING, USUAL},
    living::Living,
};
use emmu::{
    PAGE_SIZE as PAGE,
    host::{ARENA, MAX_PROCESSES, Plan},
    mm::{MapFlags, MremapArgs, MremapFlags, MsyncFlags, Prot},
    replay::{FileKind, FileSpec, Mbind, Op, OpenMode},
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Which operations, how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Dense,
    Fork,
    Files,
    Errors,
    Swap,
    /// A file on a disk and one of memory, with ends and holes anywhere.
    Ends,
    /// Pins, references, and accesses by force, beside forks.
    Holds,
    /// Blocks of both that are allocated, zeroed, taken out; direct transfers, seals, policies.
    Blocks,
}

/// The numbers of one operation.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    pub(super) who: u32,
    pub(super) kind: u32,
    pub(super) page: u64,
    pub(super) n: u64,
    pub(super) other: u64,
    pub(super) byte: u8,
    pub(super) choice: usize,
}

pub fn draw() -> impl Strategy<Value = Draw> {
    let numbers = (
        0..MAX_PROCESSES,
        0..1000_u32,
        0..ZONE,
        1..9_u64,
        0..ZONE,
        1..=255_u8,
        0..60_usize,
    );
    numbers.prop_map(|(who, kind, page, n, other, byte, choice)| Draw {
        who,
        kind,
        page,
        n,
        other,
        byte,
        choice,
    })
}

/// Pages that are used; moves go there or far away.
pub(super) const ZONE: u64 = 40;
const FAR: u64 = 1 << 15;
pub(super) const RW: Prot = Prot::READ.union(Prot::WRITE);

#[derive(Clone, Copy)]
enum Kind {
    Mmap,
    Munmap,
    Mprotect,
    Mremap,
    Madvise,
    Load,
    Store,
    Fork,
    Exit,
    Lock,
    Unlock,
    File,
    Pin,
    Splice,
    Force,
}

fn weights(profile: Profile) -> Vec<(u32, Kind)> {
    use Kind::*;
    let mut all = vec![
        (24, Store),
        (16, Load),
        (14, Mmap),
        (9, Mprotect),
        (9, Mremap),
        (8, Madvise),
        (7, Munmap),
        (3, Fork),
        (1, Exit),
    ];
    match profile {
        Profile::Dense => all.extend([(2, Lock), (2, Unlock)]),
        Profile::Fork => all.extend([(4, Fork), (3, Exit), (10, Store), (3, File)]),
        Profile::Files => all.extend([(24, File), (4, Mmap)]),
        Profile::Errors => all.extend([(3, Lock), (3, Unlock), (8, File)]),
        Profile::Swap => all.extend([(10, Madvise), (10, Load)]),
        Profile::Ends | Profile::Blocks => all.extend([(50, File), (10, Store), (10, Load)]),
        Profile::Holds => all.extend([(4, Fork), (2, Exit), (12, Pin), (8, Splice), (12, Force)]),
    }
    all
}

pub(super) fn at(page: u64) -> u64 {
    ARENA.start + page * PAGE
}

/// Where in a page something is that is not a whole one.
fn odd(choice: usize) -> u64 {
    pick(&[0, 0, 1, 7, 100, 2048, PAGE - 1], choice)
}

pub(super) fn pick<T: Copy>(from: &[T], choice: usize) -> T {
    from[choice % from.len()]
}

/// A script under construction.
struct Making {
    profile: Profile,
    plan: Plan,
    living: Living,
    /// Where anything was stored.
    stored: BTreeSet<u64>,
}

impl Making {
    fn new(profile: Profile) -> Self {
        let memfd = |size| FileSpec {
            size,
            kind: FileKind::Memfd,
        };
        let disk = |size| FileSpec {
            size,
            kind: FileKind::Disk,
        };
        let files = match profile {
            Profile::Dense | Profile::Swap => BTreeMap::new(),
            Profile::Blocks => BTreeMap::from([
                ("f0".into(), disk(9 * PAGE + 1234)),
                (
                    "f1".into(),
                    FileSpec {
                        size: 5 * PAGE + 77,
                        kind: FileKind::Sealable,
                    },
                ),
            ]),
            Profile::Ends => BTreeMap::from([
                ("f0".into(), disk(9 * PAGE + 1234)),
                ("f1".into(), memfd(5 * PAGE + 77)),
            ]),
            _ => BTreeMap::from([
                ("f0".into(), memfd(16 * PAGE)),
                ("f1".into(), memfd(5 * PAGE + 77)),
            ]),
        };
        let name = format!("live-{profile:?}").to_lowercase();
        Self {
            profile,
            plan: Plan {
                name,
                files,
                opens: match profile {
                    Profile::Blocks => {
                        BTreeMap::from([("d0".into(), ("f0".into(), OpenMode::Direct))])
                    }
                    _ => BTreeMap::new(),
                },
                huge_pages: None,
                heap: None,
                steps: Vec::new(),
            },
            living: Living::new(),
            stored: BTreeSet::new(),
        }
    }
    fn push(&mut self, actor: u32, op: Op) {
        if let Op::Store { addr, .. } = op {
            self.stored.insert(addr);
        }
        self.plan.steps.push((actor, op));
    }
    fn map(&mut self, actor: u32, pages: (u64, u64), flags: MapFlags, file: Option<(&str, u64)>) {
        let op = Op::Mmap {
            addr: at(pages.0),
            len: pages.1 * PAGE,
            prot: RW,
            flags: flags | MapFlags::FIXED,
            file: file.map(|f| f.0.to_owned()),
            off: file.map_or(0, |f| f.1 * PAGE),
        };
        self.push(actor, op);
    }
    /// Something to begin with.
    fn open(&mut self) {
        self.map(0, (0, 12), MapFlags::PRIVATE, None);
        if !self.plan.files.is_empty() {
            self.map(0, (16, 10), MapFlags::SHARED, Some(("f0", 0)));
            self.map(0, (28, 8), MapFlags::PRIVATE, Some(("f0", 4)));
        }
    }
    /// Everything that was stored anywhere is loaded by everyone: the contents are compared.
    fn close(mut self) -> Plan {
        for process in self.living.all() {
            for addr in self.stored.clone() {
                self.push(process, Op::Load { addr });
            }
        }
        self.plan
    }
    fn bad(&self) -> bool {
        self.profile == Profile::Errors
    }
    fn skewed(&self, addr: u64, d: &Draw) -> u64 {
        let by = if self.bad() {
            pick(&[0, 0, 0, 0, 0, 1, 0x123], d.choice)
        } else {
            0
        };
        addr + by
    }
    fn length(&self, n: u64, d: &Draw) -> u64 {
        let len = n * PAGE;
        let odd = [len, len, len, len, 0, len + 5, PAGE.wrapping_neg(), 1 << 25];
        if self.bad() {
            pick(&odd, d.choice / 2)
        } else {
            len
        }
    }
    fn file(&self, d: &Draw) -> Option<String> {
        let names: Vec<&String> = self.plan.files.keys().collect();
        (!names.is_empty()).then(|| pick(&names, d.choice).clone())
    }
    fn add(&mut self, d: &Draw) {
        let actor = self.living.actor(d.who);
        let weights = weights(self.profile);
        let mut left = d.kind * weights.iter().map(|w| w.0).sum::<u32>() / 1000;
        let kind = weights.iter().find(|w| {
            let here = left < w.0;
            left = left.saturating_sub(w.0);
            here
        });
        let op = self.op(kind.map_or(Kind::Load, |k| k.1), actor, d);
        if let Some((actor, op)) = op {
            self.push(actor, op);
        }
    }
    fn op(&mut self, kind: Kind, actor: u32, d: &Draw) -> Option<(u32, Op)> {
        let (addr, len) = (self.skewed(at(d.page), d), self.length(d.n, d));
        let op = match kind {
            Kind::Mmap => self.mmap(addr, len, d),
            Kind::Munmap => Op::Munmap { addr, len },
            Kind::Mprotect => {
                let prot = pick(
                    &[RW, RW, Prot::READ, Prot::empty(), Prot::READ | Prot::EXEC],
                    d.choice,
                );
                Op::Mprotect { addr, len, prot }
            }
            Kind::Mremap => self.mremap(addr, len, d),
            Kind::Madvise => {
                let all = match self.profile {
                    Profile::Errors => ANY,
                    Profile::Swap => SWAPPING,
                    Profile::Ends | Profile::Blocks => OUT,
                    Profile::Holds => HELD,
                    _ => USUAL,
                };
                let advice = pick(all, d.choice);
                Op::Madvise { addr, len, advice }
            }
            Kind::Load => Op::Load {
                addr: at(d.page) + odd(d.choice),
            },
            Kind::Store => Op::Store {
                addr: at(d.page) + odd(d.choice),
                byte: d.byte,
            },
            Kind::Fork => self.living.fork()?,
            Kind::Exit => return self.living.exit(),
            Kind::Lock | Kind::Unlock => self.lock(kind, addr, len, d),
            Kind::File => self.on_file(addr, len, d)?,
            Kind::Pin | Kind::Splice | Kind::Force => self.hold(kind, addr, len, d),
        };
        Some((actor, op))
    }
    fn hold(&self, kind: Kind, addr: u64, len: u64, d: &Draw) -> Op {
        let target = pick(&self.living.all(), d.choice);
        match (kind, d.byte % 3) {
            (Kind::Pin, 0) => Op::Unpin {},
            (Kind::Pin, _) => Op::Pin { addr, len },
            (Kind::Splice, 0) => Op::Drain {},
            (Kind::Splice, _) => Op::Vmsplice { addr, len },
            (_, 0) => Op::MemRead { addr, target },
            (_, byte) => Op::MemWrite { addr, target, byte },
        }
    }
    fn lock(&self, kind: Kind, addr: u64, len: u64, d: &Draw) -> Op {
        match kind {
            Kind::Lock if self.bad() && d.byte.is_multiple_of(3) => Op::Mlock2 {
                addr,
                len,
                flags: pick(&[0, 1, 1, 2], d.choice),
            },
            Kind::Lock => Op::Mlock { addr, len },
            _ if self.bad() && d.byte.is_multiple_of(5) => Op::Mseal { addr, len },
            _ => Op::Munlock { addr, len },
        }
    }
    fn mmap(&self, addr: u64, len: u64, d: &Draw) -> Op {
        let file = if d.byte.is_multiple_of(2) {
            self.file(d)
        } else {
            None
        };
        let shared = [MapFlags::PRIVATE, MapFlags::PRIVATE, MapFlags::SHARED];
        let fixed = [
            MapFlags::FIXED,
            MapFlags::FIXED,
            MapFlags::FIXED,
            MapFlags::FIXED_NOREPLACE,
        ];
        let mut flags = pick(&shared, d.choice) | pick(&fixed, d.choice / 3);
        if d.choice % 10 == 9 {
            flags |= MapFlags::POPULATE;
        }
        if self.bad() && d.choice % 4 == 3 {
            flags = unusual(flags, d);
        }
        Op::Mmap {
            addr,
            len,
            prot: pick(
                &[
                    RW,
                    RW,
                    RW,
                    Prot::READ,
                    Prot::empty(),
                    Prot::READ | Prot::EXEC,
                ],
                d.choice / 12,
            ),
            flags,
            off: if file.is_some() {
                d.other % 12 * PAGE
            } else {
                0
            },
            file,
        }
    }
    fn msync_flags(&self, d: &Draw) -> MsyncFlags {
        let odd = MsyncFlags::from_bits_retain(8);
        let sync = MsyncFlags::SYNC;
        let both = sync | MsyncFlags::INVALIDATE;
        let async_ = MsyncFlags::ASYNC;
        if self.bad() {
            pick(&[sync, async_, both, sync | async_, odd], d.choice)
        } else {
            sync
        }
    }
    fn mremap(&self, addr: u64, len: u64, d: &Draw) -> Op {
        let (go, fixed) = (MremapFlags::MAYMOVE, MremapFlags::FIXED);
        let keep = MremapFlags::DONTUNMAP;
        let mut flags = pick(
            &[
                MremapFlags::empty(),
                go | fixed,
                go | fixed,
                go | fixed | keep,
            ],
            d.choice,
        );
        if self.bad() && d.byte.is_multiple_of(3) {
            flags = pick(&[fixed, fixed | keep, keep, go | fixed | keep], d.choice);
        }
        let new_len = match d.byte % 4 {
            _ if flags.contains(keep) => len,
            0 => len.saturating_sub(PAGE).max(PAGE),
            1 => len.saturating_add(PAGE),
            _ => len,
        };
        let target = if d.byte % 5 < 2 {
            FAR + d.other
        } else {
            d.other
        };
        Op::Mremap(MremapArgs {
            addr,
            old_len: len,
            new_len,
            flags,
            new_addr: if flags.contains(fixed) {
                self.skewed(at(target), d)
            } else {
                0
            },
        })
    }
    fn on_file(&self, addr: u64, len: u64, d: &Draw) -> Option<Op> {
        let file = self.file(d)?;
        if self.profile == Profile::Blocks && d.byte.is_multiple_of(2) {
            return Some(on_blocks(file, addr, len, d));
        }
        let kinds = if self.profile == Profile::Ends { 7 } else { 6 };
        Some(match d.byte % kinds {
            0 => Op::RemapFilePages {
                addr,
                len,
                pgoff: d.other % 14,
            },
            1 => Op::Ftruncate {
                file,
                len: d.other % 16 * PAGE + odd(d.choice),
            },
            2 => Op::PunchHole {
                file,
                off: d.other % 12 * PAGE + odd(d.choice),
                len: (d.n % 5 * PAGE + odd(d.choice / 7)).max(1),
            },
            3 => Op::Msync {
                addr,
                len: len.saturating_sub(odd(d.choice) / 2),
                flags: self.msync_flags(d),
            },
            4 => Op::ReadInto {
                file,
                off: d.other % 8 * PAGE,
                addr,
                len: pick(&[1, PAGE, 2 * PAGE], d.choice),
            },
            5 => Op::Pwrite {
                file,
                off: d.other % 14 * PAGE + odd(d.choice),
                byte: d.byte,
            },
            _ => Op::Fsync { file },
        })
    }
}

/// An operation on the blocks of a file, past its cache, on its seals, or on policies.
fn on_blocks(file: String, addr: u64, len: u64, d: &Draw) -> Op {
    const MODES: &[u32] = &[0, 1, 3, 8, 16, 16, 17, 32, 64];
    let off = d.other % 12 * PAGE;
    match d.byte / 2 % 8 {
        0 => Op::DirectRead {
            file: "d0".into(),
            off,
            addr,
            len: pick(&[PAGE, 512, 2 * PAGE], d.choice),
        },
        1 => Op::DirectWriteFrom {
            file: "d0".into(),
            off: off + pick(&[0, 0, 512, 1], d.choice),
            addr,
            len: pick(&[PAGE, 512, 2 * PAGE], d.choice),
        },
        2 => Op::SyncFileRange {
            file,
            off,
            len,
            flags: pick(&[2, 7, 8, 1], d.choice),
        },
        3 if d.n == 1 => Op::Seal {
            file: "f1".into(),
            seals: pick(&[2, 4, 8, 16, 32, 64], d.choice),
        },
        3 => Op::Mbind(Mbind {
            addr,
            len,
            mode: pick(&[0, 1, 2, 3, 4, 9], d.choice),
            flags: 0,
        }),
        4 => Op::FadviseDontneed { file, off, len },
        _ => Op::Fallocate {
            file,
            mode: pick(MODES, d.choice),
            off: off + pick(&[0, 0, 0, 100], d.choice / 9),
            len: (1 + d.n % 4) * PAGE + pick(&[0, 0, 50], d.choice / 7),
        },
    }
}

/// Flags that few programs give: of droppable memory, of huge pages that there are none of, of
/// locks and hints.
fn unusual(flags: MapFlags, d: &Draw) -> MapFlags {
    let types = MapFlags::SHARED | MapFlags::PRIVATE;
    match d.byte % 6 {
        0 => (flags - types) | MapFlags::DROPPABLE,
        1 => (flags - types) | MapFlags::DROPPABLE | MapFlags::LOCKED,
        2 => flags | MapFlags::HUGETLB,
        3 => flags | MapFlags::LOCKED,
        4 => flags | MapFlags::POPULATE | MapFlags::NONBLOCK,
        _ => flags | MapFlags::MAP_32BIT | MapFlags::STACK,
    }
}

/// The script that draws make.
pub fn plan(profile: Profile, draws: &[Draw]) -> Plan {
    let mut making = Making::new(profile);
    making.open();
    for draw in draws {
        making.add(draw);
    }
    making.close()
}

/// A short script in which something of each part happens.
pub fn story() -> Plan {
    let mut making = Making::new(Profile::Fork);
    making.open();
    for page in [0, 1, 16, 28] {
        making.push(
            0,
            Op::Store {
                addr: at(page),
                byte: 7,
            },
        );
    }
    let fork = making.living.fork();
    making.push(0, fork.expect("the first one"));
    making.push(
        1,
        Op::Store {
            addr: at(1),
            byte: 8,
        },
    );
    making.push(
        0,
        Op::Store {
            addr: at(1) + 7,
            byte: 9,
        },
    );
    making.push(
        0,
        Op::Munmap {
            addr: at(4),
            len: PAGE,
        },
    );
    making.push(0, Op::Load { addr: at(4) });
    making.close()
}

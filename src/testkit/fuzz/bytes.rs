//! Scripts as bytes, eight to an operation: after any mutation of the bytes the input is still a
//! script, and recorded scripts can be seeds.
//!
//! ```text
//! who  kind  page  skew  pages  other  a  b
//! ```

use super::{device::on_device, shared::on_shared, userfaults::on_userfault};
use crate::{
    addr::PAGE_SIZE as PAGE,
    mm::{Advice, MapFlags, MremapArgs, MremapFlags, Prot},
    replay::{FileKind, FileSpec, Header, Mbind, OURS, Op, OpenMode, Script, Step},
};
use std::collections::{BTreeMap, BTreeSet};

const BASE: u64 = 1 << 40;
/// Pages of the scripts; some lie at the end of a table.
const ZONE: u64 = 64;
/// The first page.
const FIRST: u64 = 512 - ZONE / 2;
const MOST: usize = 64;
const PROCESSES: u32 = 6;
const RECORD: usize = 8;

type Record = [u8; RECORD];

/// Returns an address: mostly of a page, sometimes inside of one.
fn at(page: u8, skew: u8) -> u64 {
    let odd = if skew > 240 { u64::from(skew) } else { 0 };
    BASE + (FIRST + u64::from(page) % ZONE) * PAGE + odd
}
fn file(n: u8) -> String {
    ["f0", "f1", "f2"][usize::from(n % 3)].to_owned()
}
/// The flags of `mmap` in a byte: the relevant ones, and a few others.
const FLAGS: [MapFlags; 8] = [
    MapFlags::SHARED,
    MapFlags::PRIVATE,
    MapFlags::FIXED,
    MapFlags::FIXED_NOREPLACE,
    MapFlags::POPULATE,
    MapFlags::NORESERVE,
    MapFlags::GROWSDOWN,
    MapFlags::LOCKED,
];
/// A flag from the byte that also makes an address odd.
const MORE: [MapFlags; 4] = [
    MapFlags::empty(),
    MapFlags::DROPPABLE,
    MapFlags::HUGETLB,
    MapFlags::MAP_32BIT,
];
/// Modes of `fallocate`.
const MODES: [u32; 11] = [0, 1, 2, 3, 8, 9, 16, 17, 32, 64, 128];
/// Returns a number of pages: mostly a few, sometimes none, or all.
fn len(pages: u8) -> u64 {
    match pages {
        255 => u64::MAX - PAGE,
        254 => 0,
        n => u64::from(n % 12) * PAGE + PAGE,
    }
}

fn op(r: Record, child: u32) -> Op {
    let [_, kind, page, skew, pages, _, a, _] = r;
    let (addr, len) = (at(page, skew), len(pages));
    let prot = Prot::from_bits_retain((a % 8).into());
    match kind % 20 {
        0 => Op::Load { addr },
        1 | 17 => Op::Store { addr, byte: a },
        2 | 5 | 16 => mapping(r),
        3 => Op::Munmap { addr, len },
        4 => Op::Mprotect { addr, len, prot },
        6 | 18 => {
            let advice = Advice::ALL[usize::from(a) % Advice::ALL.len()];
            Op::Madvise { addr, len, advice }
        }
        7 => Op::msync(addr, len),
        8 => Op::Mlock { addr, len },
        9 => Op::Munlock { addr, len },
        10 => Op::Fork { child },
        11 => Op::Exit {},
        12..=15 => on_file(r),
        _ => of_frames(r),
    }
}
/// Operations that map.
fn mapping(r: Record) -> Op {
    let [_, kind, page, skew, pages, other, a, b] = r;
    let (addr, len) = (at(page, skew), len(pages));
    let off = u64::from(other % 24) * PAGE;
    match kind % 20 {
        2 => Op::Mmap {
            addr,
            len,
            prot: Prot::from_bits_retain((a % 8).into()),
            flags: (0..8)
                .filter(|i| b & (1 << i) != 0)
                .map(|i| FLAGS[i])
                .chain([MORE[usize::from(skew) / 16 % 4]])
                .collect(),
            file: (a >= 64).then(|| file(a / 64 - 1)),
            off,
        },
        5 => Op::Mremap(MremapArgs {
            addr,
            old_len: len,
            new_len: u64::from(b % 12) * PAGE,
            flags: MremapFlags::from_bits_truncate(a.into()),
            new_addr: at(other, skew),
        }),
        _ => Op::RemapFilePages {
            addr,
            len,
            pgoff: off / PAGE,
        },
    }
}
/// Operations on files.
fn on_file(r: Record) -> Op {
    let [_, kind, page, _, pages, other, a, byte] = r;
    let (file, len) = (file(a), len(pages));
    let off = u64::from(other % 24) * PAGE;
    match kind % 20 {
        12 => Op::Ftruncate {
            file,
            len: off + u64::from(byte),
        },
        13 if page % 4 == 1 => Op::Fallocate {
            file,
            mode: MODES[usize::from(byte) % MODES.len()],
            off,
            len,
        },
        13 => Op::PunchHole { file, off, len },
        14 => Op::Pwrite { file, off, byte },
        _ if page % 4 == 1 => Op::FadviseDontneed { file, off, len },
        _ if page % 4 == 2 => Op::SyncFileRange {
            file,
            off,
            len,
            flags: u32::from(byte % 9),
        },
        _ if page % 4 == 3 => Op::DirectWrite {
            file: file.replace('f', "d"),
            off,
            len: len % (32 * PAGE),
            byte,
        },
        _ => Op::Fsync { file },
    }
}
/// Numbers from here on are operations of a device with memory of its own.
const OF_DEVICES: u8 = 9 * 26;

/// Operations of the kernel on frames, and operations that are drawn less often.
fn of_frames(r: Record) -> Op {
    let [_, _, page, skew, pages, other, a, b] = r;
    let (addr, len) = (at(page, skew), len(pages));
    let remote = at(other, skew);
    if a >= OF_DEVICES {
        return on_device((addr, len.min(ZONE * PAGE)), (other, b));
    }
    match a % 26 {
        21 => on_shared((addr, len.min(ZONE * PAGE)), (other, b)),
        18..=20 => on_userfault((addr, len.min(ZONE * PAGE)), remote, (other, a, b)),
        0 => Op::Reclaim {},
        1 => Op::Shrink { pages: b.into() },
        2 => Op::Migrate { addr },
        3 if b % 2 == 1 => Op::Mbind(Mbind {
            addr,
            len,
            mode: u32::from(b / 2 % 8),
            flags: u32::from(other % 9),
        }),
        3 => Op::Merge {},
        4 => Op::Mlock2 {
            addr,
            len,
            flags: u32::from(b % 3),
        },
        5 => Op::Mlockall {
            flags: u32::from(b % 8),
        },
        6 => Op::Munlockall {},
        7 => Op::Mseal { addr, len },
        8 => Op::Ksm { mode: b % 2 + 1 },
        9 => Op::ReadInto {
            file: file(b),
            off: u64::from(other % 24) * PAGE,
            addr,
            len,
        },
        10 => Op::PvmRead {
            addr,
            len,
            target: 0,
            remote,
        },
        11 => Op::PvmWrite {
            addr,
            len,
            target: 0,
            remote,
        },
        kind => on_holds(kind, (addr, len), b),
    }
}
/// Pins, pipes, accesses by force, and what the kernel does by itself.
fn on_holds(kind: u8, (addr, len): (u64, u64), byte: u8) -> Op {
    let target = 0;
    match kind {
        12 => Op::Pin { addr, len },
        13 => Op::Unpin {},
        // More than a pipe takes is no script.
        14 => Op::Vmsplice {
            addr,
            len: len.min(12 * PAGE),
        },
        15 => Op::Drain {},
        16 => Op::MemRead { addr, target },
        22 => Op::Khugepaged { advise: Vec::new() },
        23 => Op::DropCaches { value: 2 },
        24 => Op::Swapoff {},
        25 => Op::Swapon {},
        _ => Op::MemWrite { addr, target, byte },
    }
}

/// Returns the script that the bytes encode.
pub fn decode(bytes: &[u8]) -> Script {
    let spec = |pages, kind| FileSpec {
        size: pages * PAGE,
        kind,
    };
    let files = BTreeMap::from([
        ("f0".to_owned(), spec(16, FileKind::Memfd)),
        ("f1".to_owned(), spec(12, FileKind::Disk)),
        ("f2".to_owned(), spec(8, FileKind::Xip)),
        ("s0".to_owned(), spec(8, FileKind::Sealable)),
    ]);
    let mut living = BTreeSet::from([0]);
    let mut next = 1;
    let mut steps = Vec::new();
    let (records, _rest) = bytes.as_chunks::<RECORD>();
    for (line, record) in (2..).zip(records.iter().take(MOST)) {
        let nth = usize::from(record[0]) % living.len();
        let actor = *living.iter().nth(nth).expect("below");
        let op = op(*record, next);
        match op {
            Op::Fork { child } if child < PROCESSES => {
                living.insert(child);
                next += 1;
            }
            Op::Exit {} if actor != 0 => {
                living.remove(&actor);
            }
            Op::Fork { .. } | Op::Exit {} => continue,
            _ => {}
        }
        steps.push(Step::unrecorded(line, actor, op));
    }
    let mut header = Header::new("fuzz", 0, OURS, BASE..BASE + (1 << 30), files);
    for nth in 0..3 {
        let direct = (format!("f{nth}"), OpenMode::Direct);
        header.opens.insert(format!("d{nth}"), direct);
    }
    Script {
        name: "fuzz".into(),
        header,
        steps,
    }
}

/// Returns the bytes that are nearest to a script: its operations with their pages, as far as they
/// lie in the zone.
pub fn encode(script: &Script) -> Vec<u8> {
    let start = script.header.arena().start;
    let one = |step: &Step| Nearest { start, step }.record();
    script.steps.iter().flat_map(one).collect()
}

/// Finds the bytes of a step.
struct Nearest<'s> {
    start: u64,
    step: &'s Step,
}

impl Nearest<'_> {
    fn page(&self, addr: u64) -> u8 {
        byte(addr.wrapping_sub(self.start) / PAGE % ZONE)
    }
    /// `other`, `a` and `b` as the kind wants them.
    fn of(&self, kind: u8, (addr, len): (u64, u64), [other, a, b]: [u8; 3]) -> Record {
        let who = byte((self.step.actor % PROCESSES).into());
        let few = byte((len.div_ceil(PAGE).max(1) - 1) % 12);
        [who, kind, self.page(addr), 0, few, other, a, b]
    }
    fn record(&self) -> Record {
        let start = self.start;
        match self.step.op {
            Op::Load { addr } => self.of(0, (addr, 0), [0; 3]),
            Op::Store { addr, byte } => self.of(1, (addr, 0), [0, byte, 0]),
            Op::Munmap { addr, len } => self.of(3, (addr, len), [0; 3]),
            Op::Mprotect { addr, len, prot } => self.of(4, (addr, len), [0, rights(prot), 0]),
            Op::Madvise { addr, len, advice } => {
                let nth = Advice::ALL.iter().position(|a| *a == advice);
                self.of(6, (addr, len), [0, byte(nth.unwrap_or(0) as u64), 0])
            }
            Op::Msync { addr, len, .. } => self.of(7, (addr, len), [0; 3]),
            Op::Mlock { addr, len } => self.of(8, (addr, len), [0; 3]),
            Op::Munlock { addr, len } => self.of(9, (addr, len), [0; 3]),
            Op::Fork { .. } => self.of(10, (start, 0), [0; 3]),
            Op::Exit {} => self.of(11, (start, 0), [0; 3]),
            Op::Reclaim {} => self.of(19, (start, 0), [0; 3]),
            _ => self.mapping_or_file(),
        }
    }
    fn mapping_or_file(&self) -> Record {
        let start = self.start;
        let off = |off: u64| byte(off / PAGE % 24);
        let named = |name: &str| name.bytes().last().map_or(0, |digit| digit % 2);
        match self.step.op {
            Op::Mmap {
                addr,
                len,
                prot,
                flags,
                ref file,
                off: from,
            } => {
                let bits = (0..8_u8).filter(|&i| flags.contains(FLAGS[usize::from(i)]));
                let bits = bits.fold(0, |all, i| all | 1 << i);
                let file = file.as_ref().map_or(0, |f| 64 * (named(f) + 1));
                self.of(2, (addr, len), [off(from), file + rights(prot), bits])
            }
            Op::Mremap(m) => {
                let flags = byte(u64::from(m.flags.bits()) % 8);
                let new = byte(m.new_len.div_ceil(PAGE) % 12);
                self.of(5, (m.addr, m.old_len), [self.page(m.new_addr), flags, new])
            }
            Op::Ftruncate { ref file, len } => self.of(12, (start, 0), [off(len), named(file), 0]),
            Op::PunchHole {
                ref file,
                off: from,
                len,
            } => self.of(13, (start, len), [off(from), named(file), 0]),
            Op::Pwrite {
                ref file,
                off: from,
                byte,
            } => self.of(14, (start, 0), [off(from), named(file), byte]),
            Op::RemapFilePages { addr, len, pgoff } => {
                self.of(16, (addr, len), [byte(pgoff % 24), 0, 0])
            }
            _ => self.of(0, (start, 0), [0; 3]),
        }
    }
}

fn rights(prot: Prot) -> u8 {
    byte(u64::from(prot.bits()) % 8)
}
fn byte(small: u64) -> u8 {
    u8::try_from(small).expect("small")
}

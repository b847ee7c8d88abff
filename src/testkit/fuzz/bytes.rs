//! Scripts as bytes, eight to an operation: what is mutated byte by byte stays a script, and recorded scripts can be seeds.
//!
//! ```text
//! who  kind  page  skew  pages  other  a  b
//! ```

use crate::{
    addr::PAGE_SIZE as PAGE,
    mm::{Advice, MapFlags, MremapFlags, Prot},
    replay::{FileKind, FileSpec, Header, OURS, Op, Outcome, Script, Step},
};
use std::collections::{BTreeMap, BTreeSet};

const BASE: u64 = 1 << 40;
/// Pages that are used; some lie about the end of a table.
const ZONE: u64 = 64;
/// The first of them.
const FIRST: u64 = 512 - ZONE / 2;
const MOST: usize = 64;
const PROCESSES: u32 = 6;
const RECORD: usize = 8;

type Record = [u8; RECORD];

/// An address: mostly of a page, sometimes between.
fn at(page: u8, skew: u8) -> u64 {
    let odd = if skew > 240 { u64::from(skew) } else { 0 };
    BASE + (FIRST + u64::from(page) % ZONE) * PAGE + odd
}
fn file(n: u8) -> String {
    ["f0", "f1", "f2"][usize::from(n % 3)].to_owned()
}
/// The flags of `mmap` in a byte: what matters, and a few others.
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
/// A number of pages: mostly a few, sometimes none, or as many as there are.
fn len(pages: u8) -> u64 {
    match pages {
        255 => u64::MAX - PAGE,
        254 => 0,
        n => u64::from(n % 12) * PAGE + PAGE,
    }
}

fn op(r: Record, child: u32) -> Op {
    let [_, kind, page, skew, pages, other, a, b] = r;
    let (addr, len) = (at(page, skew), len(pages));
    let off = u64::from(other % 24) * PAGE;
    let prot = Prot::from_bits_retain((a % 8).into());
    match kind % 20 {
        0 => Op::Load { addr },
        1 | 17 => Op::Store { addr, byte: a },
        2 => Op::Mmap {
            addr,
            len,
            prot,
            flags: (0..8)
                .filter(|i| b & (1 << i) != 0)
                .map(|i| FLAGS[i])
                .collect(),
            file: (a >= 64).then(|| file(a / 64 - 1)),
            off,
        },
        3 => Op::Munmap { addr, len },
        4 => Op::Mprotect { addr, len, prot },
        5 => Op::Mremap {
            addr,
            old_len: len,
            new_len: u64::from(b % 12) * PAGE,
            flags: MremapFlags::from_bits_truncate(a.into()),
            new_addr: at(other, skew),
        },
        6 | 18 => {
            let advice = Advice::ALL[usize::from(a) % Advice::ALL.len()];
            Op::Madvise { addr, len, advice }
        }
        7 => Op::Msync { addr, len },
        8 => Op::Mlock { addr, len },
        9 => Op::Munlock { addr, len },
        10 => Op::Fork { child },
        11 => Op::Exit {},
        12 => Op::Ftruncate {
            file: file(a),
            len: off + u64::from(b),
        },
        13 => Op::PunchHole {
            file: file(a),
            off,
            len,
        },
        14 => Op::Pwrite {
            file: file(a),
            off,
            byte: b,
        },
        15 => Op::Fsync { file: file(a) },
        16 => Op::RemapFilePages {
            addr,
            len,
            pgoff: off / PAGE,
        },
        _ => match a % 4 {
            0 => Op::Reclaim {},
            1 => Op::Shrink {
                pages: u64::from(b),
            },
            2 => Op::Migrate { addr },
            _ => Op::Merge {},
        },
    }
}

/// The script that bytes are.
pub fn decode(bytes: &[u8]) -> Script {
    let spec = |pages, kind| FileSpec {
        size: pages * PAGE,
        kind,
    };
    let files = BTreeMap::from([
        ("f0".to_owned(), spec(16, FileKind::Memfd)),
        ("f1".to_owned(), spec(12, FileKind::Disk)),
        ("f2".to_owned(), spec(8, FileKind::Xip)),
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
        steps.push(Step {
            line,
            actor,
            op,
            outcome: Outcome::Ret(0),
            notified: Vec::new(),
            layouts: BTreeMap::new(),
            pages: None,
        });
    }
    Script {
        name: "fuzz".into(),
        header: Header::new("fuzz", 0, OURS, BASE..BASE + (1 << 30), files),
        steps,
    }
}

/// The bytes that are nearest to a script: its operations with their pages, as far as they lie in the zone.
pub fn encode(script: &Script) -> Vec<u8> {
    let start = script.header.arena().start;
    let page = |addr: u64| u8::try_from(addr.wrapping_sub(start) / PAGE % ZONE).expect("small");
    let few = |len: u64| u8::try_from((len.div_ceil(PAGE).max(1) - 1) % 12).expect("small");
    let off = |off: u64| u8::try_from(off / PAGE % 24).expect("small");
    let named = |name: &str| name.bytes().last().map_or(0, |digit| digit % 2);
    let one = |step: &Step| {
        let who = u8::try_from(step.actor % PROCESSES).expect("small");
        let r = |kind, addr, len, other, a, b| [who, kind, page(addr), 0, few(len), other, a, b];
        match step.op {
            Op::Load { addr } => r(0, addr, 0, 0, 0, 0),
            Op::Store { addr, byte } => r(1, addr, 0, 0, byte, 0),
            Op::Mmap {
                addr,
                len,
                prot,
                flags,
                ref file,
                off: offset,
            } => {
                let bits = (0..8_u8).filter(|&i| flags.contains(FLAGS[usize::from(i)]));
                let file = file.as_ref().map_or(0, |f| 64 * (named(f) + 1));
                let prot = u8::try_from(prot.bits() % 8).expect("three bits");
                let bits = bits.fold(0, |all, i| all | 1 << i);
                r(2, addr, len, off(offset), file + prot, bits)
            }
            Op::Munmap { addr, len } => r(3, addr, len, 0, 0, 0),
            Op::Mprotect { addr, len, prot } => {
                let prot = u8::try_from(prot.bits() % 8).expect("three bits");
                r(4, addr, len, 0, prot, 0)
            }
            Op::Mremap {
                addr,
                old_len,
                new_len,
                flags,
                new_addr,
            } => {
                let flags = u8::try_from(flags.bits() % 8).expect("three bits");
                let new = u8::try_from(new_len.div_ceil(PAGE) % 12).expect("small");
                r(5, addr, old_len, page(new_addr), flags, new)
            }
            Op::Madvise { addr, len, advice } => {
                let nth = Advice::ALL.iter().position(|a| *a == advice).unwrap_or(0);
                r(6, addr, len, 0, u8::try_from(nth).unwrap_or(0), 0)
            }
            Op::Msync { addr, len } => r(7, addr, len, 0, 0, 0),
            Op::Mlock { addr, len } => r(8, addr, len, 0, 0, 0),
            Op::Munlock { addr, len } => r(9, addr, len, 0, 0, 0),
            Op::Fork { .. } => r(10, start, 0, 0, 0, 0),
            Op::Exit {} => r(11, start, 0, 0, 0, 0),
            Op::Ftruncate { ref file, len } => r(12, start, 0, off(len), named(file), 0),
            Op::PunchHole {
                ref file,
                off: from,
                len,
            } => r(13, start, len, off(from), named(file), 0),
            Op::Pwrite {
                ref file,
                off: at,
                byte,
            } => r(14, start, 0, off(at), named(file), byte),
            Op::RemapFilePages { addr, len, pgoff } => r(16, addr, len, off(pgoff * PAGE), 0, 0),
            Op::Reclaim {} => r(19, start, 0, 0, 0, 0),
            _ => r(0, start, 0, 0, 0, 0),
        }
    };
    script.steps.iter().flat_map(one).collect()
}

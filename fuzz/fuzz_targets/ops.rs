//! Any operations by any processes: the library does not panic, its own checks included.
//!
//! An input is a list of operations, made of numbers; it is run as a script of which nothing is compared. A crash prints the
//! script as `.jsonl`, for `replay`, and for a real kernel.
#![no_main]

use arbitrary::Arbitrary;
use emmu::{
    PAGE_SIZE as PAGE,
    mm::{Advice, MapFlags, MremapFlags, Prot},
    replay::{FileKind, FileSpec, First, Header, Op, Outcome, Parts, Script, Step, replay_parts},
};
use libfuzzer_sys::fuzz_target;
use std::collections::{BTreeMap, BTreeSet};

const BASE: u64 = 1 << 40;
/// Pages that are used; some lie about the end of a table.
const ZONE: u64 = 64;
const MOST: usize = 64;
const PROCESSES: u32 = 6;

#[derive(Arbitrary, Debug)]
struct Draw {
    who: u8,
    page: u8,
    skew: u8,
    pages: u8,
    other: u8,
    what: What,
}

#[derive(Arbitrary, Debug)]
enum What {
    Mmap { prot: u8, flags: u32, file: u8 },
    Munmap,
    Mprotect { prot: u8 },
    Mremap { flags: u8, new_pages: u8 },
    RemapFilePages,
    Madvise { advice: u8 },
    Msync,
    Mlock,
    Munlock,
    Load,
    Store { byte: u8 },
    Fork,
    Exit,
    Ftruncate { odd: u8 },
    PunchHole,
    Pwrite { byte: u8 },
    Reclaim,
}

/// An address: mostly of a page, sometimes between.
fn at(page: u8, skew: u8) -> u64 {
    let odd = if skew > 240 { u64::from(skew) } else { 0 };
    // Half of the pages below the end of a table, half above.
    BASE + (512 - ZONE / 2 + u64::from(page) % ZONE) * PAGE + odd
}

impl Draw {
    fn op(&self, child: u32) -> Op {
        let addr = at(self.page, self.skew);
        let len = match self.pages {
            255 => u64::MAX - PAGE,
            254 => 0,
            n => u64::from(n % 12) * PAGE + PAGE,
        };
        let file = |n: u8| ["f0", "f1"][usize::from(n % 2)].to_owned();
        let off = u64::from(self.other % 24) * PAGE;
        match self.what {
            What::Mmap {
                prot,
                flags,
                file: of,
            } => Op::Mmap {
                addr,
                len,
                prot: Prot::from_bits_retain((prot % 8).into()),
                flags: MapFlags::from_bits_truncate(flags),
                file: (of % 3 > 0).then(|| file(of)),
                off,
            },
            What::Munmap => Op::Munmap { addr, len },
            What::Mprotect { prot } => {
                let prot = Prot::from_bits_retain((prot % 8).into());
                Op::Mprotect { addr, len, prot }
            }
            What::Mremap { flags, new_pages } => Op::Mremap {
                addr,
                old_len: len,
                new_len: u64::from(new_pages % 12) * PAGE,
                flags: MremapFlags::from_bits_truncate(flags.into()),
                new_addr: at(self.other, new_pages),
            },
            What::RemapFilePages => Op::RemapFilePages {
                addr,
                len,
                pgoff: off / PAGE,
            },
            What::Madvise { advice } => {
                let advice = Advice::ALL[usize::from(advice) % Advice::ALL.len()];
                Op::Madvise { addr, len, advice }
            }
            What::Msync => Op::Msync { addr, len },
            What::Mlock => Op::Mlock { addr, len },
            What::Munlock => Op::Munlock { addr, len },
            What::Load => Op::Load { addr },
            What::Store { byte } => Op::Store { addr, byte },
            What::Fork => Op::Fork { child },
            What::Exit => Op::Exit {},
            What::Ftruncate { odd } => Op::Ftruncate {
                file: file(self.page),
                len: off + u64::from(odd),
            },
            What::PunchHole => Op::PunchHole {
                file: file(self.page),
                off,
                len,
            },
            What::Pwrite { byte } => Op::Pwrite {
                file: file(self.page),
                off,
                byte,
            },
            What::Reclaim => Op::Reclaim {},
        }
    }
}

fn script(draws: &[Draw]) -> Script {
    let spec = |pages, kind| FileSpec {
        size: pages * PAGE,
        kind,
    };
    let files = BTreeMap::from([
        ("f0".to_owned(), spec(16, FileKind::Memfd)),
        ("f1".to_owned(), spec(12, FileKind::Disk)),
    ]);
    let mut living = BTreeSet::from([0]);
    let mut next = 1;
    let mut steps = Vec::new();
    for (line, draw) in (2..).zip(draws.iter().take(MOST)) {
        let actor = *living
            .iter()
            .nth(usize::from(draw.who) % living.len())
            .expect("below");
        let op = draw.op(next);
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
        header: Header::new("fuzz", 0, "none", BASE..BASE + (1 << 36), files),
        steps,
    }
}

fuzz_target!(|draws: Vec<Draw>| {
    let script = script(&draws);
    let done = replay_parts(&script, Parts::empty()).expect("one thread");
    if let Some(First { difference, .. }) = done.first {
        panic!("{difference:?}\n{}", script.to_jsonl());
    }
});

//! Every operation is read back as it was written, whatever its arguments.

mod numbers;
mod special;
mod userfaults;

use self::numbers::Numbers;
use super::{
    FileKind, FileSpec, Header, Hex, OURS, Op, Outcome, Resource, Script, Step, daemons, own_memory,
};
use crate::mm::{Advice, MapFlags, MremapArgs, MremapFlags, MsyncFlags, Prot};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Keys of a line that say something else than the operation.
const OF_THE_LINE: [&str; 14] = [
    "as", "ret", "err", "signal", "notify", "maps", "vmflags", "pages", "uffd_wp", "copied",
    "done", "moved", "regions", "events",
];

/// How many operations [`draw`] knows.
const KINDS: u64 = 89;

/// An operation of the kind with that number, with any arguments.
fn draw(kind: u64, n: &mut Numbers) -> Op {
    let (addr, len) = (n.any(), n.any());
    match kind {
        0 => Op::Mmap {
            addr,
            len,
            prot: Prot::from_bits_retain(n.bits()),
            flags: MapFlags::from_bits_retain(n.bits()),
            file: (n.next().is_multiple_of(2)).then(|| n.file()),
            off: n.any(),
        },
        1 => Op::Munmap { addr, len },
        2 => Op::Mprotect {
            addr,
            len,
            prot: Prot::from_bits_retain(n.bits()),
        },
        3 => Op::Mremap(MremapArgs {
            addr,
            old_len: len,
            new_len: n.any(),
            flags: MremapFlags::from_bits_retain(n.bits()),
            new_addr: n.any(),
        }),
        4 => Op::RemapFilePages {
            addr,
            len,
            pgoff: n.any(),
        },
        5 => {
            let nth = n.next() % Advice::ALL.len() as u64;
            let advice = Advice::ALL[usize::try_from(nth).expect("small")];
            Op::Madvise { addr, len, advice }
        }
        6 => Op::Msync {
            addr,
            len,
            flags: MsyncFlags::from_bits_retain(n.bits()),
        },
        7 => Op::Mlock { addr, len },
        8 => Op::Munlock { addr, len },
        9 => Op::Load { addr },
        10 => Op::Store {
            addr,
            byte: n.bits().to_le_bytes()[0],
        },
        _ => draw_more(kind, n),
    }
}

/// An operation that is not on a range of addresses.
fn draw_more(kind: u64, n: &mut Numbers) -> Op {
    let (addr, len) = (n.any(), n.any());
    match kind {
        11 => Op::Fork { child: n.bits() },
        12 => Op::Exit {},
        13 => Op::Ftruncate {
            file: n.file(),
            len,
        },
        14 => Op::PunchHole {
            file: n.file(),
            off: n.any(),
            len,
        },
        15 => Op::Pwrite {
            file: n.file(),
            off: n.any(),
            byte: n.bits().to_le_bytes()[0],
        },
        16 => Op::Fsync { file: n.file() },
        17 => Op::Reclaim {},
        18 => Op::Shrink { pages: n.any() },
        19 => Op::Migrate { addr },
        20 => Op::Merge {},
        _ => draw_of_kinds(kind, n),
    }
}

/// An operation that only scripts of single kinds have.
fn draw_of_kinds(kind: u64, n: &mut Numbers) -> Op {
    let (addr, len, flags) = (n.any(), n.any(), n.bits());
    match kind {
        21 => Op::Brk { addr },
        22 => Op::Mlock2 { addr, len, flags },
        23 => Op::Mlockall { flags },
        24 => Op::Munlockall {},
        25 => Op::Mincore { addr, len: 4096 },
        26 => Op::Mseal { addr, len },
        27 => Op::Rlimit {
            which: [Resource::As, Resource::Memlock][usize::from(flags.is_multiple_of(2))],
            bytes: (len % 2 == 0).then_some(len),
            over: addr.is_multiple_of(2),
        },
        28 => Op::DropIpcLock {},
        29 => Op::Pread {
            file: n.file(),
            off: len,
        },
        30 => Op::SyncFileRange {
            file: n.file(),
            off: addr,
            len,
            flags,
        },
        31 => Op::Ksm {
            mode: 1 + u8::from(flags.is_multiple_of(2)),
        },
        32 => Op::Prctl {
            option: 67,
            a2: addr,
            a3: len,
        },
        33 => Op::Thread { thread: flags },
        34 => Op::MigrateMany {
            moves: vec![(0, Hex(addr)), (0, Hex(len))],
        },
        35..42 => draw_between(kind, n),
        42..63 => special::draw(kind, n),
        63..68 => daemons::draw(kind - 63, n.any()),
        83.. => own_memory::draw(kind - 83, (addr, len)),
        _ => userfaults::draw(kind - 68, n),
    }
}

/// One that holds pages, or takes them by force.
fn draw_held(kind: u64, (addr, len): (u64, u64), target: u32, which: u64) -> Op {
    match (kind, which) {
        (38, 0) => Op::Pin { addr, len },
        (38, _) => Op::Unpin {},
        (39, 0) => Op::Vmsplice {
            addr,
            len: len % (1 << 16),
        },
        (39, _) => Op::Drain {},
        (40, 0) => Op::MemRead { addr, target },
        (40, _) => Op::MemWrite {
            addr,
            target,
            byte: 7,
        },
        _ => Op::ExitAndReap { target },
    }
}

/// One between a process and something else.
fn draw_between(kind: u64, n: &mut Numbers) -> Op {
    let (addr, len, other) = (n.any(), n.any(), n.any());
    let (target, advice) = (0, Advice::Cold);
    match (kind, other % 2) {
        (38.., _) => draw_held(kind, (addr, len), target, other % 2),
        (35, 0) => Op::PvmRead {
            addr,
            len,
            target,
            remote: other,
        },
        (35, _) => Op::PvmWrite {
            addr,
            len,
            target,
            remote: other,
        },
        (36, 0) => Op::ReadInto {
            file: n.file(),
            off: other,
            addr,
            len,
        },
        (36, _) => Op::WriteFrom {
            file: n.file(),
            off: other,
            addr,
            len,
        },
        (_, 0) => Op::ProcessMadvise {
            target,
            iov: vec![(Hex(addr), len)],
            advice,
            flags: n.bits(),
        },
        _ => Op::SelfProcessMadvise {
            iov: vec![(Hex(addr), len)],
            advice,
        },
    }
}

/// A script of one operation that came to `outcome`.
fn script(op: Op, outcome: Outcome) -> Script {
    let kind = FileKind::Memfd;
    let spec = FileSpec { size: 4096, kind };
    let files = ["f0", "a \"b\"\n"].map(|name| (name.to_owned(), spec));
    let step = Step {
        line: 2,
        actor: 0,
        op,
        outcome,
        notified: Vec::new(),
        layouts: BTreeMap::new(),
        vm_flags: BTreeMap::new(),
        more: Box::default(),
        pages: None,
    };
    Script {
        name: "t".into(),
        header: Header::new("t", 0, OURS, 1 << 40..1 << 41, files.into()),
        steps: vec![step],
    }
}

fn outcomes(n: &mut Numbers) -> [Outcome; 4] {
    use crate::error::Signal;
    [
        Outcome::Ret(n.any()),
        Outcome::Err("ENOMEM".into()),
        Outcome::Signal(Signal::Segv),
        Outcome::Signal(Signal::Bus),
    ]
}

#[test]
fn every_operation_is_read_back_as_it_was_written() {
    let mut n = Numbers(1);
    for _ in 0..32 {
        for kind in 0..KINDS {
            let op = draw(kind, &mut n);
            for outcome in outcomes(&mut n) {
                let script = script(op.clone(), outcome);
                let text = script.to_jsonl();
                let again = Script::parse("t", text.as_bytes());
                let again = again.unwrap_or_else(|e| panic!("{e}\n{text}"));
                assert_eq!(
                    format!("{:?}", again.steps),
                    format!("{:?}", script.steps),
                    "{text}"
                );
                assert_eq!(again.to_jsonl(), text);
            }
        }
    }
}

/// Serde's list of the variants, so that the test fails for an operation without a draw.
#[test]
fn every_operation_there_is_was_drawn() {
    let why = serde_json::from_str::<Op>(r#"{"op":"?"}"#).expect_err("no operation");
    let why = why.to_string();
    let names = why.split('`').skip(3).step_by(2).map(str::to_owned);
    let there: BTreeSet<String> = names.collect();
    assert!(there.len() > 20, "{why}");
    let mut n = Numbers(1);
    let drawn = (0..99).flat_map(|_| (0..KINDS).map(|k| draw(k, &mut n)).collect::<Vec<_>>());
    let drawn: BTreeSet<String> = drawn
        .map(|op| keys(&op)["op"].as_str().unwrap().into())
        .collect();
    assert_eq!(drawn, there);
}

fn keys(op: &Op) -> Map<String, Value> {
    let value = serde_json::to_value(op).expect("an object");
    value.as_object().expect("an object").clone()
}

#[test]
fn no_argument_has_the_key_of_something_else_in_the_line() {
    let mut n = Numbers(1);
    for kind in (0..KINDS).chain([KINDS - 1; 9]) {
        let keys = keys(&draw(kind, &mut n));
        let taken = keys.keys().find(|key| OF_THE_LINE.contains(&&***key));
        assert_eq!(taken, None, "{keys:?}");
    }
}

//! The bodies of the fuzz targets hold for inputs that are the same every time.
//!
//! `EMMU_FUZZ_INPUTS` is how many inputs each target gets, instead of a few hundred or thousand; `EMMU_FUZZ_SEED` draws others:
//!
//! ```text
//! EMMU_FUZZ_INPUTS=1000000 cargo test --release --features testkit --test fuzz ops -- --nocapture
//! ```

use emmu::{
    replay::{Parts, Report, read, replay_parts, shipped},
    testkit::{
        Suite,
        fuzz::{self, encode},
    },
};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use std::{
    env, fs,
    io::{Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

fn setting(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Numbers in an order that depends on the seed alone (`splitmix64`).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
    /// Below `n`, which is not 0.
    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("below a usize")
    }
    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Gives a target `usual` inputs, or as many as are asked for; says which failed.
#[track_caller]
fn hold(
    target: &str,
    usual: u64,
    mut draw: impl FnMut(&mut Numbers) -> Vec<u8>,
    body: impl Fn(&[u8]),
) {
    let seed = setting("EMMU_FUZZ_SEED").unwrap_or(1);
    let inputs = setting("EMMU_FUZZ_INPUTS").unwrap_or(usual);
    let mut failed = 0;
    for nth in 0..inputs {
        // Each input by itself, so that one alone can be drawn again.
        let mut numbers = Numbers(seed.wrapping_mul(0x0100_0000_01b3).wrapping_add(nth));
        let bytes = draw(&mut numbers);
        if catch_unwind(AssertUnwindSafe(|| body(&bytes))).is_err() {
            failed += 1;
            let name = format!("emmu-fuzz-{target}-{seed}-{nth}");
            let kept = env::temp_dir().join(name);
            fs::write(&kept, &bytes).expect("a temporary file");
            println!("input {nth} of seed {seed}: {}", kept.display());
        }
        if failed == 40 {
            break;
        }
    }
    assert_eq!(failed, 0, "inputs of {target} fail");
    println!("{target}: {inputs} inputs of seed {seed} hold");
}

/// Words that mean something somewhere.
const WORDS: &[&str] = &[
    "0",
    "-1",
    "18446744073709551615",
    "0xffffffffffffffff",
    "9223372036854775808",
    "NULL",
    "\"",
    "<",
    ">",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    ",",
    " ",
    "\n",
    "...",
    "/*",
    "*/",
    "\\",
    "é",
    "\0",
    "a0..4294967295",
    "null",
    "<unfinished ...>",
    "-1 EINVAL (x)",
    "?",
];

/// A few bytes change, go, come, or stand elsewhere.
fn mutate(bytes: &mut Vec<u8>, n: &mut Numbers) {
    for _ in 0..n.below(6) {
        if bytes.is_empty() {
            return;
        }
        let at = n.below(bytes.len());
        let end = (at + n.below(20)).min(bytes.len());
        match n.below(5) {
            0 => bytes[at] = n.byte(),
            1 => bytes[at] ^= 1 << n.below(8),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let word = n.one(WORDS).bytes();
                drop(bytes.splice(at..end, word));
            }
            _ => {
                let piece = bytes[at..end].to_vec();
                let to = n.below(bytes.len());
                drop(bytes.splice(to..to, piece));
            }
        }
    }
}

/// A line of which one number is another, so that it can still be read.
fn renumbered(line: &[u8], n: &mut Numbers) -> Vec<u8> {
    const NUMBERS: &[&str] = &[
        "0",
        "1",
        "7",
        "4096",
        "4097",
        "8192",
        "2097152",
        "0x7f0000000000",
        "0x7effffffe000",
        "0x400000",
        "0x7ff000001000",
        "0x7fffffffe000",
        "0x7ffffffff000",
        "0xfffffffffffff000",
        "18446744073709551615",
        "9223372036854775807",
        "9223372036854775808",
        "70368744177664",
        "0x10000000",
    ];
    let is_start = |at: usize| {
        let before = at.checked_sub(1).map(|at| line[at]);
        line[at].is_ascii_digit() && before.is_none_or(|b| !b.is_ascii_alphanumeric() && b != b'_')
    };
    let starts: Vec<usize> = (0..line.len()).filter(|&at| is_start(at)).collect();
    if starts.is_empty() {
        return line.to_vec();
    }
    let at = *n.one(&starts);
    let len = line[at..]
        .iter()
        .take_while(|b| b.is_ascii_alphanumeric())
        .count();
    [&line[..at], n.one(NUMBERS).as_bytes(), &line[at + len..]].concat()
}

/// A few lines in a row, mutated.
fn piece(lines: &[Vec<u8>], most: usize, n: &mut Numbers) -> Vec<u8> {
    let from = n.below(lines.len());
    let end = (from + 1 + n.below(most)).min(lines.len());
    let mut bytes = lines[from..end].join(&b'\n');
    mutate(&mut bytes, n);
    bytes
}

fn lines(file: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/programs");
    let packed = fs::read(folder.join(file)).expect("a file of the recording");
    let mut text = Vec::new();
    GzDecoder::new(&*packed)
        .read_to_end(&mut text)
        .expect("gzip");
    text.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect()
}

#[track_caller]
fn text(target: &str, file: &str, body: fn(&str)) {
    let lines = lines(&format!("redis/{file}"));
    hold(
        target,
        4000,
        |n| piece(&lines, 12, n),
        |bytes| body(&String::from_utf8_lossy(bytes)),
    );
}

#[test]
fn strace() {
    text("strace", "calls.strace.gz", fuzz::strace);
}

/// Lines of several recordings, as if one thread had called all of that behind an `execve`; sometimes mutated.
#[test]
fn program() {
    let names = ["bad_arguments", "huge_pool", "segments", "redis"];
    // Whole calls alone: half a call is half of nothing here.
    let is_whole = |line: &Vec<u8>| {
        let text = String::from_utf8_lossy(line);
        !text.contains("<unfinished") && !text.contains("<... ")
    };
    let whole = |file: &str| lines(file).into_iter().filter(is_whole).collect::<Vec<_>>();
    let calls = names.map(|name| whole(&format!("{name}/calls.strace.gz")));
    let draw = |n: &mut Numbers| {
        let mut text = b"7 1.000000000 execve(\"/bin/it\", [\"it\"], 0x0) = 0\n".to_vec();
        for nth in 1..=1 + n.below(24) {
            let lines = n.one(&calls);
            let mut line = n.one(lines).clone();
            // The thread and the time are replaced.
            let call = line.iter().position(u8::is_ascii_alphabetic).unwrap_or(0);
            let thread = 7 + n.below(3);
            let head = format!("{thread} 1.{:09} ", nth * 1000);
            drop(line.splice(..call, head.bytes()));
            if n.below(3) == 0 {
                let rest = line.split_off(head.len());
                line.extend(renumbered(&rest, n));
            }
            text.extend(line);
            text.push(b'\n');
        }
        text
    };
    let faults = "7 7 1.000001500 write 0x7ff000001000\n7 7 1.000009500 read 0x400000\n";
    hold("program", 1500, draw, |bytes| {
        fuzz::program(&String::from_utf8_lossy(bytes), faults);
    });
}

#[test]
fn faults() {
    text("faults", "faults.txt.gz", fuzz::faults);
}

#[test]
fn maps() {
    text("maps", "9864.final.maps.gz", fuzz::maps);
}

#[test]
fn script() {
    let scripts: Vec<Vec<Vec<u8>>> = shipped()
        .expect("the archive is whole")
        .iter()
        .map(|script| {
            let text = script.to_jsonl();
            text.lines().map(|line| line.as_bytes().to_vec()).collect()
        })
        .collect();
    let draw = |n: &mut Numbers| {
        let lines = n.one(&scripts);
        let end = 1 + n.below(lines.len().min(12));
        let mut bytes = lines[..end].join(&b'\n');
        mutate(&mut bytes, n);
        if n.below(8) > 0 {
            return bytes;
        }
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&bytes).expect("a Vec takes everything");
        let mut packed = packed.finish().expect("a Vec takes everything");
        if n.below(2) == 0 {
            mutate(&mut packed, n);
        }
        packed
    };
    hold("script", 4000, draw, fuzz::script);
}

/// Operations that were recorded, with bytes changed, and operations of which every byte is drawn: any, or of few values so
/// that they meet.
#[test]
fn ops() {
    let recorded: Vec<Vec<u8>> = shipped()
        .expect("the archive is whole")
        .iter()
        .step_by(4)
        .map(encode)
        .collect();
    let draw = |n: &mut Numbers| {
        let operations = 1 + n.below(64);
        match n.below(3) {
            0 => (0..operations * 8).map(|_| n.byte()).collect(),
            1 => {
                let few = 1 + n.below(15);
                let one = |n: &mut Numbers, nth: usize| match nth % 8 {
                    // The kind and the flags keep their range.
                    1 | 6 | 7 => n.byte(),
                    _ => u8::try_from(n.below(few)).expect("small"),
                };
                (0..operations * 8).map(|nth| one(n, nth)).collect()
            }
            _ => {
                let script = n.one(&recorded);
                let from = n.below(script.len()) / 8 * 8;
                let end = (from + operations * 8).min(script.len());
                let mut bytes = script[from..end].to_vec();
                for _ in 0..n.below(8) {
                    let at = n.below(bytes.len());
                    bytes[at] = n.byte();
                }
                bytes
            }
        }
    };
    hold("ops", 1000, draw, fuzz::ops);
}

/// Operations that the model of pages once took for something else, each with what it did not know.
const KINDS: &[(&str, &[&str])] = &[
    (
        "a mapping is shared or private, or is refused",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":8192,"prot":"rw-","flags":["fixed"],"file":null,"off":0,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","signal":"SIGSEGV"}"#,
        ],
    ),
    (
        "the last page of a disk file that is cut inside of it is read in",
        &[r#"{"as":0,"op":"ftruncate","file":"f1","len":33009,"ret":0}"#],
    ),
    (
        "populating a private page of a file for writing copies it",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":8192,"prot":"rw-","flags":["private","fixed"],"file":"f0","off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":8192,"advice":"populate_write","ret":0}"#,
            r#"{"as":0,"op":"pwrite","file":"f0","off":0,"byte":9,"ret":1}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":1}"#,
        ],
    ),
    (
        "mlock that ends at a hole has locked what lies before, which advice does not discard",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"mlock","addr":"0x100001e5000","len":8192,"err":"ENOMEM"}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":4096,"advice":"dontneed","err":"EINVAL"}"#,
        ],
    ),
    (
        "MADV_REMOVE that ends at a VMA has punched the one before",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["shared","fixed"],"file":"f0","off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e6000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e6000"}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":8192,"advice":"remove","err":"EINVAL"}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":0}"#,
        ],
    ),
    (
        "MADV_REMOVE goes past what is not mapped, and is ENOMEM in the end",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["shared","fixed"],"file":"f0","off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e4000","len":8192,"advice":"remove","err":"ENOMEM"}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":0}"#,
        ],
    ),
    (
        "discarding what is mapped about a hole is done, and ENOMEM",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":8192,"advice":"dontneed_locked","err":"ENOMEM"}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":0}"#,
        ],
    ),
    (
        "memory that may be dropped is wiped by a fork, keeps so, and is no file's, stack's or locked",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["droppable","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":4096,"advice":"keeponfork","err":"EINVAL"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e6000","len":4096,"prot":"rw-","flags":["droppable","fixed"],"file":"f0","off":0,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e6000","len":4096,"prot":"rw-","flags":["droppable","fixed","growsdown"],"file":null,"off":0,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e6000","len":4096,"prot":"rw-","flags":["droppable","fixed","locked"],"file":null,"off":0,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e6000","len":4096,"prot":"rw-","flags":["droppable","private","fixed"],"file":null,"off":0,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"fork","child":1,"ret":1}"#,
            r#"{"as":1,"op":"load","addr":"0x100001e5000","ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":7}"#,
        ],
    ),
    (
        "memory that may be dropped is, written or not, when memory is looked for",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["droppable","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"reclaim","ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":0}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5001","byte":8,"ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5001","ret":8}"#,
        ],
    ),
    (
        "there are no huge pages of a pool, and what was mapped in their place is gone",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x10000200000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x10000200000"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001ff000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001ff000"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x10000200000","len":4096,"prot":"rw-","flags":["private","fixed","fixed_noreplace","hugetlb"],"file":null,"off":0,"err":"EEXIST"}"#,
            r#"{"as":0,"op":"load","addr":"0x10000200000","ret":0}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001ff000","len":4096,"prot":"rw-","flags":["private","fixed","hugetlb"],"file":null,"off":0,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"load","addr":"0x100001ff000","ret":0}"#,
            r#"{"as":0,"op":"mmap","addr":"0x10000200000","len":4096,"prot":"rw-","flags":["private","fixed","hugetlb","growsdown"],"file":null,"off":0,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"load","addr":"0x10000200000","ret":0}"#,
            r#"{"as":0,"op":"mmap","addr":"0x10000200000","len":4096,"prot":"rw-","flags":["private","fixed","hugetlb"],"file":"f0","off":0,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"load","addr":"0x10000200000","ret":0}"#,
            r#"{"as":0,"op":"mmap","addr":"0x10000200000","len":4096,"prot":"rw-","flags":["private","fixed","hugetlb"],"file":null,"off":0,"err":"ENOMEM"}"#,
            r#"{"as":0,"op":"load","addr":"0x10000200000","signal":"SIGSEGV"}"#,
            r#"{"as":0,"op":"load","addr":"0x100001ff000","ret":0}"#,
            r#"{"as":0,"op":"mmap","addr":"0x10000200000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x10000200000"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x10000200000","len":4096,"prot":"rw-","flags":["private","fixed","hugetlb"],"file":null,"off":4096,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"load","addr":"0x10000200000","signal":"SIGSEGV"}"#,
        ],
    ),
    (
        "MAP_32BIT is nothing where a place is named, and the second GiB else",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["private","fixed","32bit"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":7}"#,
            r#"{"as":0,"op":"mmap","addr":"0x0","len":4096,"prot":"rw-","flags":["private","32bit"],"file":null,"off":0,"ret":"0x40000000"}"#,
        ],
    ),
    (
        "every flag is looked at of a file alone, and a place not to be replaced is none of them",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["shared_validate","fixed"],"file":null,"off":0,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["shared_validate","fixed"],"file":"f0","off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e6000","len":4096,"prot":"rw-","flags":["shared_validate","fixed_noreplace"],"file":"f0","off":0,"err":"EOPNOTSUPP"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":9,"ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":9}"#,
        ],
    ),
    (
        "nothing is locked that a lock of no page, an unknown flag or a hole is about",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"mlock2","addr":"0x100001e5000","len":4096,"flags":2,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"mlock2","addr":"0x100001e5000","len":0,"flags":1,"ret":0}"#,
            r#"{"as":0,"op":"mlock2","addr":"0x100001e4000","len":8192,"flags":0,"err":"ENOMEM"}"#,
            r#"{"as":0,"op":"mlockall","flags":0,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"mlockall","flags":4,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"mlockall","flags":8,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"munlock","addr":"0x100001e5000","len":8192,"err":"ENOMEM"}"#,
            r#"{"as":0,"op":"munlock","addr":"0x100001e5000","len":1,"ret":0}"#,
            r#"{"as":0,"op":"munlockall","ret":0}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":4096,"advice":"dontneed","ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":0}"#,
        ],
    ),
    (
        "what is sealed keeps its place and rights, and its data where no store could change them",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":8192,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"mseal","addr":"0x100001e5000","len":12288,"err":"ENOMEM"}"#,
            r#"{"as":0,"op":"mseal","addr":"0x100001e5800","len":4096,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"mseal","addr":"0x100001e6000","len":0,"ret":0}"#,
            r#"{"as":0,"op":"mprotect","addr":"0x100001e5000","len":4096,"prot":"r--","ret":0}"#,
            r#"{"as":0,"op":"mseal","addr":"0x100001e5000","len":4096,"ret":0}"#,
            r#"{"as":0,"op":"munmap","addr":"0x100001e5000","len":8192,"err":"EPERM"}"#,
            r#"{"as":0,"op":"mprotect","addr":"0x100001e5000","len":8192,"prot":"rw-","err":"EPERM"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"err":"EPERM"}"#,
            r#"{"as":0,"op":"mremap","addr":"0x100001e5000","old_len":4096,"new_len":4096,"flags":["maymove","fixed"],"new_addr":"0x100001f0000","err":"EPERM"}"#,
            r#"{"as":0,"op":"mremap","addr":"0x100001e5000","old_len":4096,"new_len":4096,"flags":[],"new_addr":"0x0","err":"EPERM"}"#,
            r#"{"as":0,"op":"mremap","addr":"0x100001e6000","old_len":4096,"new_len":4096,"flags":["maymove","fixed"],"new_addr":"0x100001e5000","err":"EPERM"}"#,
        ],
    ),
    (
        "sealed memory keeps from advice only what no store could change, and a child's is sealed too",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":8192,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e6000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"mprotect","addr":"0x100001e5000","len":4096,"prot":"r--","ret":0}"#,
            r#"{"as":0,"op":"mseal","addr":"0x100001e5000","len":8192,"ret":0}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":8192,"advice":"dontneed","err":"EPERM"}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":4096,"advice":"guard_install","err":"EPERM"}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":7}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e6000","len":4096,"advice":"dontneed","ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e6000","ret":0}"#,
            r#"{"as":0,"op":"fork","child":1,"ret":1}"#,
            r#"{"as":1,"op":"munmap","addr":"0x100001e6000","len":4096,"err":"EPERM"}"#,
            r#"{"as":1,"op":"load","addr":"0x100001e5000","ret":7}"#,
        ],
    ),
    (
        "a seal before which some has moved is EPERM",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":8192,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"mseal","addr":"0x100001e6000","len":4096,"ret":0}"#,
            r#"{"as":0,"op":"mprotect","addr":"0x100001e5000","len":8192,"prot":"r--","err":"EPERM"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":1,"signal":"SIGSEGV"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e6000","byte":1,"ret":0}"#,
            r#"{"as":0,"op":"mremap","addr":"0x100001e5000","old_len":8192,"new_len":4096,"flags":[],"new_addr":"0x0","err":"EPERM"}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e6000","ret":1}"#,
        ],
    ),
    (
        "which pages share a frame is nothing to their bytes",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":8192,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e6000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":8192,"advice":"mergeable","ret":0}"#,
            r#"{"as":0,"op":"ksm","mode":1,"ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":7}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e6000","byte":8,"ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":7}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e6000","ret":8}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":12288,"advice":"unmergeable","err":"ENOMEM"}"#,
            r#"{"as":0,"op":"ksm","mode":2,"ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":7}"#,
        ],
    ),
    (
        "a file is read into memory up to its end, or to what may not be written",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e6000","len":4096,"prot":"r--","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e6000"}"#,
            r#"{"as":0,"op":"pwrite","file":"f0","off":65535,"byte":9,"ret":1}"#,
            r#"{"as":0,"op":"read_into","file":"f0","off":65535,"addr":"0x100001e5003","len":8192,"ret":1}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5003","ret":9}"#,
            r#"{"as":0,"op":"read_into","file":"f0","off":0,"addr":"0x100001e5000","len":8192,"ret":4096}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":1}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5003","ret":0}"#,
            r#"{"as":0,"op":"read_into","file":"f0","off":0,"addr":"0x100001e6000","len":4096,"err":"EFAULT"}"#,
            r#"{"as":0,"op":"read_into","file":"f0","off":65536,"addr":"0x100001e6000","len":4096,"ret":0}"#,
            r#"{"as":0,"op":"read_into","file":"f0","off":65536,"addr":"0x100001e6000","len":18446744073709547520,"err":"EFAULT"}"#,
            r#"{"as":0,"op":"read_into","file":"f0","off":0,"addr":"0x100001e5000","len":0,"ret":0}"#,
        ],
    ),
    (
        "a copy between processes stops at what either may not touch, and a reader needs the right to read",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e6000","len":4096,"prot":"-w-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e6000"}"#,
            r#"{"as":0,"op":"fork","child":1,"ret":1}"#,
            r#"{"as":1,"op":"store","addr":"0x100001e5000","byte":8,"ret":0}"#,
            r#"{"as":1,"op":"pvm_read","addr":"0x100001e5000","len":8192,"target":0,"remote":"0x100001e5000","ret":4096}"#,
            r#"{"as":1,"op":"load","addr":"0x100001e5000","ret":7}"#,
            r#"{"as":1,"op":"pvm_read","addr":"0x100001e5000","len":4096,"target":0,"remote":"0x100001e6000","err":"EFAULT"}"#,
            r#"{"as":1,"op":"store","addr":"0x100001e6000","byte":5,"ret":0}"#,
            r#"{"as":1,"op":"pvm_write","addr":"0x100001e6000","len":4096,"target":0,"remote":"0x100001e5000","ret":4096}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":5}"#,
            r#"{"as":1,"op":"pvm_write","addr":"0x100001e7000","len":4096,"target":0,"remote":"0x100001e5000","err":"EFAULT"}"#,
            r#"{"as":1,"op":"pvm_read","addr":"0x100001e5000","len":0,"target":0,"remote":"0x100001e7000","ret":0}"#,
            r#"{"as":1,"op":"pvm_read","addr":"0x100001e5000","len":9223372036854775808,"target":0,"remote":"0x100001e5000","err":"EINVAL"}"#,
            r#"{"as":1,"op":"pvm_read","addr":"0x100001e5000","len":9223372036854775807,"target":0,"remote":"0x100001e5000","ret":4096}"#,
        ],
    ),
    (
        "the other side's pages are copies of their file's from when a write came for them, made or not",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":"f0","off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"fork","child":1,"ret":1}"#,
            r#"{"as":1,"op":"pvm_write","addr":"0x100001e9000","len":4096,"target":0,"remote":"0x100001e5000","err":"EFAULT"}"#,
            r#"{"as":0,"op":"pwrite","file":"f0","off":0,"byte":9,"ret":1}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":1}"#,
            r#"{"as":1,"op":"load","addr":"0x100001e5000","ret":9}"#,
        ],
    ),
];

#[test]
fn the_model_of_pages_knows_what_comes_of_each_kind() {
    const HEADER: &str = r#"{"profile":"fuzz","seed":0,"kernel":"emmu","page":4096,"arena":["0x10000000000","0x10040000000"],"files":{"f0":{"size":65536,"kind":"memfd"},"f1":{"size":49152,"kind":"disk"}}}"#;
    for (rule, steps) in KINDS {
        let text = [&[HEADER], *steps].concat().join("\n");
        let script = read("kind", text.as_bytes()).expect(rule);
        if let Err(failure) = Suite::new([]).again(&script) {
            panic!("{rule}:\n{failure}");
        }
        let replayed = replay_parts(&script, Parts::OUTCOMES).expect("no machine is in use");
        let report = Report::of(&replayed).map(|report| report.to_string());
        assert_eq!(report, None, "{rule}");
    }
}

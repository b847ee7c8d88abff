//! The bodies of the fuzz targets hold for inputs that are the same every time.
//!
//! `EMMU_FUZZ_INPUTS` is how many inputs each target gets, instead of a few hundred or thousand;
//! `EMMU_FUZZ_SEED` draws others:
//!
//! ```text
//! EMMU_FUZZ_INPUTS=1000000 cargo test --release --features testkit --test fuzz ops -- --nocapture
//! ```

use emmu::{
    replay::shipped,
    testkit::fuzz::{self, encode},
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

/// Lines of several recordings, as if one thread had called all of that behind an `execve`;
/// sometimes mutated.
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

/// Operations that were recorded, with bytes changed, and operations of which every byte is drawn:
/// any, or of few values so that they meet.
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

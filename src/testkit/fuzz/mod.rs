//! The bodies of the fuzz targets: invariants that hold for any bytes.
//!
//! `fuzz/` gives the bytes of libFuzzer, which looks for new paths; `tests/kit/fuzz.rs` gives fixed
//! bytes.
//!
//! | file | holds |
//! | --- | --- |
//! | `bytes` | the encoding of scripts as bytes |
//! | `device` | … of operations of a device with memory of its own |
//! | `shared` | … of operations on segments and sealed files |
//! | `userfaults` | … of operations on userfaultfds |

mod bytes;
mod device;
mod shared;
mod userfaults;

pub use bytes::{decode, encode};

use super::Suite;
use crate::replay::{
    ReplayError, ReplayLimits, Script,
    program::{
        Nobody, Program, machine_within, parse_faults, parse_maps, parse_strace, run_within,
    },
    read,
};

/// Checks any operations by any processes.
///
/// The library does not panic, its own checks included; every step agrees with the kit's model of
/// pages as long as the model is not lost; and a written script reads back as equal.
///
/// # Panics
///
/// Panics if not; the message has the script as `.jsonl`, for `replay` and for a real kernel.
pub fn ops(bytes: &[u8]) {
    let script = decode(bytes);
    if let Err(failure) = Suite::new([]).again(&script) {
        panic!("{failure}\n{}", failure.script.to_jsonl());
    }
    if !script.steps.is_empty() {
        written(&script);
    }
}

/// Checks that reading a script ends in a script or in the line that is wrong, and that a written
/// script reads back as equal.
///
/// # Panics
///
/// Panics if not.
pub fn script(bytes: &[u8]) {
    match read("fuzz", bytes) {
        Ok(script) => written(&script),
        Err(e) => assert!(e.line >= 1 && !e.why.is_empty(), "{e}"),
    }
}

fn written(script: &Script) {
    let text = script.to_jsonl();
    let again = Script::parse("fuzz", text.as_bytes());
    let again = again.unwrap_or_else(|e| panic!("what is written is read: {e}\n{text}"));
    assert_eq!(again.header, script.header);
    assert_eq!(again.to_jsonl(), text);
}

/// Checks that any text as `calls.strace` leads to calls, or to the line that is wrong.
///
/// # Panics
///
/// Panics if not.
pub fn strace(text: &str) {
    ends(text, parse_strace(text).err());
}

/// Checks that any text, read as the calls and faults of a program as far as possible, ends in an
/// outcome or in an error that names the line, and in no panic.
///
/// # Panics
///
/// Panics if not.
pub fn program(calls: &str, faults: &str) {
    const LAYOUT: &str = "\
400000-401000 r-xp 00000000 fe:00 1 /bin/it
7f0000000000-7f0000001000 r--p 00000000 00:00 0
7ff000000000-7ff000021000 rw-p 00000000 00:00 0 [stack]
";
    let limits = ReplayLimits {
        pages: 1 << 12,
        tables: 1 << 8,
        step: 1 << 12,
        processes: 16,
        ..ReplayLimits::default()
    };
    let first = calls.split_whitespace().next().unwrap_or("1");
    let files = [
        ("calls.strace".to_owned(), calls),
        ("faults.txt".to_owned(), faults),
        (format!("{first}.initial.maps"), LAYOUT),
        (format!("{first}.final.maps"), LAYOUT),
    ];
    let files = files.map(|(name, text)| (name, text.as_bytes().to_vec()));
    let Ok(program) = Program::from_files("fuzz", files.into()) else {
        return;
    };
    let machine = machine_within(&limits);
    match run_within(&machine, &program, &mut Nobody, &limits) {
        Err(ReplayError::Input(e)) => {
            assert!(e.line >= 1 && !e.why.starts_with("panic"), "{e}\n{calls}");
        }
        Err(e) => panic!("{e}"),
        Ok(_) => {}
    }
    let mem = machine.mem();
    let left = (machine.commit().pages(), mem.tables_in_use());
    assert_eq!(left, (0, 0), "something is left of it\n{calls}");
}

/// Checks that any text as `faults.txt` leads to faults, or to the line that is wrong.
///
/// # Panics
///
/// Panics if not.
pub fn faults(text: &str) {
    ends(text, parse_faults(text).err());
}

/// Checks that any text as `PID.maps` leads to rows, or to the line that is wrong.
///
/// # Panics
///
/// Panics if not.
pub fn maps(text: &str) {
    ends(text, parse_maps(text).err());
}

fn ends(text: &str, error: Option<(usize, String)>) {
    if let Some((line, why)) = error {
        let lines = text.lines().count().max(1);
        assert!((1..=lines).contains(&line), "line {line} of {lines}: {why}");
        assert!(!why.is_empty(), "line {line}: nothing is said");
    }
}

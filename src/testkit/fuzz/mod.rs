//! What must hold for any bytes: the bodies of the fuzz targets, for whoever has bytes to give.
//!
//! `fuzz/` gives them to libFuzzer, which looks for what was not seen yet; `tests/fuzz.rs` gives them bytes that are the same
//! every time.

mod bytes;

pub use bytes::{decode, encode};

use super::Suite;
use crate::replay::{
    Script,
    program::{parse_faults, parse_maps, parse_strace},
    read,
};

/// Any operations by any processes: the library does not panic, its own checks included, every step comes to what the
/// kit's model of pages says, as long as that has something to say, and the script is read back as it is written.
///
/// # Panics
///
/// If not; the message has the script as `.jsonl`, for `replay`, and for a real kernel.
pub fn ops(bytes: &[u8]) {
    let script = decode(bytes);
    if let Err(failure) = Suite::new([]).again(&script) {
        panic!("{failure}\n{}", failure.script.to_jsonl());
    }
    if !script.steps.is_empty() {
        written(&script);
    }
}

/// Reading a script ends in a script or in the line that is wrong; a script that is written is read back as the same.
///
/// # Panics
///
/// If not.
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

/// Any text as `calls.strace`: calls, or the line that is wrong.
///
/// # Panics
///
/// If not.
pub fn strace(text: &str) {
    ends(text, parse_strace(text).err());
}

/// Any text as `faults.txt`: faults, or the line that is wrong.
///
/// # Panics
///
/// If not.
pub fn faults(text: &str) {
    ends(text, parse_faults(text).err());
}

/// Any text as `PID.maps`: rows, or the line that is wrong.
///
/// # Panics
///
/// If not.
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

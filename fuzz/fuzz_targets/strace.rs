//! Whatever the bytes, `parse_strace` ends in what they say or in the line that is wrong.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let parsed = emmu::replay::program::parse_strace(text);
    if let Err((line, why)) = parsed {
        assert!(line <= text.lines().count().max(1), "line {line}: {why}");
        assert!(!why.is_empty());
    }
});

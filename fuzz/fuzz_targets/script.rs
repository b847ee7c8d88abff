//! Whatever the bytes, reading a script ends in a script or in the line that is wrong; a script that is written is read back
//! as the same.
#![no_main]

use emmu::replay::{Script, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match read("fuzz", bytes) {
        Ok(script) => {
            let text = script.to_jsonl();
            let again = Script::parse("fuzz", text.as_bytes()).expect("what is written is read");
            assert_eq!(again.header, script.header);
            assert_eq!(again.to_jsonl(), text);
        }
        Err(e) => assert!(e.line >= 1 && !e.why.is_empty(), "{e}"),
    }
});

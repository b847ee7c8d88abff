//! Any operations by any processes: the library does not panic, its own checks included, and every step comes to what the
//! kit's model of pages says, as long as that has something to say.
//!
//! A crash prints the script as `.jsonl`, for `replay`, and for a real kernel.
#![no_main]

use emmu::testkit::Suite;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(failure) = Suite::new([]).again(&emmu_fuzz::decode(bytes)) {
        panic!("{failure}\n{}", failure.script.to_jsonl());
    }
});

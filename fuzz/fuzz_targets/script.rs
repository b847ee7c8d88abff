//! See [`emmu::testkit::fuzz::script`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| emmu::testkit::fuzz::script(bytes));

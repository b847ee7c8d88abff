//! See [`emmu::testkit::fuzz::ops`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| emmu::testkit::fuzz::ops(bytes));

//! See [`emmu::testkit::fuzz::faults`].
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| emmu::testkit::fuzz::faults(text));

//! See [`emmu::testkit::fuzz::maps`].
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| emmu::testkit::fuzz::maps(text));

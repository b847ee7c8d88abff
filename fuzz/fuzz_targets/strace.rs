//! See [`emmu::testkit::fuzz::strace`].
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| emmu::testkit::fuzz::strace(text));

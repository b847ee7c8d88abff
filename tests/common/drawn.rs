//! What property tests draw: the same in every run, so that they say the same everywhere, and
//! something new in an exploration (`EMMU_EXPLORE=1`, see docs/fuzzing.md). More of it with
//! `PROPTEST_CASES`.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use proptest::test_runner::{Config, RngSeed};

/// What is drawn from, unless something new is asked for.
const SEED: u64 = 0x0e0e_5eed;

/// Something new is to be drawn.
pub fn explores() -> bool {
    std::env::var_os("EMMU_EXPLORE").is_some_and(|v| !v.is_empty() && v != "0")
}

/// Scripts that a suite runs first, and where it saves those that fail: what an exploration finds
/// is run ever after.
pub fn kept(suite: &str) -> std::path::PathBuf {
    let all = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/regressions");
    std::path::Path::new(all).join(suite)
}

/// So many cases, or those of `PROPTEST_CASES`.
pub fn cases(cases: u32) -> u32 {
    let asked = std::env::var("PROPTEST_CASES");
    asked.ok().and_then(|n| n.parse().ok()).unwrap_or(cases)
}

pub fn config(least: u32) -> Config {
    Config {
        cases: cases(least),
        rng_seed: match explores() {
            true => RngSeed::Random,
            false => RngSeed::Fixed(SEED),
        },
        ..Config::default()
    }
}

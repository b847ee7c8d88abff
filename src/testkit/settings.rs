//! Settings of a run that come from the environment: how many scripts, and from which seed.
//!
//! Without any variable a run draws from a fixed seed, so that a test gives the same verdict every
//! time.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// The seed of a run that sets none.
const SEED: u64 = 0x0e0e_5eed;

/// The longest deadline: a later one may be beyond the clock.
pub(super) const LONGEST: Duration = Duration::from_secs(1 << 32);

/// Reads a variable of the environment; `None` if the variable is unset or does not parse.
pub(super) fn env<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Returns true if `EMMU_EXPLORE` asks for a new seed in every run.
fn explores() -> bool {
    std::env::var_os("EMMU_EXPLORE").is_some_and(|v| !v.is_empty() && v != "0")
}

/// Returns the seed: `EMMU_TESTKIT_SEED`, a random one with `EMMU_EXPLORE`, or the fixed one.
pub(super) fn seed() -> u64 {
    env("EMMU_TESTKIT_SEED").unwrap_or_else(|| match explores() {
        true => RandomState::new().hash_one(0),
        false => SEED,
    })
}

/// Returns the number of scripts if the caller sets none: `EMMU_TESTKIT_CASES`, or `cases`.
pub(super) fn depth(cases: u32) -> u32 {
    env("EMMU_TESTKIT_CASES").unwrap_or(cases)
}

/// Returns the number of scripts if the caller sets `cases`: `EMMU_TESTKIT_CASES` raises that
/// number, but a run of no scripts stays one.
pub(super) fn at_least(cases: u32) -> u32 {
    match cases {
        0 => 0,
        _ => cases.max(depth(cases)),
    }
}

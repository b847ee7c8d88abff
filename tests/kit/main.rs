//! The test kit: its suites, its model, the museum, fuzzing.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/drawn.rs"]
mod drawn;

mod alloc_failure;
mod bad_input;
mod conformance;
mod fair_oracle;
mod fuzz;
mod graphics;
mod kit_verdicts;
mod late_fills;
mod model;
mod model_kinds;
mod museum;
mod page_faulters;
mod pinning;
mod reads_only;
mod registrations;
mod seeded;
mod small_mistakes;
mod stale_uses;
mod swap;
mod testkit_suite;

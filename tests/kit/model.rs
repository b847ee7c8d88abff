//! Random operations on a family of processes, against a model that knows nothing but pages:
//! rights, contents, sharing, counts, accounts (`emmu::testkit::Reference`).

use emmu::testkit::{Profile, Suite};

#[test]
fn results_and_contents_are_those_of_the_model() {
    let suite = Suite::new([]).profile(Profile::Pages).cases(400).steps(120);
    if let Err(failure) = suite.regressions(crate::drawn::kept("model")).run() {
        panic!("\n{failure}");
    }
}

#[test]
fn segments_and_sealed_files_are_those_of_the_model() {
    let suite = Suite::new([]).profile(Profile::Shared).cases(256).steps(60);
    if let Err(failure) = suite.regressions(crate::drawn::kept("shared")).run() {
        panic!("\n{failure}");
    }
}

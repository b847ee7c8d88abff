//! What a test leaves out, said where everybody sees it: the harness keeps what a test that passes
//! prints, but not what is written to standard error directly.
#![allow(unreachable_pub)]

use std::io::Write;

/// Says that this was left out, and why.
pub fn skipped(what: &str, why: &str) {
    let line = format!("skipped: {what}: {why}\n");
    // One call, so that lines of several threads do not mix.
    let _closed = std::io::stderr().write_all(line.as_bytes());
}

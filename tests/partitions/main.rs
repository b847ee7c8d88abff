//! XPmem partitions in other processes, and all devices at once.
#![cfg(target_os = "linux")]

#[path = "../common/exporter.rs"]
mod exporter;
#[path = "../common/process.rs"]
mod process;
#[path = "../common/raw.rs"]
mod raw;
#[path = "../common/stores.rs"]
mod stores;
#[path = "../common/thief.rs"]
mod thief;

mod deaths;
mod false_owners;
mod remote;
mod remote_attacks;
mod remote_limits;
mod revoked;
mod slow_page;
mod stress;

/// The other process of these tests: this binary, run again with this test alone.
#[test]
fn other_process() {
    process::serve_parent();
}

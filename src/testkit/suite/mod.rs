//! Random operations on a family of processes, with any set of devices on the first one, checked
//! against a model of pages. A suite shortens a failure and saves it as a script in the format of
//! the recordings.
//!
//! ```
//! use emmu::{extmmu::kvm::VmConfig, testkit::{Suite, kvm}};
//!
//! Suite::new([kvm(VmConfig::default())]).cases(8).run().expect("a correct device");
//! ```
//!
//! A [`Reference`](super::Reference) follows each script and checks every step, so a suite without
//! devices tests this library alone. The [`Profile`] sets the operations.
//!
//! # Three forms
//!
//! | form | call | devices | finds | a failure repeats by |
//! | --- | --- | --- | --- | --- |
//! | sequential | [`Suite::run`] | act before and after each step of process 0, on its thread | every wrong byte, right, count, leak | the script, which is short |
//! | threaded | … with [`Disturbances::threads`] | that many threads use them all the time, next to the operations, which wait for them now and then | findings of the oracle, panics, wrong outcomes | luck: the script is as drawn |
//! | scheduled | `Suite::scheduled` | as in the threaded form, as tasks of [shuttle](https://docs.rs/shuttle) | as in the threaded form | the printed seed; the script is short |
//!
//! The scheduled form exists in builds with `--cfg shuttle`, whose locks, atomics and threads are
//! shuttle's.
//!
//! ```sh
//! RUSTFLAGS="--cfg shuttle" cargo test --features testkit --test suite_shuttle --target-dir target/shuttle
//! ```
//!
//! # A failure
//!
//! A script fails if a step differs from the model, the oracle reports a violation, the script
//! panics, or the script exceeds the [deadline](Suite::deadline). Each script runs on a thread of
//! its own, which leaks if the script hangs. A suite does not shorten a script that hangs, as every
//! try would take as long.
//!
//! A [`Failure`] holds the script ([`Failure::script`]), the path of the saved script, and the
//! seed. The script can be replayed (`cargo run --features replay --example replay -- FILE`),
//! shared, run on a real kernel, and kept: the scripts of a [folder](Suite::regressions) run before
//! any random one. The name of the file contains the injected fault
//! (`emmu-aabc878ff0bef485.allocation-12.jsonl`), which a later run injects again.
//!
//! | file | holds |
//! | --- | --- |
//! | `config` | `Suite` and its settings |
//! | `run` | the run of a suite: kept scripts, then random ones |
//! | `watch`, `beat` | time limit and progress of a case |
//! | `execute` | the execution of one case |
//! | `scheduled` | the scheduled form, under shuttle |
//! | `shorten`, `failure` | the short script, and its file |
//! | `checker`, `concurrent` | the checks of each step, and the disturbances at work |
//! | `shortage` | refusals for want of memory |
//! | `disturbances`, `pace` | the settings of disturbances, the mark of a step, the progress of threads |
//! | `case` | the source of operations, and the result of a case |
//! | `stream`, `dispatch` | from draws to operations, by profile |
//! | `mixed_profile`, `pages`, `files`, `swap`, `huge`, `pool`, `tracked`, `holds`, `device`, `shared` | the operations of each profile |
//! | `few` | operations that several of them draw |
//! | `profile`, `draw`, `arena` | the enum, the numbers of a draw, the shared constants |

mod arena;
mod beat;
mod case;
mod checker;
mod concurrent;
mod config;
mod device;
mod dispatch;
mod disturbances;
mod draw;
mod execute;
mod failure;
mod few;
mod files;
mod holds;
mod huge;
mod mixed_profile;
mod pace;
mod pages;
mod pool;
mod profile;
mod run;
#[cfg(shuttle)]
mod scheduled;
mod shared;
mod shortage;
mod shorten;
mod stream;
mod swap;
mod tracked;
mod watch;

pub use config::Suite;
pub use disturbances::Disturbances;
pub use failure::Failure;
pub use profile::Profile;

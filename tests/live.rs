//! Random scripts on the kernel that this runs on, and on emmu, compared step by step.
//!
//! A failure is shrunk, printed, and written as a script that `replay` takes. A difference counts only if the kernel does
//! the same thing each time: what it decides by load or by chance is nobody's bug. The scripts are always the same; others with
//! `EMMU_EXPLORE=1`, more with `PROPTEST_CASES`. What cannot be recorded or compared here is said on standard error.
#![allow(unreachable_pub)]

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[test]
fn random_scripts_go_as_on_this_kernel() {
    skipped(
        "scripts of this kernel",
        "they are recorded on Linux, x86-64",
    );
}

#[path = "common/drawn.rs"]
mod drawn;
#[path = "common/skipped.rs"]
mod skipped;
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
use skipped::skipped;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[path = "live/mod.rs"]
mod live;

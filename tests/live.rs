//! Random scripts on the kernel that this runs on, and on emmu, compared step by step.
//!
//! A failure is shrunk, printed, and written as a script that `replay` takes. A difference counts only if the kernel does
//! the same thing twice: what it decides by load or by chance is nobody's bug. More scripts with `PROPTEST_CASES`.
#![allow(unreachable_pub)]

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[test]
fn random_scripts_go_as_on_this_kernel() {
    println!("skipped: scripts are recorded on Linux, x86-64");
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[path = "live/mod.rs"]
mod live;

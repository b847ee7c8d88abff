//! Recorded scripts and programs, and the kernel that runs here.

#[path = "../common/drawn.rs"]
mod drawn;
#[path = "../common/skipped.rs"]
mod skipped;

mod kinds;
#[cfg(all(feature = "host", target_os = "linux", target_arch = "x86_64"))]
mod live;
mod programs;
mod replay;
mod timeline;

#[cfg(not(all(feature = "host", target_os = "linux", target_arch = "x86_64")))]
#[test]
fn random_scripts_go_as_on_this_kernel() {
    skipped::skipped(
        "scripts of this kernel",
        "the feature `host` records them on Linux, x86-64",
    );
}

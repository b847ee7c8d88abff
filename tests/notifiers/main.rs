//! Windows, gates, registrations and callbacks.

#[path = "../common/mod.rs"]
mod common;

mod asking_maps;
mod beside;
mod callouts;
mod exported_in_vain;
mod exports;
mod given_up;
mod giving_way;
mod hmm;
mod hmm_device;
mod huge_meanwhile;
mod huge_slots;
mod interval;
mod last_handles;
mod locked_frames;
mod own_space;
mod protocol;
mod ranges;
mod references;
mod refusing;
mod registering;
mod secondary_tlb;
mod shared_tables;
mod sleeping;
#[cfg(feature = "tracing")]
mod spans;
mod sparing;
mod stale_uses;
mod stores;
mod translate;
mod two_pass;
mod unmerging;
mod windows;

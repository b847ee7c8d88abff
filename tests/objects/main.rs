//! Files and memory objects: their ends, holes, failures and races.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/drawn.rs"]
mod drawn;
#[path = "../common/stores.rs"]
mod stores;

mod cut_pools;
mod direct;
#[cfg(feature = "testkit")]
mod ends;
mod fallocate;
mod file_bytes;
#[cfg(feature = "testkit")]
mod file_failures;
mod file_objects;
mod file_races;
#[cfg(feature = "testkit")]
mod files;
#[cfg(feature = "testkit")]
mod huge_shared;
mod huge_shared_races;
mod huge_tmpfs;
mod kept_apart;
mod parts_of_pools;

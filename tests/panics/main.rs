//! A driver panics in each of its callbacks in each operation: what was begun is finished or
//! undone, all that counts is right, the operation can be done again, and everything ends.
#![allow(unreachable_pub)] // A test of several files.

mod bomb;
#[path = "../common/mod.rs"]
mod common;
mod cutting;
mod files;
mod flushing;
mod layouts;
mod leaving;
mod moving_back;
mod pages;
mod walkers;
mod world;

//! Operations of a device with memory of its own, as numbers.

use crate::replay::{Bytes, NewDevice, Op};

/// Operations of a device.
pub(super) fn on_device((addr, len): (u64, u64), (other, b): (u8, u8)) -> Op {
    match b % 8 {
        0 => Op::Device(NewDevice {
            frames: u32::from(other % 16),
            coherent: other >= 128,
        }),
        1..=3 => Op::ToDevice(Bytes { addr, len }),
        4 => Op::FromDevice(Bytes { addr, len }),
        5 => Op::Exclusive { addr },
        6 => Op::EvictDevice {},
        _ => Op::RemoveDevice {},
    }
}

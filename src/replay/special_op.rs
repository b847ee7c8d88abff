//! The arguments of `mremap`, and of operations of single kinds of scripts: files by their path,
//! secret memory, a segment of System V, protection keys and policies, memory of a device.

use super::wire_words::{arguments, hex, is_zero, map_flags, mremap_flags, nullable, prot};
use crate::mm::{MapFlags, MremapArgs, MremapFlags, Prot};
use serde::{Deserialize, Serialize};

/// The mode of `ksm` without a mode.
pub(super) fn scans() -> u8 {
    1
}

/// The keys of the arguments of `mremap`.
#[derive(Serialize, Deserialize)]
#[serde(remote = "MremapArgs", deny_unknown_fields)]
pub(super) struct MremapKeys {
    #[serde(with = "hex")]
    addr: u64,
    old_len: u64,
    new_len: u64,
    #[serde(with = "mremap_flags")]
    flags: MremapFlags,
    #[serde(with = "hex")]
    new_addr: u64,
}

arguments! {
    /// A file that is opened by its path, and its name in the script from here on.
    OpenPath {
        path: String,
        mode: u32,
        name: String,
    }
    /// A mapping of the secret memory.
    MmapSecret {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
        #[serde(with = "prot")]
        prot: Prot,
        #[serde(with = "map_flags")]
        flags: MapFlags,
    }
    /// A new segment.
    Shmget {
        len: u64,
        #[serde(default, skip_serializing_if = "is_zero")]
        flags: u32,
    }
    /// A place for the segment.
    Shmat {
        #[serde(with = "hex")]
        addr: u64,
        flags: u32,
    }
    /// A range, its protection, and its key.
    PkeyMprotect {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
        #[serde(with = "prot")]
        prot: Prot,
        pkey: i32,
    }
    /// A range and the name of its memory; null takes the name away.
    AnonName {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
        #[serde(deserialize_with = "nullable")]
        name: Option<String>,
    }
    /// A range and its policy.
    Mbind {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
        mode: u32,
        flags: u32,
    }
    /// A device that has memory of so many frames, which processors reach or not.
    NewDevice {
        frames: u32,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        coherent: bool,
    }
    /// A range of bytes.
    Bytes {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
    }
}

//! Draws of operations on files, and of those of single kinds of scripts.

use super::numbers::Numbers;
use crate::{
    mm::{MapFlags, Prot},
    replay::{
        op::Op,
        special_op::{AnonName, Mbind, MmapSecret, OpenPath, PkeyMprotect, Shmat, Shmget},
    },
};

/// An operation on a file, or on memory of a single kind.
pub(super) fn draw(kind: u64, n: &mut Numbers) -> Op {
    let (addr, off, len, flags, file) = (n.any(), n.any(), n.any(), n.bits(), n.file());
    let prot = Prot::from_bits_retain(n.bits());
    match kind {
        42 => Op::Fallocate {
            file,
            mode: flags,
            off,
            len,
        },
        43 => Op::DirectWrite {
            file,
            off,
            len: len % 4096,
            byte: 7,
        },
        44 => Op::DirectRead {
            file,
            off,
            addr,
            len,
        },
        45 => Op::DirectWriteFrom {
            file,
            off,
            addr,
            len,
        },
        46 => Op::FadviseDontneed { file, off, len },
        47 => Op::Seal { file, seals: flags },
        48 => Op::Secret { len },
        49 => Op::MmapSecret(MmapSecret {
            addr,
            len,
            prot,
            flags: MapFlags::from_bits_retain(flags),
        }),
        50 => Op::Exec { addr },
        _ => draw_of_settings(kind, (addr, len), (flags, prot)),
    }
}

fn draw_of_settings(kind: u64, (addr, len): (u64, u64), (flags, prot): (u32, Prot)) -> Op {
    match kind {
        51 => Op::Shmget(Shmget { len, flags }),
        52 => Op::Shmat(Shmat { addr, flags }),
        53 => Op::Shmdt { addr },
        54 => Op::Shmrm {},
        55 => Op::PkeyAlloc {},
        56 => Op::PkeyMprotect(PkeyMprotect {
            addr,
            len,
            prot,
            pkey: -1,
        }),
        57 => Op::Mbind(Mbind {
            addr,
            len,
            mode: flags,
            flags,
        }),
        58 => Op::Prctl {
            option: 41 + flags % 2,
            a2: addr,
            a3: len,
        },
        59 => Op::Open(OpenPath {
            path: "/dev/zero".into(),
            mode: flags,
            name: "z".into(),
        }),
        60 => Op::BadFd {
            name: "b".into(),
            fd: -1,
        },
        61 => Op::Shmlock {},
        62 if flags % 3 > 0 => Op::AnonName(AnonName {
            addr,
            len,
            name: (flags % 3 == 1).then(|| "a b".into()),
        }),
        _ => Op::Shmunlock {},
    }
}

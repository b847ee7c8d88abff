//! The profile of anonymous memory: mappings that split, merge, move and grow.

use super::{
    arena::{ARENA, On, RW, any, at, remap, weighed},
    draw::{Draw, byte_in},
};
use crate::{
    addr::PAGE_SIZE,
    mm::{Advice, MapFlags, MremapArgs, MremapFlags, Prot},
    replay::Op,
};

const ON_PAGES: &[(u32, On)] = &[
    (27, On::Store),
    (13, On::Load),
    (13, On::Map),
    (7, On::Unmap),
    (10, On::Protect),
    (10, On::Move),
    (6, On::Resize),
    (7, On::Advise),
    (3, On::Fork),
    (2, On::Exit),
    (2, On::Look),
];
const ADVICE: &[Advice] = &[
    Advice::DontNeed,
    Advice::Free,
    Advice::Cold,
    Advice::DontFork,
    Advice::DoFork,
    Advice::WipeOnFork,
    Advice::KeepOnFork,
    Advice::GuardInstall,
    Advice::GuardRemove,
];

/// Returns the operation of a draw.
pub(super) fn op(d: Draw) -> Option<Op> {
    let (page, to) = (d.page % ARENA, d.other % ARENA);
    let (addr, len) = (at(page), d.n * PAGE_SIZE);
    let prot = any(
        &[Prot::empty(), Prot::READ, RW, Prot::READ | Prot::EXEC],
        d.other,
    );
    Some(match weighed(d.kind, ON_PAGES) {
        On::Map => {
            let mut flags = any(&[MapFlags::PRIVATE, MapFlags::SHARED], d.byte.into());
            flags |= match d.byte.is_multiple_of(5) {
                true => MapFlags::FIXED_NOREPLACE,
                false => MapFlags::FIXED,
            };
            Op::Mmap {
                addr,
                len,
                prot,
                flags,
                file: None,
                off: 0,
            }
        }
        On::Unmap => Op::Munmap { addr, len },
        On::Protect => Op::Mprotect { addr, len, prot },
        On::Move => remap(page, d.n, to, d.byte.is_multiple_of(2)),
        On::Resize => Op::Mremap(MremapArgs {
            addr,
            old_len: len,
            new_len: (1 + d.other % 8) * PAGE_SIZE,
            flags: MremapFlags::empty(),
            new_addr: 0,
        }),
        On::Advise => Op::Madvise {
            addr,
            len,
            advice: any(ADVICE, d.other),
        },
        On::Store => Op::Store {
            addr: addr + byte_in(d),
            byte: d.byte,
        },
        On::Load => Op::Load {
            addr: addr + byte_in(d),
        },
        On::Fork => Op::Fork { child: 0 },
        On::Exit => Op::Exit {},
        _ => return None,
    })
}

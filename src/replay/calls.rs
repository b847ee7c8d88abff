//! The execution of a script's calls on an address space.

use super::{
    came::{counted, done, failed, returned},
    op::Op,
    process::own_call,
    script::Outcome,
};
use crate::{
    ctx::CallCx,
    file::{FallocateMode, File, FileAdvice, Seals, SyncRangeFlags},
    mm::{MapFlags, Mm, MmapArgs, Prot},
};
use std::sync::Arc;

/// Executes a call that involves one address space only.
pub(super) fn system_call(
    cx: &mut CallCx<'_>,
    mm: &Mm,
    op: &Op,
    file: Option<&Arc<File>>,
) -> Outcome {
    match *op {
        Op::Mmap { .. } => map(cx, mm, op, file),
        Op::Mremap(args) => returned(mm.mremap(cx, args)),
        Op::RemapFilePages { addr, len, pgoff } => {
            let (prot, flags) = (Prot::empty(), MapFlags::empty());
            let remapped = mm.remap_file_pages(cx, addr, len, prot, pgoff, flags);
            done(remapped)
        }
        Op::Munmap { addr, len } => done(mm.munmap(cx, addr, len)),
        Op::Mprotect { addr, len, prot } => done(mm.mprotect(cx, addr, len, prot)),
        Op::Madvise { addr, len, advice } => done(mm.madvise(cx, addr, len, advice)),
        Op::Msync { addr, len, flags } => done(mm.msync(cx, addr, len, flags)),
        Op::Mlock { addr, len } => done(mm.mlock(cx, addr, len)),
        Op::Munlock { addr, len } => done(mm.munlock(cx, addr, len)),
        ref other => own_call(cx, mm, other),
    }
}

/// `mmap`; no file: anonymous.
fn map(cx: &mut CallCx<'_>, mm: &Mm, op: &Op, file: Option<&Arc<File>>) -> Outcome {
    let Op::Mmap {
        addr,
        len,
        prot,
        flags,
        off: offset,
        ..
    } = *op
    else {
        unreachable!("{op:?} is not mmap");
    };
    let anonymous = match file {
        None => MapFlags::ANONYMOUS,
        Some(_) => MapFlags::empty(),
    };
    let args = MmapArgs {
        addr,
        len,
        prot,
        flags: flags | anonymous,
        file: file.cloned(),
        offset,
    };
    returned(mm.mmap(cx, &args))
}

/// Executes an operation on a file itself.
pub(super) fn on_file(cx: &mut CallCx<'_>, file: &Arc<File>, op: &Op) -> Outcome {
    match *op {
        Op::Ftruncate { len, .. } => done(file.truncate(cx.reborrow(), len)),
        Op::PunchHole { off, len, .. } => done(file.punch_hole(cx.reborrow(), off, len)),
        Op::Pwrite { off, byte, .. } => {
            let written = file.write_at(cx.reborrow(), off, &[byte]);
            counted(written)
        }
        Op::Fallocate { mode, off, len, .. } => {
            let mode = FallocateMode::from_bits_retain(mode);
            done(file.fallocate(cx.reborrow(), mode, off, len))
        }
        Op::DirectWrite { off, len, byte, .. } => {
            let bytes = vec![byte; usize::try_from(len).expect("the parser limits it")];
            let written = file.write_at(cx.reborrow(), off, &bytes);
            counted(written)
        }
        Op::FadviseDontneed { off, len, .. } => {
            let advice = FileAdvice::DontNeed;
            done(file.advise(cx.reborrow(), off, len, advice))
        }
        Op::Seal { seals, .. } => done(file.add_seals(Seals::from_bits_retain(seals))),
        Op::Fsync { .. } => done(file.sync(cx.reborrow())),
        Op::Pread { off, .. } => {
            let mut byte = [0];
            match file.read_at(cx.reborrow(), off, &mut byte) {
                Ok(0) => Outcome::Ret(END_OF_FILE),
                Ok(_) => Outcome::Ret(byte[0].into()),
                Err(e) => failed(e.errno()),
            }
        }
        Op::SyncFileRange {
            off, len, flags, ..
        } => {
            let flags = SyncRangeFlags::from_bits_retain(flags);
            done(file.sync_range(cx.reborrow(), off, len, flags))
        }
        ref other => unreachable!("{other:?} is not done to a file"),
    }
}

/// The result of a read at the end of the file.
const END_OF_FILE: u64 = 256;

//! The execution of a script's calls on an address space.

use super::{came::failed, op::Op, process::own_call, script::Outcome};
use crate::{
    ctx::CallCx,
    error::Errno,
    file::{FallocateMode, File, FileAdvice, Seals, SyncRangeFlags},
    mm::{MapFlags, Mm, MmapArgs, MremapArgs, Prot},
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
        Op::Mremap {
            addr,
            old_len,
            new_len,
            flags,
            new_addr,
        } => {
            let args = MremapArgs {
                addr,
                old_len,
                new_len,
                flags,
                new_addr,
            };
            mm.mremap(cx, args)
                .map_or_else(|e| failed(e.errno()), Outcome::Ret)
        }
        Op::RemapFilePages { addr, len, pgoff } => {
            let (prot, flags) = (Prot::empty(), MapFlags::empty());
            let remapped = mm.remap_file_pages(cx, addr, len, prot, pgoff, flags);
            done(remapped, |e| e.errno())
        }
        Op::Munmap { addr, len } => done(mm.munmap(cx, addr, len), |e| e.errno()),
        Op::Mprotect { addr, len, prot } => done(mm.mprotect(cx, addr, len, prot), |e| e.errno()),
        Op::Madvise { addr, len, advice } => done(mm.madvise(cx, addr, len, advice), |e| e.errno()),
        Op::Msync { addr, len, flags } => done(mm.msync(cx, addr, len, flags), |e| e.errno()),
        Op::Mlock { addr, len } => done(mm.mlock(cx, addr, len), |e| e.errno()),
        Op::Munlock { addr, len } => done(mm.munlock(cx, addr, len), |e| e.errno()),
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
    mm.mmap(cx, &args)
        .map_or_else(|e| failed(e.errno()), Outcome::Ret)
}

/// Executes an operation on a file itself.
pub(super) fn on_file(cx: &mut CallCx<'_>, file: &Arc<File>, op: &Op) -> Outcome {
    match *op {
        Op::Ftruncate { len, .. } => done(file.truncate(cx.reborrow(), len), |e| e.errno()),
        Op::PunchHole { off, len, .. } => {
            done(file.punch_hole(cx.reborrow(), off, len), |e| e.errno())
        }
        Op::Pwrite { off, byte, .. } => {
            let written = file.write_at(cx.reborrow(), off, &[byte]);
            written.map_or_else(|e| failed(e.errno()), |n| Outcome::Ret(n as u64))
        }
        Op::Fallocate { mode, off, len, .. } => {
            let mode = FallocateMode::from_bits_retain(mode);
            done(file.fallocate(cx.reborrow(), mode, off, len), |e| e.errno())
        }
        Op::DirectWrite { off, len, byte, .. } => {
            let bytes = vec![byte; usize::try_from(len).expect("the parser limits it")];
            let written = file.write_at(cx.reborrow(), off, &bytes);
            written.map_or_else(|e| failed(e.errno()), |n| Outcome::Ret(n as u64))
        }
        Op::FadviseDontneed { off, len, .. } => {
            let advice = FileAdvice::DontNeed;
            done(file.advise(cx.reborrow(), off, len, advice), |e| e.errno())
        }
        Op::Seal { seals, .. } => done(file.add_seals(Seals::from_bits_retain(seals)), |e| {
            e.errno()
        }),
        Op::Fsync { .. } => done(file.sync(cx.reborrow()), |e| e.errno()),
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
            done(file.sync_range(cx.reborrow(), off, len, flags), |e| {
                e.errno()
            })
        }
        ref other => unreachable!("{other:?} is not done to a file"),
    }
}

/// The result of a read at the end of the file.
const END_OF_FILE: u64 = 256;

fn done<E>(result: Result<(), E>, errno: impl FnOnce(E) -> Errno) -> Outcome {
    result.map_or_else(|e| failed(errno(e)), |()| Outcome::Ret(0))
}

//! The execution of one recorded call, by the rules of this library.

use super::{
    call::{Call, Returned},
    files::{Descriptors, Objects},
    place::{CheckedArgs, attach_args, map_args},
};
use crate::{
    ctx::CallCx,
    error::{Errno, HasErrno},
    file::FallocateMode,
    mm::{Advice, Mm, MremapArgs, MremapFlags},
};

/// The comparable result of a call: the value or the errno, or nothing.
pub(super) type CallResult = Option<Result<u64, Errno>>;

/// Executes a call of one address space and its files that ended as recorded.
pub(super) fn execute(
    cx: &mut CallCx<'_>,
    mm: &Mm,
    files: (&Descriptors, &mut Objects),
    call: &Call,
    returned: &Returned,
) -> CallResult {
    Some(match *call {
        Call::Mmap { .. } => {
            let args = map_args(files.0, files.1, call, returned)?;
            args.and_then(|args| mm.mmap(cx, &args).map_err(|e| e.errno()))
        }
        Call::Mremap(args) => mm.mremap(cx, args).map_err(|e| e.errno()),
        Call::Brk { addr } => Ok(mm.brk(cx, addr)),
        Call::Ftruncate { .. } | Call::Fallocate { .. } | Call::AddSeals { .. } => {
            return on_file(cx, files.0, call);
        }
        Call::Shmat { .. } => attach(cx, mm, attach_args(files.1, call, returned))?,
        Call::Shmdt { addr } => detach(cx, mm, addr),
        _ => return plain(cx, mm, call),
    })
}

/// The calls that name a file. The mode of a file whose opening went unseen is unknown.
fn on_file(cx: &mut CallCx<'_>, files: &Descriptors, call: &Call) -> CallResult {
    /// The largest length of a file.
    const MOST: u64 = i64::MAX as u64;
    let (Call::Ftruncate { file, .. } | Call::Fallocate { file, .. } | Call::AddSeals { file, .. }) =
        call
    else {
        return None;
    };
    if let Call::Ftruncate { len, .. } = *call
        && len > MOST
    {
        return Some(Err(Errno::EINVAL));
    }
    if !file.is_open() {
        return Some(Err(Errno::EBADF));
    }
    let Some(open) = files.get(file)?.file() else {
        return Some(Err(Errno::EBADF));
    };
    Some(match *call {
        Call::Ftruncate { .. } if !open.is_writable() => Err(Errno::EINVAL),
        Call::Ftruncate { len, .. } => done(open.truncate(cx.reborrow(), len)),
        Call::Fallocate {
            mode, offset, len, ..
        } => {
            // What allocates or inserts shows in no layout, and needs the size of the file, which
            // no recording has.
            let shows = FallocateMode::PUNCH_HOLE
                | FallocateMode::ZERO_RANGE
                | FallocateMode::COLLAPSE_RANGE;
            let is_range = len > 0 && offset <= MOST && len <= MOST;
            if is_range && !mode.intersects(shows) {
                return None;
            }
            done(open.fallocate(cx.reborrow(), mode, offset, len))
        }
        Call::AddSeals { seals, .. } => done(open.add_seals(seals)),
        _ => return None,
    })
}

/// The calls that only name a range.
fn plain(cx: &mut CallCx<'_>, mm: &Mm, call: &Call) -> CallResult {
    Some(match *call {
        Call::Munmap { addr, len } => done(mm.munmap(cx, addr, len)),
        Call::Mprotect { addr, len, prot } | Call::PkeyMprotect { addr, len, prot } => {
            done(mm.mprotect(cx, addr, len, prot))
        }
        Call::RemapFilePages {
            addr,
            len,
            prot,
            pgoff,
            flags,
        } => done(mm.remap_file_pages(cx, addr, len, prot, pgoff, flags)),
        Call::Madvise { addr, len, advice } => {
            let known = i32::try_from(advice).ok().and_then(Advice::from_raw);
            match known {
                Some(advice) => done(mm.madvise(cx, addr, len, advice)),
                None => Err(Errno::EINVAL),
            }
        }
        Call::Mlock { addr, len, flags } => done(mm.mlock2(cx, addr, len, flags)),
        Call::Munlock { addr, len } => done(mm.munlock(cx, addr, len)),
        Call::Mlockall { flags } => done(mm.mlockall(cx, flags)),
        Call::Munlockall => {
            mm.munlockall(cx);
            Ok(0)
        }
        Call::NameMemory {
            addr,
            len,
            ref name,
        } => done(mm.name_memory(cx, addr, len, name.as_deref())),
        Call::Msync { addr, len, flags } => done(mm.msync(cx, addr, len, flags)),
        _ => return None,
    })
}

fn done(result: Result<(), impl HasErrno>) -> Result<u64, Errno> {
    result.map(|()| 0).map_err(|e| e.errno())
}

/// `shmat`: a shared mapping of the whole segment, through an open file of its own.
fn attach(cx: &mut CallCx<'_>, mm: &Mm, args: Option<CheckedArgs>) -> CallResult {
    Some(args?.and_then(|args| {
        mm.mmap(cx, &args).map_err(|e| match e.errno() {
            Errno::EEXIST => Errno::EINVAL,
            other => other,
        })
    }))
}

/// `shmdt`: unmaps the rest of the segment that was attached at `addr`.
fn detach(cx: &mut CallCx<'_>, mm: &Mm, addr: u64) -> Result<u64, Errno> {
    let is_left = |start: u64, offset: u64, name: &str| {
        name.starts_with("/SYSV") && start.checked_sub(addr) == Some(offset)
    };
    let lines = mm.maps(cx);
    let mut left = lines
        .iter()
        .filter(|l| is_left(l.start, l.offset, &l.name))
        .peekable();
    let name = left.peek().ok_or(Errno::EINVAL)?.name.clone();
    for line in left.filter(|l| l.name == name) {
        mm.munmap(cx, line.start, line.end - line.start)
            .map_err(|e| e.errno())?;
    }
    Ok(0)
}

/// Moves a mapping to the kernel's place, so that one difference does not lead to hundreds.
pub(super) fn correct(
    cx: &mut CallCx<'_>,
    mm: &Mm,
    call: &Call,
    mine: Option<u64>,
    theirs: Option<u64>,
) {
    let (len, new_addr) = match *call {
        Call::Mmap { len, .. } | Call::Mremap(MremapArgs { new_len: len, .. }) => (len, theirs),
        _ => return,
    };
    let (Some(addr), Some(new_addr)) = (mine, new_addr) else {
        return;
    };
    // A mapping that cannot move stays: the difference is recorded already.
    let _stays = mm.mremap(
        cx,
        MremapArgs {
            addr,
            old_len: len,
            new_len: len,
            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
            new_addr,
        },
    );
}

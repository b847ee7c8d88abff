//! One call, done by the rules of this library.

use super::{
    call::{Call, Descriptor},
    files::{Descriptors, Objects},
    watch::Idle,
};
use crate::{
    addr::PAGE_SIZE,
    error::Errno,
    file::{File, FileMode},
    mm::{Advice, MapFlags, Mm, MmapArgs, MremapArgs, Prot},
};
use std::sync::Arc;

/// What a result is worth comparing with: the value or the errno, or nothing.
pub(super) type Did = Option<Result<u64, Errno>>;

/// Does a call that only an address space and its files take part in.
pub(super) fn act(
    cx: &mut Idle<'_>,
    mm: &Mm,
    files: (&Descriptors, &mut Objects),
    call: &Call,
) -> Did {
    Some(match *call {
        // Neither a file nor anonymous memory.
        Call::Mmap {
            flags, file: None, ..
        } if !flags.contains(MapFlags::ANONYMOUS) => Err(Errno::EBADF),
        Call::Mmap { .. } => {
            let args = map_args(files.0, files.1, call)?;
            mm.mmap(cx, &args).map_err(|e| e.errno())
        }
        Call::Mremap {
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
            mm.mremap(cx, args).map_err(|e| e.errno())
        }
        Call::Brk { addr } => Ok(mm.brk(cx, addr)),
        Call::Ftruncate { ref file, len } => {
            let file = files.0.get(file)?;
            if !file.is_writable() {
                return Some(Err(Errno::EINVAL));
            }
            done(file.truncate(cx.reborrow(), len), |e| e.errno())
        }
        Call::PunchHole {
            ref file,
            offset,
            len,
        } => {
            let file = files.0.get(file)?;
            done(file.punch_hole(cx.reborrow(), offset, len), |e| e.errno())
        }
        Call::Shmat { .. } => attach(cx, mm, files.1, call)?,
        Call::Shmdt { addr } => detach(cx, mm, addr),
        _ => return plain(cx, mm, call),
    })
}

/// The calls that only name a range.
fn plain(cx: &mut Idle<'_>, mm: &Mm, call: &Call) -> Did {
    Some(match *call {
        Call::Munmap { addr, len } => done(mm.munmap(cx, addr, len), |e| e.errno()),
        Call::Mprotect { addr, len, prot } => done(mm.mprotect(cx, addr, len, prot), |e| e.errno()),
        Call::RemapFilePages {
            addr,
            len,
            prot,
            pgoff,
            flags,
        } => done(
            mm.remap_file_pages(cx, addr, len, prot, pgoff, flags),
            |e| e.errno(),
        ),
        Call::Madvise { addr, len, advice } => {
            let known = i32::try_from(advice).ok().and_then(Advice::from_raw);
            match known {
                Some(advice) => done(mm.madvise(cx, addr, len, advice), |e| e.errno()),
                None => Err(Errno::EINVAL),
            }
        }
        Call::Mlock { addr, len, flags } => done(mm.mlock2(cx, addr, len, flags), |e| e.errno()),
        Call::Munlock { addr, len } => done(mm.munlock(cx, addr, len), |e| e.errno()),
        Call::Mlockall { flags } => done(mm.mlockall(cx, flags), |e| e.errno()),
        Call::Munlockall => {
            mm.munlockall(cx);
            Ok(0)
        }
        Call::NameMemory {
            addr,
            len,
            ref name,
        } => done(mm.name_memory(cx, addr, len, name.as_deref()), |e| {
            e.errno()
        }),
        Call::Msync { addr, len, flags } => done(mm.msync(cx, addr, len, flags), |e| e.errno()),
        _ => return None,
    })
}

fn done<E>(result: Result<(), E>, errno: impl FnOnce(E) -> Errno) -> Result<u64, Errno> {
    result.map(|()| 0).map_err(errno)
}

/// The arguments of an `mmap` with the open file in them; none where memory for the file ran out.
pub(super) fn map_args(
    files: &Descriptors,
    objects: &mut Objects,
    call: &Call,
) -> Option<MmapArgs> {
    let Call::Mmap {
        addr,
        len,
        prot,
        flags,
        ref file,
        offset,
    } = *call
    else {
        return None;
    };
    let mut args = MmapArgs {
        addr,
        len,
        prot,
        flags,
        file: None,
        offset,
    };
    let file = file
        .as_ref()
        .filter(|_| !flags.contains(MapFlags::ANONYMOUS));
    match file {
        // Shared, it is anonymous memory by another name.
        Some(zero) if zero.path == "/dev/zero" && flags.contains(MapFlags::SHARED) => {
            args.flags |= MapFlags::ANONYMOUS;
        }
        Some(file) => args.file = Some(opened(files, objects, file)?),
        None => {}
    }
    Some(args)
}

/// The open file behind a descriptor; one that came unseen is opened here, for reading and writing.
fn opened(files: &Descriptors, objects: &mut Objects, file: &Descriptor) -> Option<Arc<File>> {
    let known = files.get(file).cloned();
    known.or_else(|| objects.open(file, super::call::OpenAccess::Both).ok())
}

/// Flags of `shmat`.
const SHM_RDONLY: u64 = 0o10_000;
const SHM_RND: u64 = 0o20_000;
const SHM_REMAP: u64 = 0o40_000;
const SHM_EXEC: u64 = 0o100_000;

/// `shmat`: a shared mapping of the whole segment, through an open file of its own.
fn attach(cx: &mut Idle<'_>, mm: &Mm, objects: &Objects, call: &Call) -> Did {
    let Some(args) = attach_args(objects, call) else {
        return Some(Err(Errno::EINVAL));
    };
    Some(mm.mmap(cx, &args).map_err(|e| match e.errno() {
        Errno::EEXIST => Errno::EINVAL,
        other => other,
    }))
}

/// The mapping that a `shmat` makes; none of an unknown segment.
pub(super) fn attach_args(objects: &Objects, call: &Call) -> Option<MmapArgs> {
    let Call::Shmat { id, addr, flags } = *call else {
        return None;
    };
    let (mode, mut prot) = match flags & SHM_RDONLY {
        0 => (FileMode::ReadWrite, Prot::READ | Prot::WRITE),
        _ => (FileMode::ReadOnly, Prot::READ),
    };
    if flags & SHM_EXEC != 0 {
        prot |= Prot::EXEC;
    }
    let addr = match flags & SHM_RND {
        0 => addr,
        _ => addr - addr % PAGE_SIZE,
    };
    let mut kind = MapFlags::SHARED;
    if addr != 0 {
        kind |= match flags & SHM_REMAP {
            0 => MapFlags::FIXED_NOREPLACE,
            _ => MapFlags::FIXED,
        };
    }
    let (file, len) = objects.attach(id, mode)?;
    Some(MmapArgs {
        addr,
        len,
        prot,
        flags: kind,
        file: Some(file),
        offset: 0,
    })
}

/// `shmdt`: what is left of the segment that was attached at `addr`.
fn detach(cx: &mut Idle<'_>, mm: &Mm, addr: u64) -> Result<u64, Errno> {
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

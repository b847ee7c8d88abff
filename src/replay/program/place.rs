//! The mappings of `mmap` and `shmat`, with the objects behind their descriptors.
//!
//! Where the kernel's choice of a place does not follow from a layout, the replay asks for the
//! recorded place: `MAP_32BIT` begins at a random address, and huge pages come from a pool.

use super::{
    call::{Call, Descriptor, OpenAccess, Returned},
    files::{Descriptors, Objects},
    huge,
};
use crate::{
    addr::PAGE_SIZE,
    error::Errno,
    file::{File, FileMode},
    mm::{MapFlags, MmapArgs, Prot},
};
use std::sync::Arc;

/// Arguments for the address space, or the errno of a call that does not reach one.
pub(super) type CheckedArgs = Result<MmapArgs, Errno>;

/// Returns the request of an `mmap`; `None` if memory for the file ran out, and for other calls.
pub(super) fn map_args(
    files: &Descriptors,
    objects: &mut Objects,
    call: &Call,
    returned: &Returned,
) -> Option<CheckedArgs> {
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
    let args = MmapArgs {
        addr,
        len,
        prot,
        flags,
        file: None,
        offset,
    };
    if flags.contains(MapFlags::ANONYMOUS) {
        if huge::wants(flags) && returned.value().is_some() {
            return Some(Ok(huge::placed(args, None, returned)));
        }
        return Some(Ok(unchanced(args, returned)));
    }
    // The kernel checks the offset before the descriptor, and the descriptor before all else.
    if !offset.is_multiple_of(PAGE_SIZE) {
        return Some(Err(Errno::EINVAL));
    }
    let Some(opened) = opened(files, objects, file) else {
        return Some(Err(Errno::EBADF));
    };
    let (opened, is_huge) = opened?;
    if is_huge {
        return Some(Ok(huge::placed(args, Some(opened), returned)));
    }
    if huge::wants(flags) {
        return Some(Err(Errno::EINVAL));
    }
    let mut args = unchanced(args, returned);
    // A shared mapping of `/dev/zero` is anonymous memory.
    if file.path == "/dev/zero" && flags.contains(MapFlags::SHARED) {
        args.flags |= MapFlags::ANONYMOUS;
    } else {
        args.file = Some(opened);
    }
    Some(Ok(args))
}

/// Returns the open file behind a descriptor, and true if its pages are huge. The function opens a
/// file whose opening went unseen, for reading and writing. Outer `None`: the descriptor is closed;
/// inner `None`: no memory for the file.
fn opened(
    files: &Descriptors,
    objects: &mut Objects,
    file: &Descriptor,
) -> Option<Option<(Arc<File>, bool)>> {
    if !file.is_open() {
        return None;
    }
    if let Some(known) = files.get(file) {
        let open = Arc::clone(known.file()?);
        return Some(Some((open, known.huge)));
    }
    let unseen = objects.open(file, OpenAccess::Both).ok();
    Some(unseen.and_then(|o| Some((Arc::clone(o.file()?), false))))
}

/// Replaces a random choice of the kernel (`MAP_32BIT`) by the recorded place.
fn unchanced(mut args: MmapArgs, returned: &Returned) -> MmapArgs {
    if let Some(at) = returned.value()
        && args.flags.contains(MapFlags::MAP_32BIT)
        && !args.flags.contains(MapFlags::FIXED)
    {
        args.addr = at;
        args.flags = (args.flags - MapFlags::MAP_32BIT) | MapFlags::FIXED_NOREPLACE;
    }
    args
}

/// Flags of `shmat`.
const SHM_RDONLY: u64 = 0o10_000;
const SHM_RND: u64 = 0o20_000;
const SHM_REMAP: u64 = 0o40_000;
const SHM_EXEC: u64 = 0o100_000;

/// Returns the mapping of a `shmat` (`do_shmat`); `None` for other calls.
pub(super) fn attach_args(
    objects: &Objects,
    call: &Call,
    returned: &Returned,
) -> Option<CheckedArgs> {
    let Call::Shmat { id, addr, flags } = *call else {
        return None;
    };
    let has = |flag: u64| flags & flag != 0;
    let (mode, mut prot) = if has(SHM_RDONLY) {
        (FileMode::ReadOnly, Prot::READ)
    } else {
        (FileMode::ReadWrite, Prot::READ | Prot::WRITE)
    };
    if has(SHM_EXEC) {
        prot |= Prot::EXEC;
    }
    let place = match attach_place(addr, has(SHM_RND), has(SHM_REMAP)) {
        Ok(place) => place,
        Err(errno) => return Some(Err(errno)),
    };
    let Some(attached) = objects.attach(id, mode) else {
        return Some(Err(Errno::EINVAL));
    };
    // A range that wraps replaces nothing, and finds no place.
    let wraps = place.is_some_and(|at| at.checked_add(attached.size).is_none());
    if wraps && !has(SHM_REMAP) {
        return Some(Err(Errno::EINVAL));
    }
    let how = match place {
        None => MapFlags::empty(),
        Some(_) if has(SHM_REMAP) => MapFlags::FIXED,
        Some(_) => MapFlags::FIXED_NOREPLACE,
    };
    let args = MmapArgs {
        addr: place.unwrap_or(0),
        len: attached.size,
        prot,
        flags: MapFlags::SHARED | how,
        file: None,
        offset: 0,
    };
    Some(Ok(if attached.huge {
        huge::placed(args, Some(attached.file), returned)
    } else {
        MmapArgs {
            file: Some(attached.file),
            ..args
        }
    }))
}

/// Returns the requested address of a segment; `None`: any. An invalid address can replace nothing.
fn attach_place(addr: u64, round: bool, remap: bool) -> Result<Option<u64>, Errno> {
    let inside = addr % PAGE_SIZE;
    let place = addr - inside;
    if (inside != 0 && !round) || (place == 0 && remap) {
        return Err(Errno::EINVAL);
    }
    Ok((addr != 0).then_some(place))
}

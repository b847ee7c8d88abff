//! Huge pages of a pool (`MAP_HUGETLB`, `MFD_HUGETLB`, `SHM_HUGETLB`), as far as a recording shows
//! them.
//!
//! Only the recording knows the size of the recorded machine's pool, so the replay takes success
//! and place of such a mapping from it. The mapping is one of a file: it does not merge, its length
//! is a multiple of its page size, and a call cannot cut inside of a page.

use super::{
    call::{Call, Descriptor, Returned},
    files::{Descriptors, Objects},
};
use crate::{
    addr::Vpn,
    ctx::CallCx,
    error::Errno,
    file::File,
    mm::{MapFlags, Mm, MmapArgs},
};
use std::sync::Arc;

/// `MAP_HUGETLB`; the six bits from 26 on are the logarithm of the size, 0 for the usual one.
const HUGETLB: u32 = 0x4_0000;
const SHIFT: u32 = 26;
/// Bytes of a huge page, if the call names no size.
const USUAL: u64 = 2 << 20;

/// Returns true if `mmap` asks for huge pages.
pub(super) fn wants(flags: MapFlags) -> bool {
    flags.bits() & HUGETLB != 0
}

/// Returns true if an `mmap` would have huge pages behind it.
pub(super) fn is_behind(files: &Descriptors, flags: MapFlags, file: &Descriptor) -> bool {
    match flags.contains(MapFlags::ANONYMOUS) {
        true => wants(flags),
        false => files.get(file).is_some_and(|opened| opened.huge),
    }
}

/// Returns the size of the huge pages that `mmap` asks for.
fn size(flags: MapFlags) -> u64 {
    match flags.bits() >> SHIFT {
        0 => USUAL,
        log => 1 << (log % 64),
    }
}

/// Returns the mapping as recorded: whole huge pages of `file`, at the kernel's place. No layout
/// shows populated pages.
pub(super) fn placed(args: MmapArgs, file: Arc<File>, returned: &Returned) -> MmapArgs {
    let whole = args.len.checked_next_multiple_of(size(args.flags));
    let kept = MapFlags::SHARED | MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    let flags = args.flags & kept;
    let (addr, place) = match returned.value() {
        Some(at) if !flags.contains(MapFlags::FIXED) => (at, MapFlags::FIXED_NOREPLACE),
        _ => (args.addr, MapFlags::empty()),
    };
    MmapArgs {
        addr,
        len: whole.unwrap_or(args.len),
        flags: flags | place,
        file: Some(file),
        ..args
    }
}

/// Applies the effect of an `mmap` that failed: the kernel unmaps the target range before it asks
/// for pages.
pub(super) fn gave_up(cx: &mut CallCx<'_>, mm: &Mm, call: &Call) {
    let Call::Mmap {
        addr, len, flags, ..
    } = *call
    else {
        return;
    };
    let fixed = flags.contains(MapFlags::FIXED) && !flags.contains(MapFlags::FIXED_NOREPLACE);
    let page = size(flags);
    if let Some(len) = len.checked_next_multiple_of(page)
        && fixed
        && addr.is_multiple_of(page)
    {
        // The kernel refuses a range that it cannot cut out before any change.
        let _refused = mm.munmap(cx, addr, len);
    }
}

/// Returns true if a call would cut a mapping inside of a huge page, which is `EINVAL`
/// (`hugetlb_vm_op_split`).
pub(super) fn is_cut(
    cx: &mut CallCx<'_>,
    mm: &Mm,
    objects: &Objects,
    call: &Call,
) -> Option<Errno> {
    if !objects.is_huge(None) {
        return None;
    }
    let (addr, len) = match *call {
        Call::Munmap { addr, len } | Call::Mprotect { addr, len, .. } => (addr, len),
        Call::Mmap {
            addr, len, flags, ..
        } if flags.contains(MapFlags::FIXED) => (addr, len),
        _ => return None,
    };
    let end = addr.checked_add(len)?;
    let guard = mm.lock_shared(cx);
    let inside = |at: u64| {
        let vma = guard.vma_at(Vpn::containing(at));
        vma.is_some_and(|vma| vma.range.start().addr() < at)
    };
    if !inside(addr) && !inside(end) {
        return None;
    }
    drop(guard);
    let lines = mm.maps(cx);
    let mut huge = lines.iter().filter(|l| objects.is_huge(Some(&*l.name)));
    let cuts = |at: u64, start: u64, end: u64| start < at && at < end && !at.is_multiple_of(USUAL);
    huge.any(|l| cuts(addr, l.start, l.end) || cuts(end, l.start, l.end))
        .then_some(Errno::EINVAL)
}

//! Huge pages of a pool (`MAP_HUGETLB`, `MFD_HUGETLB`, `SHM_HUGETLB`), as far as a recording shows
//! them.
//!
//! Only the recording knows the size of the recorded machine's pool, so the replay takes success
//! and place of such a mapping from it. The pool of the replay grows as it must, and nothing is
//! reserved in it.

use super::{
    call::{Call, Descriptor, Returned},
    files::Descriptors,
};
use crate::{
    ctx::CallCx,
    file::File,
    mm::{MapFlags, Mm, MmapArgs},
};
use std::sync::Arc;

/// `MAP_HUGETLB`; the six bits from 26 on are the logarithm of the size, 0 for the usual one.
const HUGETLB: u32 = 0x4_0000;
const SHIFT: u32 = 26;
const SIZES: u32 = 0x3f << SHIFT;
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

/// Returns the mapping as recorded, at the kernel's place. No layout shows populated pages.
pub(super) fn placed(args: MmapArgs, file: Option<Arc<File>>, returned: &Returned) -> MmapArgs {
    let kind = MapFlags::SHARED | MapFlags::PRIVATE | MapFlags::FIXED;
    let anonymous = match file {
        Some(_) => MapFlags::empty(),
        None => MapFlags::ANONYMOUS | MapFlags::from_bits_retain(HUGETLB | SIZES),
    };
    let flags = (args.flags & (kind | anonymous)) | MapFlags::NORESERVE;
    let (addr, place) = match returned.value() {
        Some(at) if !flags.contains(MapFlags::FIXED) => (at, MapFlags::FIXED_NOREPLACE),
        _ => (args.addr, MapFlags::empty()),
    };
    MmapArgs {
        addr,
        flags: flags | place,
        file,
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

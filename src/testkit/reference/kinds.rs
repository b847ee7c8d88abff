//! The flags of `mmap`.

use super::{
    Reference,
    outcome::{Came, RWX, Step, errno, must, refusing},
    page::{PAGE, pages},
    pool::HUGE,
};
use crate::{
    mm::{MapFlags, Prot},
    replay::{Op, Outcome},
};

/// The bits of the type of a mapping.
const TYPE: MapFlags = MapFlags::from_bits_retain(0x0f);
/// The known flags, besides the type.
const KNOWN: MapFlags = MapFlags::FIXED
    .union(MapFlags::FIXED_NOREPLACE)
    .union(MapFlags::MAP_32BIT)
    .union(MapFlags::POPULATE)
    .union(MapFlags::NORESERVE)
    .union(MapFlags::LOCKED);
/// The kind of pages of a mapping.
#[derive(Clone, Copy)]
pub(super) struct Pages {
    pub(super) shared: bool,
    pub(super) droppable: bool,
}

pub(super) enum MmapRequest {
    /// The call must be refused, and nothing changes.
    Never,
    /// Pool pages, of so many small pages each.
    Huge(u64),
    Pages(Pages),
    /// The model knows too little.
    Unknown,
}

/// Returns the request of an `mmap`, in a script with a pool of huge pages or without one.
pub(super) fn asked(op: &Op, pool: bool) -> MmapRequest {
    let Op::Mmap {
        addr,
        len,
        prot,
        flags,
        ref file,
        off,
    } = *op
    else {
        unreachable!("the caller matched")
    };
    let has = |flag| flags.contains(flag);
    let (kind, of_file) = (flags & TYPE, file.is_some());
    let huge = has(MapFlags::HUGETLB);
    let droppable = kind == MapFlags::DROPPABLE;
    let validated = kind == MapFlags::SHARED_VALIDATE;
    let a_type = droppable || validated || kind == MapFlags::SHARED || kind == MapFlags::PRIVATE;
    let contradicts = if droppable {
        // Droppable memory is neither of a file, nor locked, nor a stack.
        of_file || huge || has(MapFlags::GROWSDOWN) || has(MapFlags::LOCKED)
    } else if huge || of_file {
        // An open file has no pool pages, and does not grow down.
        (huge && of_file) || has(MapFlags::GROWSDOWN)
    } else {
        // `MAP_SHARED_VALIDATE` needs a file; only private memory is a stack.
        validated || (kind == MapFlags::SHARED && has(MapFlags::GROWSDOWN))
    };
    if !a_type || contradicts || !off.is_multiple_of(PAGE) {
        return MmapRequest::Never;
    }
    if huge {
        return match pool {
            true => of_a_pool((addr, len), prot, flags),
            false => without_a_pool(off, flags),
        };
    }
    if !(KNOWN | TYPE).contains(flags) || !RWX.contains(prot) {
        return MmapRequest::Unknown;
    }
    if validated && has(MapFlags::FIXED_NOREPLACE) {
        // A flag outside of the known ones.
        return MmapRequest::Never;
    }
    MmapRequest::Pages(Pages {
        shared: kind == MapFlags::SHARED || validated,
        droppable,
    })
}

/// Returns the request of huge pages that the machine has.
fn of_a_pool((addr, len): (u64, u64), prot: Prot, flags: MapFlags) -> MmapRequest {
    let whole = |n: u64| n.is_multiple_of(HUGE * PAGE);
    let plain = MapFlags::FIXED | MapFlags::HUGETLB | MapFlags::PRIVATE | MapFlags::SHARED;
    let known = plain.contains(flags) && flags.contains(MapFlags::FIXED) && RWX.contains(prot);
    if !known || !whole(addr) || !whole(len) || len == 0 {
        return MmapRequest::Unknown;
    }
    MmapRequest::Pages(Pages {
        shared: flags & TYPE == MapFlags::SHARED,
        droppable: false,
    })
}

/// Returns the request of huge pages on a machine that has none: without a reservation the mapping
/// succeeds, and only its faults find no page.
fn without_a_pool(off: u64, flags: MapFlags) -> MmapRequest {
    let later = flags.contains(MapFlags::NORESERVE);
    let is_later = |size| later && (off / PAGE).is_multiple_of(size);
    match (flags.bits() >> 26) & 0x3f {
        0 | 21 if is_later(HUGE) => MmapRequest::Unknown,
        30 if is_later(HUGE * HUGE) => MmapRequest::Unknown,
        0 | 21 => MmapRequest::Huge(HUGE),
        30 => MmapRequest::Huge(HUGE * HUGE),
        _ => MmapRequest::Never,
    }
}

/// Returns true if the kernel may choose this address: `MAP_32BIT` means the second GiB, or the
/// hint below its end.
pub(super) fn is_in_area(op: &Op, at: u64) -> bool {
    let Op::Mmap {
        addr, len, flags, ..
    } = *op
    else {
        unreachable!("the caller matched")
    };
    let as_asked = at == addr - addr % PAGE;
    !flags.contains(MapFlags::MAP_32BIT)
        || ((as_asked || at >= 1 << 30) && at.saturating_add(len) <= 1 << 31)
}

impl Reference {
    /// Checks an `mmap` that asks for pool pages, of which there are none. The call fails, but the
    /// mappings in its place are gone by then if the arguments are valid.
    pub(super) fn no_huge(&mut self, actor: u32, op: &Op, size: u64, came: Came<'_>) -> Step {
        let Op::Mmap {
            addr,
            len,
            flags,
            off,
            ..
        } = *op
        else {
            unreachable!("the caller matched")
        };
        refusing(came)?;
        let replaces =
            flags.contains(MapFlags::FIXED) && !flags.contains(MapFlags::FIXED_NOREPLACE);
        // `MAP_SHARED_VALIDATE` refuses unknown flags.
        let unknown = *came == Outcome::Err("EOPNOTSUPP".to_owned())
            && flags & TYPE == MapFlags::SHARED_VALIDATE;
        if !replaces || unknown || len == 0 || !addr.is_multiple_of(size * PAGE) {
            return Ok(());
        }
        let Some(range) = pages(addr, len) else {
            self.lost = self.pages_of(actor).range(addr / PAGE..).next().is_some();
            return Ok(());
        };
        let gone = range.start..range.start + (range.end - range.start).next_multiple_of(size);
        if self.is_sealed(actor, &gone) {
            return must(&errno("EPERM"), came);
        }
        self.pages_of(actor).retain(|n, _| !gone.contains(n));
        self.forget_objects();
        let whole = (off / PAGE).is_multiple_of(size);
        must(&errno(if whole { "ENOMEM" } else { "EINVAL" }), came)
    }
}

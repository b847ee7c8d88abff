//! The comparison of the processes' structures with the model.

use super::{
    Reference,
    page::{Bytes, Freed, Kind, Object, PAGE, Page, Pages},
};
use crate::{
    addr::Pfn,
    ctx::CallCx,
    frame::FrameFlags,
    mm::{Machine, Mm, PageState, Prot, Pte, VmFlags},
    replay::{FileKind, Processes},
};
use std::collections::{BTreeMap, HashMap};

bitflags::bitflags! {
    /// The parts that [`Reference::check`] compares.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Checks: u8 {
        /// VMAs cover the pages of the model, with their rights, and nothing else.
        const VMAS = 1;
        /// Pages in memory have the bytes of the model; zero pages have none; guards are in the
        /// model's places.
        const BYTES = 2;
        /// The reverse map of every frame leads to every page that maps it.
        const RMAP = 4;
        /// A frame has as many mappings as entries, and no more references than those and its
        /// owner's. Not valid while devices hold references.
        const COUNTS = 8;
        /// Frames in use are those that an entry or an object has; promised memory is that of
        /// accounted VMAs and nameless objects. Valid only while nothing was swapped out, and while
        /// no page was used from outside of the processes.
        const ACCOUNTS = 16;
    }
}

/// Entries and owners of each frame that is mapped anywhere.
type Mapped = HashMap<Pfn, Owned>;

#[derive(Default)]
struct Owned {
    entries: u32,
    by_object: bool,
}

impl Reference {
    /// Compares processes with the model, after a step. `now` has all processes of the script.
    ///
    /// # Errors
    ///
    /// The first difference.
    pub fn check(
        &self,
        cx: &mut CallCx<'_>,
        machine: &Machine,
        now: &Processes,
        checks: Checks,
    ) -> Result<(), String> {
        if self.lost {
            return Ok(());
        }
        let mut mapped = Mapped::new();
        for (process, mm) in now {
            let here = |what: String| format!("process {process}: {what}");
            let pages = &self.processes[process];
            if checks.contains(Checks::VMAS) {
                vmas(cx, mm, pages).map_err(here)?;
            }
            if checks.contains(Checks::RMAP)
                && let Some((at, pfn)) = mm.unreachable_pages(cx).first()
            {
                return Err(here(format!(
                    "the reverse map of {pfn:?} does not lead to {:#x}",
                    at.addr()
                )));
            }
            for (at, state) in mm.pagemap(cx, self.arena) {
                let state = match state {
                    // The pagemap shows the huge zero page as a page of a file.
                    PageState::Object(pfn) if pfn.is_zero() => PageState::Zero,
                    // … and a page that a device has as one in swap.
                    PageState::Swap => match mm.walker(cx).pte(at) {
                        Pte::Device { pfn, .. } | Pte::Exclusive(pfn) => PageState::Anon(pfn),
                        _ => state,
                    },
                    state => state,
                };
                if let PageState::Anon(pfn) | PageState::Object(pfn) = state {
                    let owned = mapped.entry(pfn).or_default();
                    owned.entries += 1;
                    owned.by_object |= matches!(state, PageState::Object(_));
                }
                let page = pages.get(&at.0);
                if let (true, Some(page)) = (checks.contains(Checks::BYTES), page) {
                    self.entry(machine, page, state)
                        .map_err(|what| here(format!("the entry of {:#x} {what}", at.addr())))?;
                }
            }
        }
        if checks.contains(Checks::COUNTS) {
            counts(machine, &mapped, self.holds.have_no_pipes())?;
        }
        let quiet = machine.mem().swap().used() == 0 && machine.mem().swap().cached() == 0;
        let quiet = quiet && self.holds.are_none();
        if checks.contains(Checks::ACCOUNTS) && self.resident && quiet {
            self.accounts(cx, machine, now, &mapped)?;
        }
        Ok(())
    }
    /// Compares an entry with the page of the model.
    fn entry(&self, machine: &Machine, page: &Page, state: PageState) -> Result<(), String> {
        let nothing = Bytes::new();
        let bytes = self.shown(page).unwrap_or(&nothing);
        match state {
            PageState::Guard if !page.guard => Err("is a guard".into()),
            PageState::Guard | PageState::Swap => Ok(()),
            _ if page.guard => Err("is no guard".into()),
            PageState::Zero if bytes.is_empty() || page.freed == Freed::Perhaps => Ok(()),
            PageState::Zero => Err("has the zero page".into()),
            PageState::Anon(pfn) | PageState::Object(pfn) => {
                let Some(frame) = machine.mem().try_get(pfn) else {
                    return Err(format!("leads to {pfn:?}, which is free"));
                };
                // Threads next to the script may have written to the page again after its lazy
                // free.
                let renewed = self.copied && matches!(page.freed, Freed::Lazily | Freed::Perhaps);
                if renewed || self.is_hazy(page) {
                    return Ok(());
                }
                let mut offsets: Vec<u16> = bytes.keys().copied().collect();
                if page.freed != Freed::Hazy {
                    offsets.push(0);
                }
                let uncertain = self.tail_of(page).unwrap_or(u16::MAX);
                let read = |&offset: &u16| {
                    let mut got = [0];
                    frame.read(offset.into(), &mut got);
                    got[0]
                };
                // A device has put a new page where the old one was.
                if page.freed == Freed::Perhaps && offsets.iter().all(|offset| read(offset) == 0) {
                    return Ok(());
                }
                for offset in offsets.into_iter().filter(|&o| o < uncertain) {
                    let wanted = bytes.get(&offset).copied().unwrap_or_default();
                    let got = read(&offset);
                    if got != wanted {
                        return Err(format!(
                            "has {got} at byte {offset}, and the model has {wanted}"
                        ));
                    }
                }
                Ok(())
            }
        }
    }
    fn accounts(
        &self,
        cx: &mut CallCx<'_>,
        machine: &Machine,
        now: &Processes,
        mapped: &Mapped,
    ) -> Result<(), String> {
        let in_memory =
            |&(pfn, owned): &(&Pfn, &Owned)| !owned.by_object && !machine.mem().is_device(*pfn);
        let private = mapped.iter().filter(in_memory).count();
        let resident = |o: &Object| {
            // A file that executes in place has one page more, for its holes.
            o.pages.len() + usize::from(o.kind == Kind::File(FileKind::Xip))
        };
        let wanted = private + self.objects.iter().map(resident).sum::<usize>();
        let got = machine.mem().in_use() as usize;
        if got != wanted {
            return Err(format!(
                "{got} frames are in use, and {wanted} have an owner"
            ));
        }
        let accounted = |mm: &std::sync::Arc<Mm>| -> u64 {
            let lines = mm.maps(cx).into_iter();
            let lines = lines.filter(|l| l.flags.contains(VmFlags::ACCOUNT));
            lines.map(|l| (l.end - l.start) / PAGE).sum()
        };
        let nameless = self.objects.iter().filter(|o| o.promised);
        let wanted = now.values().map(accounted).sum::<u64>()
            + nameless.map(|o| o.size.div_ceil(PAGE)).sum::<u64>();
        let got = machine.commit().pages();
        if i64::try_from(wanted) != Ok(got) {
            return Err(format!(
                "{got} pages are committed, and the mappings need {wanted}"
            ));
        }
        Ok(())
    }
}

/// Compares the VMAs with the pages and their rights.
fn vmas(cx: &mut CallCx<'_>, mm: &Mm, pages: &Pages) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    for line in mm.maps(cx) {
        let bits = u32::try_from(line.flags.bits() & 7).expect("three bits");
        for page in line.start / PAGE..line.end / PAGE {
            seen.insert(page, Prot::from_bits_truncate(bits));
        }
    }
    let wanted: BTreeMap<u64, Prot> = pages.iter().map(|(n, p)| (*n, p.prot)).collect();
    let differs = seen
        .keys()
        .chain(wanted.keys())
        .find(|n| seen.get(n) != wanted.get(n));
    match differs {
        None => Ok(()),
        Some(n) => Err(format!(
            "{:#x} is mapped {:?}, and must be {:?}",
            n * PAGE,
            seen.get(n),
            wanted.get(n)
        )),
    }
}

/// Compares the counts of frames with the entries and owners, and with the pins; references are
/// compared only if `all` of them are known.
fn counts(machine: &Machine, mapped: &Mapped, all: bool) -> Result<(), String> {
    let mem = machine.mem();
    for (&pfn, owned) in mapped {
        let swapped = mem.flags(pfn).contains(FrameFlags::SWAP_CACHE);
        let owners = u32::from(owned.by_object || swapped);
        let pins = u32::try_from(mem.pins(pfn)).unwrap_or(u32::MAX);
        if pins > 0 && !owned.by_object && owned.entries > 1 {
            return Err(format!("{pfn:?} is pinned, private and shared"));
        }
        let got = (mem.mapcount(pfn), mem.refcount(pfn));
        let wanted = (owned.entries, owned.entries + owners + pins);
        if got.0 != wanted.0 || got.1 < wanted.1 || (all && got.1 > wanted.1) {
            return Err(format!(
                "{pfn:?} has {} mappings and {} references, and must have {} and {}",
                got.0, got.1, wanted.0, wanted.1
            ));
        }
    }
    Ok(())
}

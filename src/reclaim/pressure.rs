//! Memory pressure: passes over the lists until enough is free (`try_to_free_pages`), or until
//! nothing is left (`force_empty`).

use super::shrink::{Isolated, Reclaim, References};
use crate::{
    ctx::{Below, Cx, Sleepable, rank},
    frame::{FrameFlags, FrameLock, LruList},
    rmap::referenced,
};

/// The number of pages worked on at a time (`SWAP_CLUSTER_MAX`).
const BATCH: u64 = 32;
/// The first pass looks at one page in 2^12 of each list; each further pass at twice as many.
const DEF_PRIORITY: u32 = 12;
/// Passes without a result after which reclaim gives up (`MAX_RECLAIM_RETRIES`).
const RETRIES: u32 = 16;
/// The preference of swapping over dropping pages that can be read again (`vm.swappiness`).
const SWAPPINESS: u64 = 60;
/// The highest `vm.swappiness`.
const MAX_SWAPPINESS: u64 = 200;

/// The treatment of active pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deactivate {
    /// Active pages stay active.
    No,
    /// Active pages become inactive, as all else has failed.
    Yes,
}

/// The goal and the results of one attempt (`scan_control`).
#[derive(Clone, Copy, Debug)]
struct Control {
    /// The number of frames to free.
    wanted: u64,
    deactivate: Deactivate,
    /// The number of frames freed so far.
    freed: u64,
    /// Active pages were passed over.
    skipped_active: bool,
}

/// Numbers of pages, by list.
type Counts = [u64; 4];

/// The lists of private and shared memory, the inactive one first.
const ANON: [usize; 2] = [LruList::InactiveAnon as usize, LruList::ActiveAnon as usize];
/// The lists of files, the inactive one first.
const FILE: [usize; 2] = [LruList::InactiveFile as usize, LruList::ActiveFile as usize];

impl Reclaim<'_> {
    /// Frees at least `wanted` frames if possible, and returns how many it freed.
    pub(crate) fn free<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        wanted: u64,
    ) -> u64 {
        self.mem().drain_batches();
        let mut freed = self.free_written(cx);
        let mut rebalanced = false;
        while freed < wanted {
            match self.attempt(cx, wanted - freed) {
                0 if self.flush(cx) => {}
                0 if !rebalanced && self.rebalance(cx) => rebalanced = true,
                0 => break,
                now => {
                    freed += now;
                    rebalanced = false;
                }
            }
        }
        freed
    }
    /// Frees all frames that can be freed (`mem_cgroup_force_empty`), and returns how many. Dirty
    /// pages of files are written back, and can be freed by the next call.
    pub(crate) fn free_all<R: Below<rank::Folio>>(&self, cx: &mut Cx<'_, R, Sleepable>) -> u64 {
        self.mem().drain_batches();
        let mut freed = 0;
        let mut retries = RETRIES;
        while retries > 0 && LruList::ALL.iter().any(|&l| self.mem().lru_len(l) > 0) {
            let now = self.attempt(cx, 1);
            freed += now;
            if now == 0 {
                retries -= 1;
            }
        }
        let _written = self.flush(cx);
        freed
    }

    /// Frees private pages that an earlier attempt wrote to swap, and returns how many. When its
    /// write ends, Linux moves such a page to the tail of its list (`folio_rotate_reclaimable`), so
    /// the next attempt meets it first, and looks at no page in use if these are enough.
    fn free_written<R: Below<rank::Folio>>(&self, cx: &mut Cx<'_, R, Sleepable>) -> u64 {
        let pages = self.mem().lru_isolate_written();
        self.shrink(cx, pages, References::Ignore).freed
    }
    /// Makes one attempt to free frames (`do_try_to_free_pages`): twice without active pages, as
    /// the second time frees pages that the first time wrote out, then with active pages, if some
    /// were passed over.
    fn attempt<R: Below<rank::Folio>>(&self, cx: &mut Cx<'_, R, Sleepable>, wanted: u64) -> u64 {
        let mut control = Control {
            wanted: wanted.max(BATCH),
            deactivate: Deactivate::No,
            freed: 0,
            skipped_active: false,
        };
        for deactivate in [Deactivate::No, Deactivate::No, Deactivate::Yes] {
            if deactivate == Deactivate::Yes && !control.skipped_active {
                break;
            }
            control.deactivate = deactivate;
            for priority in (0..=DEF_PRIORITY).rev() {
                self.shrink_lists(cx, priority, &mut control);
                if priority == 0 {
                    // The shrinker of huge pages begins when all else was looked at.
                    self.split_deferred(cx);
                }
                if control.freed >= control.wanted {
                    break;
                }
            }
            if control.freed > 0 {
                break;
            }
        }
        control.freed
    }
    /// Shrinks the lists by turns, a batch of each: `shrink_lruvec`.
    fn shrink_lists<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        priority: u32,
        control: &mut Control,
    ) {
        let targets = self.scan_counts(priority);
        let mut left = targets;
        let mut freed = 0;
        // Active private memory alone is not worked on.
        while left[LruList::InactiveAnon as usize] + left[FILE[0]] + left[FILE[1]] > 0 {
            for (list, left) in LruList::ALL.into_iter().zip(&mut left) {
                let now = (*left).min(BATCH);
                *left -= now;
                if now > 0 {
                    freed += self.shrink_list(cx, list, now, control);
                }
            }
            if freed < control.wanted {
                continue;
            }
            if !keep_proportion(&targets, &mut left) {
                break;
            }
        }
        control.freed += freed;
    }
    /// Returns the number of pages to look at (`get_scan_count`): a share of each list, smaller for
    /// a kind whose lists have cost more lately; all pages in the last pass.
    fn scan_counts(&self, priority: u32) -> Counts {
        let mem = self.mem();
        let mut counts = LruList::ALL.map(|list| mem.lru_len(list) >> priority);
        if mem.swap().is_full() {
            ANON.iter().for_each(|&l| counts[l] = 0);
        } else if priority > 0 {
            let (anon, file) = self.balance();
            let both = anon + file;
            ANON.iter()
                .for_each(|&l| counts[l] = counts[l] * anon / both);
            FILE.iter()
                .for_each(|&l| counts[l] = counts[l] * file / both);
        }
        counts
    }
    /// Returns the weights of private memory and files, relative to each other
    /// (`calculate_pressure_balance`).
    fn balance(&self) -> (u64, u64) {
        let cost = self.mem().lru_cost();
        // No kind counts as more than twice as expensive as the other.
        let total = cost.anon + cost.file;
        let (anon, file) = (total + cost.anon, total + cost.file);
        let total = anon + file;
        (
            SWAPPINESS * (total + 1) / (anon + 1),
            (MAX_SWAPPINESS - SWAPPINESS) * (total + 1) / (file + 1),
        )
    }
    /// Works on a batch of one list; returns the number of frames freed.
    fn shrink_list<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        list: LruList,
        most: u64,
        control: &mut Control,
    ) -> u64 {
        match list {
            LruList::InactiveAnon | LruList::InactiveFile => {
                let (batch, looked_at) = self.mem().lru_isolate(list, most);
                let done = self.shrink(cx, batch, References::Check);
                let cost = done.written * BATCH + (looked_at - done.freed);
                self.mem().lru_note_cost(list, cost);
                return done.freed;
            }
            _ if control.deactivate == Deactivate::Yes => self.deactivate(cx, list, most),
            _ => control.skipped_active = true,
        }
        0
    }
    /// Marks a page of a locked object, which leaves the lists then (`folio_evictable`). Returns
    /// true if it is one.
    pub(super) fn keep_unevictable(&self, locked: &FrameLock<'_>) -> bool {
        let (mem, pfn) = (self.mem(), locked.pfn());
        let of_object = (mem.flags(pfn) & (FrameFlags::SWAP_BACKED | FrameFlags::ANON))
            == FrameFlags::SWAP_BACKED;
        let kept = of_object
            && self
                .owner_of(locked)
                .is_some_and(|(owner, _)| owner.is_unevictable());
        if kept {
            mem.set_flags(pfn, FrameFlags::UNEVICTABLE);
            mem.clear_flags(pfn, FrameFlags::ACTIVE);
        }
        kept
    }
    /// Makes private memory inactive if more of it is active than not, and returns true then
    /// (`inactive_is_low`). Linux does so in each pass, by statistics that may be two seconds old;
    /// here it is done when all else has failed, once, for as many pages as those passes take. So
    /// memory that is all active can go.
    fn rebalance<R: Below<rank::Folio>>(&self, cx: &mut Cx<'_, R, Sleepable>) -> bool {
        let mem = self.mem();
        let is_low = mem.lru_len(LruList::InactiveAnon) < mem.lru_len(LruList::ActiveAnon);
        if is_low && !mem.swap().is_full() {
            self.deactivate(cx, LruList::ActiveAnon, BATCH * u64::from(RETRIES));
            return true;
        }
        false
    }
    /// Makes a batch of active pages inactive, used or not (`shrink_active_list`). Clears their
    /// accessed bits, so that the next look is fair.
    fn deactivate<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        list: LruList,
        most: u64,
    ) {
        let mem = self.mem();
        let (frames, _) = mem.lru_isolate(list, most);
        let batch = Isolated { mem, frames };
        for frame in &batch.frames {
            if let Ok(locked) = mem.try_lock(frame.clone()) {
                if self.keep_unevictable(&locked) {
                    continue;
                }
                let mut cx = cx.descend::<rank::Folio, _>();
                let _used = referenced(&self.host().registry, mem, &mut cx, &locked);
            }
            mem.clear_flags(frame.pfn(), FrameFlags::ACTIVE);
        }
    }
}

/// Reduces the rest of the work after enough is free, so that both kinds are looked at in the
/// intended proportion. Returns false if one kind has nothing left: the work is done.
fn keep_proportion(targets: &Counts, left: &mut Counts) -> bool {
    let sum = |counts: &Counts, kind: [usize; 2]| counts[kind[0]] + counts[kind[1]];
    let (anon, file) = (sum(left, ANON), sum(left, FILE));
    if anon == 0 || file == 0 {
        return false;
    }
    let (less, more) = if file > anon {
        (ANON, FILE)
    } else {
        (FILE, ANON)
    };
    let percent_left = sum(left, less) * 100 / (sum(targets, less) + 1);
    less.iter().for_each(|&l| left[l] = 0);
    for l in more {
        let looked_at = targets[l] - left[l];
        left[l] = (targets[l] * (100 - percent_left) / 100).saturating_sub(looked_at);
    }
    true
}

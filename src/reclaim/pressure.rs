//! Working through the lists until enough is free: `try_to_free_pages`, and until nothing is left: `force_empty`.

use super::shrink::{OffList, Reclaim, References};
use crate::{
    ctx::{Below, Cx, Sleepable, rank},
    frame::{FrameFlags, LruList},
    rmap::referenced,
};

/// Pages worked on at a time (`SWAP_CLUSTER_MAX`).
const BATCH: u64 = 32;
/// The share of each list that the first of the passes looks at: one in 2^12.
const DEF_PRIORITY: u32 = 12;
/// Passes without a result after which nothing more is expected (`MAX_RECLAIM_RETRIES`).
const RETRIES: u32 = 16;
/// How willing reclaim is to swap rather than to give up what can be read again (`vm.swappiness`), and the most it could be.
const SWAPPINESS: u64 = 60;
const MAX_SWAPPINESS: u64 = 200;

/// Whether active pages may be made inactive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deactivate {
    /// Only once all else has failed.
    No,
    /// Now.
    Yes,
}

/// What is wanted, and what one attempt has come to (`scan_control`).
#[derive(Clone, Copy, Debug)]
struct Control {
    wanted: u64,
    deactivate: Deactivate,
    freed: u64,
    /// Active pages were passed over.
    spared: bool,
}

/// Pages to look at, list by list.
type Counts = [u64; 4];

/// Which lists the pages of a kind are on.
const ANON: [usize; 2] = [LruList::InactiveAnon as usize, LruList::ActiveAnon as usize];
const FILE: [usize; 2] = [LruList::InactiveFile as usize, LruList::ActiveFile as usize];

impl Reclaim<'_> {
    /// Frees at least `wanted` frames if that can be done; returns how many it freed.
    pub(crate) fn free<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        wanted: u64,
    ) -> u64 {
        let mut freed = 0;
        while freed < wanted {
            match self.attempt(cx, wanted - freed) {
                0 if self.flush(cx) => {}
                0 => break,
                now => freed += now,
            }
        }
        freed
    }
    /// Frees all that can be freed (`mem_cgroup_force_empty`); returns how many frames that were. Dirty pages of files are
    /// written back: they can be freed from then on.
    pub(crate) fn free_all<R: Below<rank::Folio>>(&self, cx: &mut Cx<'_, R, Sleepable>) -> u64 {
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

    /// Until something is free: twice as gently, because what the first time only wrote out the second can free, then
    /// with active pages too (`do_try_to_free_pages`).
    fn attempt<R: Below<rank::Folio>>(&self, cx: &mut Cx<'_, R, Sleepable>, wanted: u64) -> u64 {
        let mut control = Control {
            wanted: wanted.max(BATCH),
            deactivate: Deactivate::No,
            freed: 0,
            spared: false,
        };
        for deactivate in [Deactivate::No, Deactivate::No, Deactivate::Yes] {
            if deactivate == Deactivate::Yes && !control.spared {
                break;
            }
            control.deactivate = deactivate;
            for priority in (0..=DEF_PRIORITY).rev() {
                self.shrink_lists(cx, priority, &mut control);
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
    /// `shrink_lruvec`: the lists by turns, a batch of each.
    fn shrink_lists<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        priority: u32,
        control: &mut Control,
    ) {
        let targets = self.scan_counts(priority);
        let mut left = targets;
        let mut freed = 0;
        // Active private memory alone keeps nobody busy.
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
            if !level(&targets, &mut left) {
                break;
            }
        }
        control.freed += freed;
    }
    /// `get_scan_count`: a share of each list, and of each kind the less the more it cost of late; in the last pass all.
    fn scan_counts(&self, priority: u32) -> Counts {
        let mem = self.mem();
        let mut counts = LruList::ALL.map(|list| mem.lru_len(list) >> priority);
        let swap = mem.swap();
        if swap.used() >= u64::from(swap.capacity()) {
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
    /// How much to look at pages of either kind, relative to each other (`calculate_pressure_balance`).
    fn balance(&self) -> (u64, u64) {
        let cost = self.mem().lru_cost();
        // Neither is more than twice as dear as the other.
        let total = cost.anon + cost.file;
        let (anon, file) = (total + cost.anon, total + cost.file);
        let total = anon + file;
        (
            SWAPPINESS * (total + 1) / (anon + 1),
            (MAX_SWAPPINESS - SWAPPINESS) * (total + 1) / (file + 1),
        )
    }
    /// A batch of one list; how many frames are free now.
    fn shrink_list<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        list: LruList,
        most: u64,
        control: &mut Control,
    ) -> u64 {
        match list {
            LruList::InactiveAnon | LruList::InactiveFile => {
                let batch = self.mem().lru_isolate(list, most);
                let looked_at = batch.len() as u64;
                let done = self.shrink(cx, batch, References::Check);
                let cost = done.written * BATCH + (looked_at - done.freed);
                self.mem().lru_note_cost(list, cost);
                return done.freed;
            }
            _ if control.deactivate == Deactivate::Yes => self.deactivate(cx, list, most),
            _ => control.spared = true,
        }
        0
    }
    /// `shrink_active_list`: pages become inactive, used or not; the mark is cleared, so that the next look is fair.
    fn deactivate<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        list: LruList,
        most: u64,
    ) {
        let mem = self.mem();
        let frames = mem.lru_isolate(list, most);
        let batch = OffList { mem, frames };
        for frame in &batch.frames {
            if let Ok(locked) = mem.try_lock(frame.clone()) {
                let mut cx = cx.descend::<rank::Folio, _>();
                let _used = referenced(&self.host().registry, mem, &mut cx, &locked);
            }
            mem.clear_flags(frame.pfn(), FrameFlags::ACTIVE);
        }
    }
}

/// Enough is free: what is left is cut so that both kinds have been looked at in the proportion that was meant. Says
/// whether there is anything to level.
fn level(targets: &Counts, left: &mut Counts) -> bool {
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

//! Working through the lists until enough is free: `try_to_free_pages`, and until nothing is left: `force_empty`.

use super::shrink::{Reclaim, References};
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
const RETRIES: u32 = 5;

/// Whether active pages may be made inactive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deactivate {
    /// Only once all else has failed.
    No,
    /// Now.
    Yes,
}

/// What one pass came to.
#[derive(Clone, Copy, Debug, Default)]
struct Pass {
    freed: u64,
    /// Active pages were passed over.
    spared: bool,
}

impl Reclaim<'_> {
    /// Frees at least `wanted` frames if that can be done; returns how many it freed.
    pub(crate) fn free<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        wanted: u64,
    ) -> u64 {
        let mut deactivate = Deactivate::No;
        loop {
            let pass = self.pass(cx, wanted.max(BATCH), deactivate);
            if pass.freed > 0 || !pass.spared {
                return pass.freed;
            }
            deactivate = Deactivate::Yes;
        }
    }
    /// Frees all that can be freed (`mem_cgroup_force_empty`); returns how many frames that were.
    pub(crate) fn free_all<R: Below<rank::Folio>>(&self, cx: &mut Cx<'_, R, Sleepable>) -> u64 {
        let mut freed = 0;
        let mut retries = RETRIES;
        while retries > 0 && LruList::ALL.iter().any(|&l| self.mem().lru_len(l) > 0) {
            let now = self.free(cx, 1);
            freed += now;
            if now == 0 {
                retries -= 1;
            }
        }
        freed
    }

    /// Ever larger shares of the lists, until enough is free (`do_try_to_free_pages`).
    fn pass<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        wanted: u64,
        deactivate: Deactivate,
    ) -> Pass {
        let mut pass = Pass::default();
        for priority in (0..=DEF_PRIORITY).rev() {
            let part = self.shrink_lists(cx, priority, wanted, deactivate);
            pass.freed += part.freed;
            pass.spared |= part.spared;
            if pass.freed >= wanted {
                break;
            }
        }
        pass
    }
    /// `shrink_lruvec`: the lists by turns, a batch of each.
    fn shrink_lists<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        priority: u32,
        wanted: u64,
        deactivate: Deactivate,
    ) -> Pass {
        let mem = self.mem();
        let mut left = LruList::ALL.map(|list| mem.lru_len(list) >> priority);
        let mut pass = Pass::default();
        // Active private memory alone keeps nobody busy.
        while left[0] + left[2] + left[3] > 0 {
            for (list, left) in LruList::ALL.into_iter().zip(&mut left) {
                let now = (*left).min(BATCH);
                *left -= now;
                if now == 0 {
                    continue;
                }
                match list {
                    LruList::InactiveAnon | LruList::InactiveFile => {
                        let batch = mem.lru_isolate(list, now);
                        pass.freed += self.shrink(cx, batch, References::Check);
                    }
                    _ if deactivate == Deactivate::Yes => self.deactivate(cx, list, now),
                    _ => pass.spared = true,
                }
            }
            if pass.freed >= wanted {
                break;
            }
        }
        pass
    }
    /// `shrink_active_list`: pages become inactive, used or not; the mark is cleared, so that the next look is fair.
    fn deactivate<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        list: LruList,
        most: u64,
    ) {
        let mem = self.mem();
        let batch = mem.lru_isolate(list, most);
        for frame in &batch {
            if let Ok(locked) = mem.try_lock(frame.clone()) {
                let mut cx = cx.descend::<rank::Folio, _>();
                let _used = referenced(&self.host().registry, mem, &mut cx, &locked);
            }
            mem.clear_flags(frame.pfn(), FrameFlags::ACTIVE);
        }
        batch.iter().for_each(|frame| mem.lru_add(frame.pfn()));
    }
}

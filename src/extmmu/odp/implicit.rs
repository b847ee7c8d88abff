//! Implicit regions: all of a process's memory under one key, in children that come and go
//! (`mlx5_ib_alloc_implicit_mr`).

use super::{
    mistake::OdpMistake,
    region::{Parts, Region},
};
use crate::{
    addr::{TASK_PAGES, Vpn, VpnRange},
    ctx::CallCx,
    notifier::{ExternalMmu, Registration, Translation},
    sync::Mutex,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A region of everything, without a subscription of its own.
pub struct ImplicitRegion {
    pub(super) parts: Parts,
    /// By number: the first page divided by the pages of a child. No callback takes this lock.
    children: Mutex<BTreeMap<u64, Child>>,
    /// The regions of the children, for oracles: no call is made with this locked.
    shown: Mutex<BTreeMap<u64, Arc<Region>>>,
    /// The numbers of children that a window has emptied.
    emptied: Arc<Mutex<BTreeSet<u64>>>,
}

struct Child {
    region: Arc<Region>,
    /// `None`: ended, for the mistake.
    registration: Option<Registration>,
}

impl ImplicitRegion {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            children: Mutex::default(),
            shown: Mutex::default(),
            emptied: Arc::default(),
        })
    }
    /// Returns the number of children.
    pub fn children(&self) -> usize {
        self.children.lock().len()
    }
    fn number_of(&self, at: Vpn) -> u64 {
        at.0 / self.pages_of_child()
    }
    fn pages_of_child(&self) -> u64 {
        let pages = self.parts.config.child_pages;
        pages.min(TASK_PAGES).next_power_of_two()
    }
    /// Returns the child of a page, if there is one.
    pub(super) fn child(&self, at: Vpn) -> Option<Arc<Region>> {
        let children = self.children.lock();
        let child = children.get(&self.number_of(at));
        child.map(|child| Arc::clone(&child.region))
    }
    /// Returns the child of a page, and makes it if there is none; `None` once the process has
    /// gone, or beyond its memory.
    pub(super) fn child_for(&self, cx: &mut CallCx<'_>, at: Vpn) -> Option<Arc<Region>> {
        let number = self.number_of(at);
        let mut children = self.children.lock();
        if let Some(child) = children.get(&number) {
            return Some(Arc::clone(&child.region));
        }
        let mm = self.parts.mm.upgrade()?;
        let first = number * self.pages_of_child();
        let pages = VpnRange::new(Vpn(first), Vpn(first + self.pages_of_child()))?;
        let pages = pages.intersect(VpnRange::TASK)?;
        let parts = self.parts.clone();
        let emptied = Some((Arc::clone(&self.emptied), number));
        let new = |seat| Region::new(seat, pages, parts, emptied);
        let (region, registration) = mm.subscribe(cx, pages, new);
        let child = Child {
            region: Arc::clone(&region),
            registration: Some(registration),
        };
        self.shown.lock().insert(number, Arc::clone(&region));
        // Last: a child that is found has subscribed.
        children.insert(number, child);
        Some(region)
    }
    /// Ends the children that windows have emptied, and returns their number. The adapter's worker
    /// calls it; a window must not.
    pub fn reap(&self, cx: &mut CallCx<'_>) -> usize {
        if self.parts.made(OdpMistake::NeverReaps) {
            return 0;
        }
        let emptied = std::mem::take(&mut *self.emptied.lock());
        let mut ended = 0;
        for number in emptied {
            ended += usize::from(self.end(cx, number, false));
        }
        ended
    }
    /// Ends a child; one that has entries again only if `anyway`.
    fn end(&self, cx: &mut CallCx<'_>, number: u64, anyway: bool) -> bool {
        let mut children = self.children.lock();
        let Some(child) = children.get_mut(&number) else {
            return false;
        };
        if !anyway && child.region.entries(cx) > 0 {
            return false;
        }
        let registration = child.registration.take();
        let region = Arc::clone(&child.region);
        // First: nothing finds the child that is about to end.
        if !self.parts.made(OdpMistake::EndsLinked) {
            children.remove(&number);
        }
        drop(children);
        registration.is_some_and(|registration| {
            registration.unregister(cx);
            self.no_longer_shown(number, &region);
            true
        })
    }
    /// Forgets a child that has ended, unless another one has its place.
    fn no_longer_shown(&self, number: u64, ended: &Arc<Region>) {
        let mut shown = self.shown.lock();
        if shown
            .get(&number)
            .is_some_and(|region| Arc::ptr_eq(region, ended))
        {
            shown.remove(&number);
        }
    }
    /// Shows every translation of the region, for a driver that an
    /// [oracle](crate::oracle::Oracle::watch) watches. Returns false if some could not be seen.
    pub fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        let shown: Vec<Arc<Region>> = self.shown.lock().values().cloned().collect();
        let mut all = true;
        for region in shown {
            all &= region.translations(visit);
        }
        all
    }
    /// Ends every child.
    pub(super) fn end_all(&self, cx: &mut CallCx<'_>) {
        let numbers: Vec<u64> = self.children.lock().keys().copied().collect();
        for number in numbers {
            self.end(cx, number, true);
        }
    }
}

impl std::fmt::Debug for ImplicitRegion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImplicitRegion")
            .field("children", &self.children())
            .finish_non_exhaustive()
    }
}
